"""
Chores: what follows the end of a job: its caller is told, or the downstream is asked what happened.

Both are durable: the script that ended the job wrote them down, and one that a dead replica had taken
comes back by itself.

1. A callback is tried again for three days, slower and slower; a receiver may ask for more time, or say
   that it wants no more (410).
2. A probe asks whether an unknown job happened: then it has succeeded; if not, it runs again. A
   downstream that does not say leaves it to a person, after ten tries.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from breaker.core.errors import StoreError
from breaker.core.events import CallbackEnded, Listener
from breaker.core.jobs import Fate
from breaker.gateway.attempt import downstream_key, job_id, probe
from breaker.gateway.callback_client import CallbackClient, Delivered
from breaker.gateway.cloud_event import EndedJob, cloud_event
from breaker.gateway.job_payload import JobResult
from breaker.gateway.vault import Unreadable, Vault
from breaker.gateway.work import Work
from breaker.store.ending import end
from breaker.store.job_desk import Chore, ChoreKind, JobDesk

AT_ONCE = 16
LOOK_S = 5.0  # ends that other replicas' scripts wrote down are seen after this
CALLBACK_DELAYS_S = (5, 30, 120, 600, 1_800, 3_600, 7_200)  # then every two hours
CALLBACK_TRIES = 40  # three days
PROBE_S, PROBE_MAX_S, PROBE_TRIES = 2.0, 300.0, 10


@dataclass(slots=True)
class Post:
    """One operation that has chores of one kind."""

    work: Work
    kind: ChoreKind
    client: CallbackClient | None
    soon: asyncio.Event = field(default_factory=asyncio.Event)


class Chores:
    """All operations' callbacks and probes, on one replica."""

    def __init__(
        self,
        desk: JobDesk,
        vault: Vault,
        emit: Listener,
        *,
        cluster: str,
        now_us: Callable[[], int],
        on_bug: Callable[[BaseException], None],
    ) -> None:
        self._desk, self._vault, self._emit = desk, vault, emit
        self._cluster, self._now_us, self._on_bug = cluster, now_us, on_bug
        self._posts: dict[tuple[str, ChoreKind], Post] = {}
        self._tasks: dict[tuple[str, ChoreKind], asyncio.Task[None]] = {}

    async def configure(self, works: Mapping[str, Work]) -> None:
        """These operations are in force."""
        await self.close()
        for name, work in works.items():
            operation = work.operation
            if operation.callback:
                client = CallbackClient(operation.callback.allow)
                self._posts[name, "callback"] = Post(work, "callback", client)
            if operation.probe:
                self._posts[name, "probe"] = Post(work, "probe", None)
        loop = asyncio.get_running_loop()
        self._tasks = {key: loop.create_task(self._keep_doing(post)) for key, post in self._posts.items()}

    def kick(self, operation: str) -> None:
        """A job of this operation has ended."""
        kinds: tuple[ChoreKind, ...] = ("callback", "probe")
        for kind in kinds:
            if post := self._posts.get((operation, kind)):
                post.soon.set()

    async def close(self) -> None:
        """Stop; what was under way is tried again by somebody."""
        await end(self._tasks.values())
        for post in self._posts.values():
            if post.client:
                await post.client.close()
        self._posts, self._tasks = {}, {}

    async def _keep_doing(self, post: Post) -> None:
        busy: set[asyncio.Task[None]] = set()
        try:
            while True:
                delay_s = await self._look(post, busy)
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await post.soon.wait()
        finally:
            await end(busy)

    async def _look(self, post: Post, busy: set[asyncio.Task[None]]) -> float:
        """Begin what is due, as far as there is room: one that hangs keeps its own place only. Seconds to the next."""
        post.soon.clear()  # before we look: what ends meanwhile is looked for again
        room = AT_ONCE - len(busy)
        if room == 0:
            return LOOK_S
        try:
            chores, next_us = await self._desk.due(post.work.lane, post.kind, room)
        except StoreError:
            return LOOK_S * (0.5 + random.random())  # noqa: S311 - spreading replicas is no secret
        except Exception as exc:  # noqa: BLE001 - or nobody would be called back until a restart
            self._on_bug(exc)
            return LOOK_S
        for chore in chores:
            task = asyncio.get_running_loop().create_task(self._do(post, chore))
            busy.add(task)
            task.add_done_callback(busy.discard)
            task.add_done_callback(lambda _: post.soon.set())
        return LOOK_S if next_us < 0 else min(LOOK_S, max(0.01, next_us / 1e6))

    async def _do(self, post: Post, chore: Chore) -> None:
        try:
            if post.client:
                await self._call_back(post.work, post.client, chore)
            else:
                await self._ask(post.work, chore)
        except StoreError:
            return  # it comes back when its lease has run out
        except Exception as exc:  # noqa: BLE001 - one that cannot be done must not keep the others
            self._on_bug(exc)
            self._desk.done(post.work.lane, post.kind, chore.job)

    async def _call_back(self, work: Work, client: CallbackClient, chore: Chore) -> None:
        head, callback = chore.record.head, work.operation.callback
        if not (callback and head.callback and head.state.is_ended):
            self._desk.done(work.lane, "callback", chore.job)  # it runs again, or is not told any more
            return
        ended = EndedJob(
            operation=work.operation.name, job=job_id(work.operation.name, head), state=head.state,
            tenant=head.tenant, attempts=head.attempt, accepted_us=head.accepted_us, ended_us=head.since_us,
            status=self._status(work, chore), reason=head.reason,
        )  # fmt: skip
        told = await client.deliver(
            head.callback, id=ended.webhook_id, timestamp_s=self._now_us() // 1_000_000,
            body=cloud_event(ended, cluster=self._cluster), secrets=callback.secrets,
        )  # fmt: skip
        result, detail = "ok", ""
        if isinstance(told, Delivered):
            self._desk.done(work.lane, "callback", chore.job)
        elif told.permanent or chore.tries >= CALLBACK_TRIES:
            result, detail = "failed", told.detail
            self._desk.done(work.lane, "callback", chore.job)
        else:
            result, detail = "retry", told.detail
            delay_s = max(callback_delay_s(chore.tries, random.random()), told.retry_after_s or 0.0)  # noqa: S311 - jitter is no secret
            self._desk.again(work.lane, "callback", chore.job, int(delay_s * 1e6))
        self._emit(CallbackEnded(work.operation.name, chore.job, result, detail))

    def _status(self, work: Work, chore: Chore) -> int | None:
        record = chore.record
        is_kept = record.head.state.keeps_payload
        try:
            found = self._vault.result(
                work.operation.name, record.head, record.answer if is_kept else record.body
            )
        except Unreadable:
            return None
        return (found.status or None) if found else None

    async def _ask(self, work: Work, chore: Chore) -> None:
        head, name = chore.record.head, work.operation.name
        happened = await probe(work, downstream_key(name, head), now_us=self._now_us())
        if happened:
            told = JobResult(detail="the downstream says that it happened; its answer was lost")
            stored = self._vault.close_result(work.operation, head.id, told)
            await self._desk.resolve(name, head.id, Fate.SUCCEEDED, stored)
        elif happened is False:
            await self._desk.requeue(name, head.id)
        elif chore.tries < PROBE_TRIES:
            delay_s = min(PROBE_MAX_S, PROBE_S * 2**chore.tries)
            self._desk.again(work.lane, "probe", chore.job, int(delay_s * 1e6))
            return
        self._desk.done(work.lane, "probe", chore.job)


def callback_delay_s(tries: int, draw: float) -> float:
    """Seconds until the next try after so many; jittered by a fifth, so that receivers are not met in step."""
    base = CALLBACK_DELAYS_S[min(tries, len(CALLBACK_DELAYS_S)) - 1]
    return base * (0.9 + 0.2 * draw)
