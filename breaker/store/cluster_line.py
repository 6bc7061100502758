"""
Cluster line: whole batches of commands to a Cluster, each to the node that has its keys.

1. Commands of one exchange are grouped by node and sent to all of them at once; replies come back in order.
2. What a node fails, fails in the places of its own commands; the others have their replies.
3. A command that was refused because its slot is elsewhere, or is moving, is sent once more within the same
   deadline. One whose reply got lost never is.
4. While any other node is not known to be ill, what fails is a part's own and not the whole store's.
5. An exchange is over a moment before `store.timeout`: who stood behind a node that hangs is still decided in time.
6. Commands without a key (WAIT, WAITAOF) follow the others on each node; the smallest of the answers counts.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, ResponseError, TryAgainError

from breaker.core.config import StoreSettings
from breaker.core.errors import StoreError, StoreRefusedError
from breaker.store.address import Node, address_of
from breaker.store.cluster_client import target_of
from breaker.store.connection import Command, as_ours, translated
from breaker.store.ending import end
from breaker.store.peer import LEFT_ALONE_S, Greeting, Peer
from breaker.store.scripts import Script
from breaker.store.slots import SlotTable, find_table, key_of, slot_of

PAUSE_S = 0.02  # before what is moving is asked once more
BEHIND_S, BEHIND_SHARE = 0.1, 0.25  # what is left of the time for those behind: the smaller of both
OPEN_GRACE_S = 0.5  # the other nodes may take so long once one is there

# What a script is told when its slot is half moved. Scripts read what they will write before the first
# write, so that nothing is half done by then.
NON_LOCAL = "non local key"

Target = tuple[Node, bool]  # a node, and whether it has to be asked with ASKING: the slot is on its way to it


class ClusterLine:
    """The same as `Line`, over all nodes. Not for concurrent use: the coalescer sends one batch at a time."""

    def __init__(self, settings: StoreSettings, scripts: dict[str, Script]) -> None:
        self._settings, self._scripts = settings, scripts
        self._address = address_of(settings)
        seconds = settings.timeout_ms / 1_000
        self._seconds = seconds - min(BEHIND_S, seconds * BEHIND_SHARE)
        self._owners: list[Node | None] = []
        self._peers: dict[Node, Peer] = {}
        self._fresh: SlotTable | None = None  # found behind our back; taken before the next exchange
        self._finding: asyncio.Task[None] | None = None
        self._found_at = 0.0
        self._answers = True  # some node did when it was last asked

    @property
    def is_open(self) -> bool:
        return any(peer.is_open for peer in self._peers.values())

    @property
    def fails_in_parts(self) -> bool:
        """Rule 4: nodes that were not asked lately may be away as well, which the search for a slot table finds out."""
        return self._answers and not all(peer.is_ill for peer in self._peers.values())

    async def open(self) -> Greeting:
        """
        Find the nodes, connect to them, load the scripts, and ask the time.

        Returns:
            One node's clock, and our monotonic time before and after it was asked; microseconds.

        Raises:
            StoreError: No node is there, or none wants us.

        """
        known = list(self._peers)
        await self.close()
        try:
            await self._take(await find_table(self._settings, self._address, known))
            self._answers = True
        except RedisError as exc:
            raise as_ours(exc) from exc
        waiting: set[asyncio.Task[None]] = {peer.opened() for peer in self._peers.values()}
        _, waiting = await asyncio.wait(waiting, timeout=OPEN_GRACE_S)
        while waiting and not self.is_open:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for peer in self._peers.values():
            if peer.is_open and peer.greeting:
                return peer.greeting
        raise StoreError("no node of the Cluster can be used: " + "; ".join(map(str, self._peers.values())))

    async def close(self) -> None:
        if self._finding:
            await end([self._finding])
        peers, self._peers = self._peers, {}
        for peer in peers.values():
            await peer.close()

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """
        Send each command to its node, and read all replies, within the deadline.

        Returns:
            One reply per command; one that was refused, or whose node failed, has its exception in its place.

        Raises:
            StoreError: There is no connection.

        """
        if self._fresh:
            await self._take(self._fresh)
        if not self.is_open:
            raise StoreError("there is no connection to the store")
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds
        replies: list[Any] = [None] * len(commands)
        groups, shared = self._grouped(commands, replies)
        told = await self._send(commands, groups, shared, replies, until)
        if again := self._refused_for_now(commands, groups, replies):
            if any(isinstance(reply, ResponseError) and is_moving(reply) for reply in replies):
                await asyncio.sleep(min(PAUSE_S, max(0.0, until - loop.time()) / 2))
            told += await self._send(commands, again, shared, replies, until)
        for place, at in enumerate(shared):
            replies[at] = smallest([answers[place] for answers in told])
        self._answers = self._answers or not all(isinstance(reply, StoreError) for reply in replies)
        if any(isinstance(reply, Exception) for reply in replies):
            self._look_again()
            return [in_our_words(reply) if isinstance(reply, Exception) else reply for reply in replies]
        return replies

    def _grouped(
        self, commands: Sequence[Command], replies: list[Any]
    ) -> tuple[dict[Target, list[int]], list[int]]:
        """Places of the commands for each node, and of those that each node gets."""
        groups: dict[Target, list[int]] = {}
        shared: list[int] = []
        for at, command in enumerate(commands):
            key = key_of(command)
            if key is None:
                shared.append(at)
            elif owner := self._owners[slot_of(key)]:
                groups.setdefault((owner, False), []).append(at)
            else:
                replies[at] = StoreRefusedError(f"no node of the Cluster serves slot {slot_of(key)} now")
        if shared and not groups:
            groups[next((node, False) for node, peer in self._peers.items() if peer.is_open)] = []
        return groups, shared

    async def _send(
        self,
        commands: Sequence[Command],
        groups: dict[Target, list[int]],
        shared: list[int],
        replies: list[Any],
        until: float,
    ) -> list[list[Any]]:
        """
        Each group to its node; fills in the replies.

        Returns:
            What each node said to the commands that all of them got.

        """
        tail = [commands[at] for at in shared]
        batches = [
            self._ask(target, [commands[at] for at in places], tail, until)
            for target, places in groups.items()
        ]
        # Most often there is one: it needs no task.
        told = [await batches[0]] if len(batches) == 1 else await asyncio.gather(*batches)
        for places, answers in zip(groups.values(), told, strict=True):
            for at, answer in zip(places, answers, strict=False):  # behind these stand those of the tail
                replies[at] = answer
        return [answers[len(places) :] for places, answers in zip(groups.values(), told, strict=True)]

    async def _ask(self, target: Target, own: list[Command], tail: list[Command], until: float) -> list[Any]:
        node, is_asking = target
        peer = self._peer(node)
        if not is_asking:
            return await peer.ask([*own, *tail], until)
        sent: list[Command] = [part for command in own for part in (("ASKING",), command)]
        answers = await peer.ask([*sent, *tail], until)
        return [*answers[1 : len(sent) : 2], *answers[len(sent) :]]

    def _refused_for_now(
        self, commands: Sequence[Command], groups: dict[Target, list[int]], replies: list[Any]
    ) -> dict[Target, list[int]]:
        """What is worth sending once more, and where; MOVED is learned for the next exchanges too."""
        again: dict[Target, list[int]] = {}
        for (node, _), places in groups.items():
            for at in places:
                reply = replies[at]
                if not isinstance(reply, ResponseError):
                    continue
                target: Target
                if isinstance(reply, MovedError):
                    target = target_of(reply, node), False
                    self._owners[slot_of(key_of(commands[at]) or b"")] = target[0]
                elif isinstance(reply, AskError):
                    target = target_of(reply, node), True
                elif is_moving(reply):
                    target = node, False
                else:
                    continue
                again.setdefault(target, []).append(at)
        return again

    def _peer(self, node: Node) -> Peer:
        peer = self._peers.get(node)
        if peer is None:
            settings = self._address.of_server(self._settings, node)
            peer = self._peers[node] = Peer(node, settings, self._scripts)
        return peer

    def _look_again(self) -> None:
        """Find out behind our back who has which slot, at most once a second."""
        now = asyncio.get_running_loop().time()
        if now - self._found_at >= LEFT_ALONE_S and (self._finding is None or self._finding.done()):
            self._found_at = now
            self._finding = asyncio.get_running_loop().create_task(self._find())

    async def _find(self) -> None:
        known = [node for node, peer in self._peers.items() if peer.is_open]
        try:
            self._fresh = await find_table(self._settings, self._address, known)
            self._answers = True
        except RedisError:  # asked again with the next failure
            self._answers = False

    async def _take(self, table: SlotTable) -> None:
        self._fresh, self._owners = None, list(table.owners)
        for node in table.nodes:
            self._peer(node)
        for node in set(self._peers) - set(table.nodes):
            await self._peers.pop(node).close()


def is_moving(refusal: Exception) -> bool:
    return isinstance(refusal, TryAgainError | ClusterDownError) or NON_LOCAL in str(refusal)


def smallest(answers: list[Any]) -> Any:
    """What all nodes can say: the smallest count, each for itself; a node that failed has failed its own commands."""
    said = [answer for answer in answers if not isinstance(answer, StoreError)] or answers
    if refusal := next((answer for answer in said if isinstance(answer, Exception)), None):
        return refusal
    if isinstance(said[0], list):
        return [min(counts) for counts in zip(*said, strict=True)]
    return min(said) if isinstance(said[0], int) else said[0]


def in_our_words(refusal: Exception) -> BaseException:
    if isinstance(refusal, AskError) or is_moving(refusal):
        return StoreRefusedError(f"the store is moving the slot of this operation: {refusal}")
    return translated(refusal)
