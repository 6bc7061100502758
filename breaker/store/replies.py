"""
Replies: what an exchange brought back, before its parts take it apart.

The clock that it tells, how far its writes got, and which part's reply was none.
"""

from typing import Any

from breaker.core.errors import StoreError, StoreRefusedError
from breaker.store.job_parts import AcceptPart, AckPart, KeepPart, LeasePart, RevokePart
from breaker.store.parts import AskPart, GrantPart, OtherPart, SettlePart, WithdrawPart

Part = (
    AskPart
    | SettlePart
    | WithdrawPart
    | GrantPart
    | OtherPart
    | AcceptPart
    | RevokePart
    | LeasePart
    | AckPart
    | KeepPart
)
OFF_CLOCK = 2  # a reply that says so contradicts our estimate; one that came too late may have waited in line
YEAR_US = 31_536_000_000_000  # a second number larger than this is the store's clock


def time_told(replies: list[Any]) -> tuple[int, bool] | None:
    """The first word of the store's clock among these, microseconds, and whether it contradicts our estimate."""
    for reply in replies:
        if isinstance(reply, list) and len(reply) > 1 and reply[1] > YEAR_US:
            return reply[1], reply[0] == OFF_CLOCK
    return None


def note_reach(parts: list[Part], replies: list[Any]) -> None:
    """What WAITAOF ([ours, replicas]) and WAIT (replicas) say of the writes before them."""
    has_fsync, replicas = False, 0
    for reply in replies:
        if isinstance(reply, list):
            has_fsync = reply[0] > 0
        elif isinstance(reply, int):
            replicas = reply
    for part in parts:
        if isinstance(part, AcceptPart):
            part.reach = (has_fsync, replicas)


def error_in(part: Part, reply: Any) -> StoreError | None:
    """Let a part take its reply; what went wrong, if anything did."""
    if isinstance(reply, StoreError):
        return reply
    try:
        part.on_reply(reply)
    except StoreError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001 - the parts behind it must get their replies whatever this one was
        # What it says may be a payload, and what this says is logged.
        size = f" of {len(reply)} parts" if isinstance(reply, list) else ""
        return StoreRefusedError(f"unexpected reply to {type(part).__name__}{size} ({type(exc).__name__})")
    return None
