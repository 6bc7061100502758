"""
Members: the replicas that live, the configuration that most of them run, and the one that is steward.

1. Each replica beats once a second, and is gone 5 s after its last beat, or at once when it stops.
2. The configuration of most replicas is in force; of two that are run by as many, the one that was.
3. One replica is the steward, under a lease of 3 s that its beats renew. Its term grows with each election.
4. The store has an epoch, made once. Another one, or none, means that it has lost what it knew.
5. The store says in which format its keys are. A replica that does not know it writes nothing.

One script (`lua/beat.lua`) decides all of it, by the store's clock. What is known here stays while the store is away.
"""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from breaker.core.config import StoreSettings
from breaker.core.errors import StoreError, StoreRefusedError
from breaker.core.events import Listener, ReplicasSeen, StewardChanged, StoreFailed, StoreReset
from breaker.store.address import Topology, address_of
from breaker.store.connection import as_ours, open_client
from breaker.store.ending import end
from breaker.store.keys import cluster_key
from breaker.store.scripts import load_scripts
from breaker.store.steward import Standing, Steward, Stewardship

BEAT_S = 1.0
GONE_S = 5.0
LEASE_S = 3.0  # of the steward; both as in lua/beat.lua
NAMES_EVERY = 10  # beats between two that name the operations of our files
TIMEOUT_MS = 1_000
FORMAT = 1  # the newest format of keys that this version of Breaker knows
TOO_NEW = 4
MEMBER_KEYS = ("replicas", "facts", "config", "steward", "named", "epoch", "schema")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """
    One replica, as it told of itself.

    Attributes:
        version: Of its configuration.
        started_us, beat_us: Its first and its last beat, by the store's clock.
        format: The newest format of keys that it knows.

    """

    id: str
    version: str
    started_us: int
    beat_us: int
    format: int
    host: str
    pid: int
    is_steward: bool


