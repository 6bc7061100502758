"""
Slots: which node of a Cluster has a key.

A Cluster spreads 16,384 slots over its primaries; a key's slot is the CRC16 of its hash tag
(https://valkey.io/topics/cluster-spec/). All keys of an operation share a tag, and so one node.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from breaker.core.config import StoreSettings
from breaker.store.address import Address, Node
from breaker.store.ending import end
from breaker.store.pools import ask_once

SLOTS = 16_384
ASK_S = 1.0  # for the answer of any node
EVALS = {"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"}
KEYLESS = {
    "PING", "ECHO", "TIME", "INFO", "CONFIG", "CLUSTER", "WAIT", "WAITAOF", "ROLE", "CLIENT", "SCRIPT", "PUBLISH",
    "PUBSUB", "SUBSCRIBE", "UNSUBSCRIBE", "COMMAND", "DBSIZE", "ACL", "LATENCY", "SLOWLOG", "MODULE", "SELECT",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTable:
    """
    Who has which slot, as one node said it.

    Attributes:
        owners: By slot; None where nobody serves it.
        told_by: The node that said so.

    """

    owners: tuple[Node | None, ...]
    told_by: Node

    @property
    def nodes(self) -> list[Node]:
        """All primaries that have slots, in their order."""
        return list(dict.fromkeys(node for node in self.owners if node))

    @property
    def missing(self) -> int:
        """Slots that nobody serves."""
        return self.owners.count(None)


def slot_of(key: bytes) -> int:
    return int(key_slot(key))


def key_of(command: Sequence[Any]) -> bytes | None:
    """The first key of a command; None for one that any node may answer."""
    name = command[0]
    if name == b"EVALSHA":  # nearly all of them
        return as_bytes(command[3])
    word = (name.decode() if isinstance(name, bytes) else str(name)).split(" ", 1)[0].upper()
    if word in EVALS:
        return as_bytes(command[3]) if int(command[2]) else None
    if word in KEYLESS or len(command) == 1:
        return None
    return as_bytes(command[1])


def as_bytes(key: Any) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()


def read_table(reply: Iterable[Any], asked: Node) -> SlotTable:
    """
    `CLUSTER SLOTS` as a table.

    Args:
        asked: The node that replied; one that does not know its own address leaves it out.

    """
    owners: list[Node | None] = [None] * SLOTS
    for first, last, primary, *_ in reply:
        host = primary[0].decode() if primary[0] else ""
        node = Node(asked.host if host in ("", "?") else host, int(primary[1]))
        owners[first : last + 1] = [node] * (last + 1 - first)
    return SlotTable(owners=tuple(owners), told_by=asked)


async def find_table(settings: StoreSettings, address: Address, nodes: Iterable[Node]) -> SlotTable:
    """
    The slot table of whichever of these nodes, or of the seeds, answers first.

    Raises:
        redis.exceptions.RedisError: None of them has one; says which said what.

    """
    asked = {
        asyncio.ensure_future(_ask(settings, address, node)): node
        for node in dict.fromkeys([*nodes, *address.seeds])
    }
    reasons: list[str] = []
    error: Exception | None = None
    try:
        async with asyncio.timeout(ASK_S):
            waiting = set(asked)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        return task.result()
                    except (RedisError, OSError, TimeoutError) as exc:
                        reasons.append(f"{asked[task]}: {exc}")
                        error = exc
    except TimeoutError:
        reasons.append(f"others: no answer in {ASK_S:g} s")
    finally:
        await end(asked)
    raise RedisConnectionError(
        "no node of the Cluster says who has which slot: " + "; ".join(reasons)
    ) from error


async def _ask(settings: StoreSettings, address: Address, node: Node) -> SlotTable:
    reply = await ask_once(address.of_server(settings, node), ASK_S, "CLUSTER", "SLOTS")
    table = read_table(reply, node)
    if not table.nodes:
        raise RedisConnectionError("has no slots assigned")
    return table
