"""
Sentinel: which server is the primary now?

1. All sentinels are asked at once: a dead one costs nobody its timeout.
2. The answer of the newest configuration (`config-epoch`) counts, once more than half have answered,
   or else of those who answered in time: a sentinel that was cut off still names the old primary.
3. A sentinel that wants a password gets that of the store.
"""

import asyncio
from dataclasses import dataclass

from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from breaker.core.config import StoreSettings
from breaker.store.address import Address, Node
from breaker.store.ending import end
from breaker.store.pools import ask_once

ASK_S = 0.5  # for the answers of all sentinels; a connection of ours has 2 s in all


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Named:
    """A sentinel's answer; the larger one counts."""

    epoch: int
    is_up: bool
    primary: Node


class Sentinels:
    """The sentinels of one store."""

    def __init__(self, settings: StoreSettings, address: Address) -> None:
        self._settings, self._address = settings, address

    async def find_primary(self) -> Node:
        """
        The primary, by the newest word of the sentinels.

        Raises:
            redis.exceptions.ConnectionError: Nobody names one that is up; says who said what.

        """
        asked = {asyncio.ensure_future(self._ask(node)): node for node in self._address.seeds}
        try:
            named, reasons = await _judge(asked)
        finally:
            await end(asked)
        if named is None:
            raise RedisConnectionError(
                f"no sentinel names a primary of {self._address.service!r}: " + "; ".join(reasons)
            )
        if not named.is_up:
            raise RedisConnectionError(
                f"the sentinels hold the primary {named.primary} for down, and have not named another one yet"
            )
        return named.primary

    async def _ask(self, node: Node) -> Named:
        try:
            return await self._ask_as(node, with_password=False)
        except RedisError as exc:
            # While connecting, redis-py wraps the refusal in a ConnectionError.
            wants_password = isinstance(exc, AuthenticationError) or isinstance(
                exc.__cause__, AuthenticationError
            )
            if not wants_password or not self._address.password:
                raise
            return await self._ask_as(node, with_password=True)

    async def _ask_as(self, node: Node, *, with_password: bool) -> Named:
        settings = self._address.of_sentinel(self._settings, node, with_password=with_password)
        flat: list[bytes] = await ask_once(settings, ASK_S, "SENTINEL", "MASTER", self._address.service)
        told = dict(zip(flat[::2], flat[1::2], strict=True))
        flags = told[b"flags"].split(b",")
        return Named(
            epoch=int(told[b"config-epoch"]),
            is_up=b"s_down" not in flags and b"o_down" not in flags,
            primary=Node(told[b"ip"].decode(), int(told[b"port"])),
        )


async def _judge(asked: dict[asyncio.Task[Named], Node]) -> tuple[Named | None, list[str]]:
    """The largest answer once more than half have answered, or the time is up."""
    answers: list[Named] = []
    reasons: list[str] = []
    waiting = set(asked)
    until = asyncio.get_running_loop().time() + ASK_S
    while waiting and len(answers) <= len(asked) // 2:
        done, waiting = await asyncio.wait(
            waiting,
            timeout=max(0.0, until - asyncio.get_running_loop().time()),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not done:
            break
        for task in done:
            try:
                answers.append(task.result())
            except (RedisError, OSError, TimeoutError) as exc:
                reasons.append(f"{asked[task]}: {_in_words(exc)}")
    reasons += [f"{asked[task]}: no answer in {ASK_S:g} s" for task in waiting]
    return max(answers, default=None), reasons


def _is_about_password(exc: Exception) -> bool:
    # While connecting, redis-py wraps the refusal in a ConnectionError.
    return isinstance(exc, AuthenticationError) or isinstance(exc.__cause__, AuthenticationError)


def _in_words(exc: Exception) -> str:
    if _is_about_password(exc):
        return f"wants another password than store.password_file has ({exc})"
    return "knows no such service" if isinstance(exc, ResponseError) else str(exc) or type(exc).__name__