class Members:
    """
    Our replica among the others.

    Attributes:
        live: Replicas that live, ours too, as last known.
        differing: Of these, those that run another configuration than the one in force.
        standing: Whether ours is the one in force.
        steward_id: Which replica is the steward, as last known.
        term: Of the steward, whoever that is; all replicas know the same, and after an outage it is another one.
        on_standing: What holds has changed, found by a beat of our own accord.
        on_reset: The store has lost what it knew.

    """

    def __init__(
        self,
        settings: StoreSettings,
        *,
        cluster: str,
        replica: str,
        emit: Listener,
        on_bug: Callable[[BaseException], None],
    ) -> None:
        """Wire it; nothing is sent before the first beat."""
        self._client = open_client(settings, timeout_ms=TIMEOUT_MS)
        self._is_on_one_node = address_of(settings).topology is Topology.CLUSTER  # of several
        self._scripts = load_scripts()
        self._cluster, self._replica, self._emit = cluster, replica, emit
        self._keys = [cluster_key(cluster, name) for name in MEMBER_KEYS]
        pid = os.getpid()
        self._facts = {"host": socket.gethostname(), "pids": pid_namespace(), "pid": pid, "born": born(pid)}
        self._version, self._operations, self._until_names = "", tuple[str, ...](), 0
        self._epoch = ""
        self._has_met = False
        self._many, self._many_until = 0, 0.0
        self._last_seen: tuple[int, int, str] | None = None
        self._elected_until = 0.0
        self._one_beat = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.live, self.differing, self.steward_id, self.term = 1, 0, "", 0
        self.standing = Standing()
        self.steward = Steward(on_bug)
        self.on_standing: Callable[[], None] | None = None
        self.on_reset: Callable[[], None] | None = None

    def says(self, version: str, operations: Iterable[str]) -> None:
        """From the next beat on our replica runs this configuration, which names these operations."""
        self._version, self._operations, self._until_names = version, tuple(operations), 0

    def start(self) -> None:
        """Beat from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def beat(self, now_us: int | None = None) -> None:
        """
        Beat once, and take in what the store says of the others.

        Args:
            now_us: Instead of the store's clock.

        Raises:
            StoreRefusedError: Its keys are in a format that is newer than what we know.
            StoreError: It did not answer, so that we know what we knew.

        """
        async with self._one_beat:
            try:
                await self._beat("" if now_us is None else str(now_us))
            except StoreError as exc:
                exc.is_partial = self._is_on_one_node
                # It may come back without us: what we name must then be known again before others count it as unnamed.
                self._until_names = 0
                raise

    async def listed(self) -> list[Member]:
        """
        All replicas that beat in the last seconds, by their ids.

        Raises:
            StoreError: They cannot be had now.

        """
        replicas, facts, _, steward, *_ = self._keys
        try:
            beats: Any = await self._client.zrange(replicas, 0, -1, withscores=True)
            told: Any = await self._client.hgetall(facts)
            holder: Any = await self._client.hget(steward, "replica")
        except (RedisError, OSError, TimeoutError) as exc:
            raise as_ours(exc) from exc
        newest = max((at_us for _, at_us in beats), default=0)
        return sorted(
            (
                member_of(id_.decode(), told[id_], int(at_us), is_steward=id_ == holder)
                for id_, at_us in beats
                if id_ in told and newest - at_us <= GONE_S * 1e6
            ),
            key=lambda member: member.id,
        )

    async def close(self) -> None:
        """Stop beating, and be gone at once."""
        if self._task:
            await end([self._task])
        await self.steward.close()
        if self._has_met:
            self._has_met = False
            with suppress(StoreError):  # then we are gone when our last beat lapses
                await self._run_script("leave", self._replica)
        await self._client.aclose()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began, before = loop.time(), self.standing
            try:
                await self.beat()
            except StoreError as exc:
                detail = f"this replica could not beat: {exc}"
                self._emit(StoreFailed(exc.kind, detail, is_partial=exc.is_partial))
            if self.standing != before and self.on_standing:
                self.on_standing()
            if self.steward.stewardship and loop.time() >= self._elected_until:
                self._depose()
            await asyncio.sleep(max(0.0, began + BEAT_S - loop.time()))

    async def _beat(self, now: str) -> None:
        ended = [] if self._has_met else await self._predecessors()
        names = self._operations if self._until_names == 0 else ()
        candidate = secrets.token_hex(8)
        sent = asyncio.get_running_loop().time()
        code, _, epoch, live, differing, version, edition, holder, term, since_us, written = await self._run_script(
            "beat", now, self._replica, self._version, FORMAT, json.dumps(self._facts), self._epoch, candidate,
            len(ended), *ended, *names,
        )  # fmt: skip
        if code == TOO_NEW:
            raise StoreRefusedError(
                f"the keys of cluster '{self._cluster}' are in format {written}, and this version of Breaker knows "
                f"format {FORMAT} at most: run the version that the other replicas run, or name another `cluster`"
            )
        self._has_met = True
        self._until_names = NAMES_EVERY if self._until_names == 0 else self._until_names - 1
        self._note_epoch(epoch.decode(), candidate, sent)
        self._note_stewardship(holder.decode(), Stewardship(term=term, since_us=since_us), sent + LEASE_S)
        self.standing = Standing(
            version=version.decode(), edition=edition, is_in_force=version.decode() == self._version
        )
        self._note_count(live, differing, sent)

    def _note_epoch(self, epoch: str, candidate: str, at: float) -> None:
        known, self._epoch = self._epoch, epoch
        if known in ("", epoch):
            return
        # The others need a moment to come back; until then as many live as did before.
        self._many, self._many_until = self.live, at + GONE_S
        self._until_names = 0
        what = "its epoch is gone" if epoch == candidate else "its epoch is another one"
        self._emit(StoreReset(f"the store has lost what it knew: {what} ({known} before, {epoch} now)"))
        if self.on_reset:
            self.on_reset()

    def _note_stewardship(self, holder: str, found: Stewardship, until: float) -> None:
        self.steward_id, self.term = holder, found.term
        if holder == self._replica:
            self._elected_until = until
            if self.steward.stewardship != found:
                self.steward.elected(found)
                self._emit(StewardChanged(is_steward=True, term=found.term))
        elif self.steward.stewardship:
            self._depose()

    def _depose(self) -> None:
        term = self.steward.stewardship.term if self.steward.stewardship else 0
        self.steward.deposed()
        self._emit(StewardChanged(is_steward=False, term=term))

    def _note_count(self, live: int, differing: int, at: float) -> None:
        if at < self._many_until:
            live = max(live, self._many)
        seen = ReplicasSeen(live, differing, self.standing.version)
        is_news = (live, differing, self.standing.version) != self._last_seen
        self.live, self.differing, self._last_seen = live, differing, (live, differing, self.standing.version)
        if is_news:
            self._emit(seen)

    async def _predecessors(self) -> list[str]:
        """Replicas of this machine whose process has ended without a word: they need not lapse."""
        try:
            told: Any = await self._client.hgetall(self._keys[1])
        except (RedisError, OSError, TimeoutError) as exc:
            raise as_ours(exc) from exc
        found = {id_.decode(): json.loads(text.split(b" ", 3)[3]) for id_, text in told.items()}
        return [
            id_
            for id_, facts in found.items()
            if (facts["host"], facts["pids"]) == (self._facts["host"], self._facts["pids"])
            and facts["born"] != born(facts["pid"])
        ]

    async def _run_script(self, verb: str, *arguments: str | bytes | int) -> Any:
        script = self._scripts[verb]
        try:
            try:
                return await self._client.evalsha(
                    script.sha.decode(), len(self._keys), *self._keys, *arguments
                )
            except NoScriptError:
                return await self._client.eval(script.text, len(self._keys), *self._keys, *arguments)
        except (RedisError, OSError, TimeoutError) as exc:
            raise as_ours(exc) from exc


def member_of(id_: str, text: bytes, beat_us: int, *, is_steward: bool) -> Member:
    version, known, started, facts = text.decode().split(" ", 3)
    read = json.loads(facts)
    return Member(
        id=id_, version=version, started_us=int(started), beat_us=beat_us, format=int(known), host=read["host"],
        pid=read["pid"], is_steward=is_steward,
    )  # fmt: skip


def pid_namespace() -> str:
    """Within what our process ids mean something; replicas of one host may be in several containers."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux: there are no such namespaces
        return ""


def born(pid: int) -> str:
    """When this process of this machine began, in the kernel's ticks; empty when it is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""
