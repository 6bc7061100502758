"""
The scene of the admin tests: a real store with jobs in it, and the admin listener in front of it.

There is no dispatcher: a test leases jobs and says how they ended, so that nothing happens by itself.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from breaker.core.alert_policy import Alerting
from breaker.core.alerts import Incident
from breaker.core.config import Operator, StoreSettings
from breaker.core.errors import ConfigError, Problem
from breaker.core.events import Event
from breaker.core.ids import base32
from breaker.core.job_policy import Band, Durability, Queue
from breaker.core.jobs import Ack, Fate, LeasedJob, Offer, Queued, Reason
from breaker.core.model import Downstream, Match, Operation, Overflow
from breaker.core.promise import Eta
from breaker.gateway.job_payload import JobResult, Payload
from breaker.gateway.vault import Vault
from breaker.signals.channels import Answer, Taken
from breaker.store.alert_book import AlertBook
from breaker.store.audit import Audit
from breaker.store.capacity import CapacityStore
from breaker.store.checks import StoreFacts
from breaker.store.connection import open_client
from breaker.store.job_desk import JobDesk
from breaker.store.jobs import JobStore
from breaker.store.members import Members
from breaker.store.published import is_published
from breaker.store.removed import RemovedOperations
from breaker.web.admin import AdminListener, admin_app
from breaker.web.admin_controls import Controls
from breaker.web.listener import bind

CHARGE, REFUND, LOOK_UP = "billing.charge", "billing.refund", "billing.look-up"
HOUR_US, SECOND_US = 3_600_000_000, 1_000_000
_numbers = count(1)


def an_operation(name: str, *, has_queue: bool = True) -> Operation:
    queue = Queue(start_within_ms=60_000, jobs_max=100_000, durability=Durability.MEMORY)
    plain = Operation(
        name=name, pipeline="billing", team="finance", match=Match(method="POST", template=f"/{name}"),
        downstream=Downstream(url="http://127.0.0.1:9"),
    )  # fmt: skip
    return replace(plain, overflow=Overflow.QUEUE, queue=queue) if has_queue else plain


@dataclass(slots=True)
class Process:
    """The gateway process as the admin listener knows it, of which nothing is asked here but a reload."""

    broken: bool = False

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        return accept.encode(), "text/plain"

    async def is_ready(self) -> tuple[bool, str]:
        return True, "ready"

    async def is_started(self) -> bool:
        return True

    async def status(self) -> dict[str, Any]:
        return {"version": "1"}

    async def reload(self) -> str:
        if self.broken:
            raise ConfigError([Problem(file="gateway.yaml", line=1, column=1, message="unknown key")])
        return "abc"


@dataclass(slots=True, kw_only=True)
class Scene:
    """
    A store with jobs, and the admin listener.

    Attributes:
        operators: Who may; a test changes it at will, as it does the following three.
        alerting, own_incidents: Channels, and what this replica says by itself.
        answers: Of channels to a test, by name.
        url: Of the listener.

    """

    capacity: CapacityStore
    jobs: JobStore
    desk: JobDesk
    audit: Audit
    book: AlertBook
    operations: dict[str, Operation]
    events: list[Event]
    operators: tuple[Operator, ...] = ()
    vault: Vault = field(default_factory=lambda: Vault([]))
    alerting: Alerting = field(default_factory=Alerting)
    own_incidents: list[Incident] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    process: Process = field(default_factory=Process)
    app: web.Application | None = None
    listener: AdminListener | None = None
    url: str = ""

    async def accept(
        self, operation: str = CHARGE, *, tenant: str = "acme", band: Band = Band.NORMAL, caller: str = "crm",
        not_before_us: int = 0, body: bytes = b"secret",
    ) -> str:  # fmt: skip
        """A job is accepted; its whole id."""
        now_us = self.capacity.clock.now_us()
        number = next(_numbers)
        job = base32(number, 26)  # in the order in which they were accepted
        payload = Payload(method="POST", target=b"/charge?x=1", headers=((b"Accept", b"*/*"),), body=body)
        stored = self.vault.close(self.operations[operation], job, payload.encode())
        offer = Offer(
            lease_id=f"AAAAAAAA.{number:08}", job=job, tenant=tenant, cost=1, caller=caller, key="", fingerprint="",
            band=band, line=tenant, is_async=True, not_before_us=not_before_us, deadline_us=now_us + HOUR_US,
            expiry_us=now_us + 24 * HOUR_US, callback="", payload=stored,
        )  # fmt: skip
        answer = await self.jobs.accept(self.capacity.lane(operation), offer)
        assert isinstance(answer, Queued), answer
        return f"{operation}~{job}"

    async def lease(self, operation: str = CHARGE, want: int = 64) -> tuple[LeasedJob, ...]:
        leases = await self.jobs.lease(self.capacity.lane(operation), want, is_idle=True)
        return leases.jobs

    def end(self, leased: LeasedJob, fate: Fate, reason: Reason | str = "", operation: str = CHARGE) -> None:
        """An attempt ends; the store has it before anything that is asked of it later."""
        head = leased.head
        result = JobResult(
            status=422, headers=((b"Content-Type", b"text/plain"),), body=b"\xffno", reason=reason
        )
        note = orjson.dumps({"attempt": head.attempt, "fate": fate})
        self.jobs.ack(
            self.capacity.lane(operation),
            Ack(
                job=head.id, attempt=head.attempt, tenant=head.tenant, slot=leased.slot, fate=fate,
                reason=reason, note=note, result=self.vault.close(self.operations[operation], head.id, result.encode()),
            ),
        )  # fmt: skip

    async def run(self, fate: Fate, reason: Reason | str = "", operation: str = CHARGE) -> None:
        """All that can start does, and ends so."""
        while leased := await self.lease(operation):
            for job in leased:
                self.end(job, fate, reason, operation)

    async def dead(self, number: int = 1, reason: Reason = Reason.BUDGET, **job: Any) -> list[str]:
        """So many new dead letters."""
        ids = [await self.accept(**job) for _ in range(number)]
        await self.run(Fate.DEAD, reason, job.get("operation", CHARGE))
        return ids

    async def state(self, id_: str) -> str:
        """A job's state as the store has it."""
        operation, _, job = id_.partition("~")
        record = await self.desk.show(operation, job)
        assert record is not None, id_
        return str(record.head.state)

    async def states(self, ids: list[str]) -> list[str]:
        return [await self.state(id_) for id_ in ids]

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and JSON of an answer; a list of lines, if it is a stream."""
        sent = {**({"Breaker-Key": key} if key else {}), **(headers or {})}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self.url}/admin/v1/{path}", json=body, headers=sent) as answer,
        ):
            text = await answer.read()
            if answer.content_type == "application/x-ndjson":
                return answer.status, [orjson.loads(line) for line in text.splitlines()]
            assert answer.content_type == (
                "application/json" if answer.status == 200 else "application/problem+json"
            ), text
            return answer.status, orjson.loads(text)

    async def get(self, path: str) -> Any:
        status, found = await self.ask("GET", path)
        assert status == 200, found
        return found

    async def post(self, path: str, **body: Any) -> Any:
        status, found = await self.ask("POST", path, {"reason": "a test", **body})
        assert status == 200, found
        return found

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        status, found = await self.ask(method, path, body)
        assert found["status"] == status
        return status, found["detail"]

    async def until_hung_up(self) -> None:
        """Wait until the listener knows that nobody is connected."""
        assert self.listener is not None
        server = self.listener._runner.server
        assert server is not None
        while any(connection.transport for connection in server.connections):
            await asyncio.sleep(0.002)

    async def test_channel(self, name: str) -> Answer:
        return self.answers.get(name, Taken())

    async def audited(self) -> list[dict[str, Any]]:
        """The audit stream, the newest first."""
        rows: list[dict[str, Any]] = (await self.get("audit"))["audit"]
        return rows


@asynccontextmanager
async def admin_scene(store_url: str, cluster: str, *, is_loopback: bool = True) -> AsyncIterator[Scene]:
    """A store with three operations, of which two have queues, and the admin listener."""
    settings = StoreSettings(url=store_url, timeout_ms=2_000)
    events: list[Event] = []
    capacity = CapacityStore(
        settings, cluster=cluster, replica=base32(secrets.randbits(40), 8), emit=events.append
    )
    jobs = JobStore(capacity, settings, cluster=cluster, emit=events.append)
    client = open_client(settings)
    members = Members(
        settings, cluster=cluster, replica=capacity.replica, emit=events.append, on_bug=lambda _: None
    )
    removed = RemovedOperations(capacity, client, cluster)
    operations = {name: an_operation(name, has_queue=name != LOOK_UP) for name in (CHARGE, REFUND, LOOK_UP)}
    scene = Scene(
        capacity=capacity, jobs=jobs, desk=JobDesk(capacity, jobs, cluster=cluster, emit=events.append),
        audit=Audit(client, cluster), book=AlertBook(client, cluster), operations=operations, events=events,
    )  # fmt: skip
    controls = Controls(
        jobs=jobs, desk=scene.desk, audit=scene.audit, operations=lambda: scene.operations,
        is_published=lambda name: is_published(client, cluster, name), look=capacity.look, force=capacity.circuits.force,
        overrides=capacity.overrides, forecast=lambda *_: Eta(p50_us=SECOND_US, p90_us=2 * SECOND_US),
        vault=lambda: scene.vault, now_us=capacity.clock.now_us, replicas=members.listed,
        removed=removed.names, book=scene.book, alerting=lambda: scene.alerting, cluster="production",
        own_incidents=lambda: scene.own_incidents, test_channel=scene.test_channel,
    )  # fmt: skip
    app = scene.app = admin_app(
        scene.process, is_loopback=is_loopback, operators=lambda: scene.operators, controls=controls
    )
    listener = scene.listener = AdminListener(app)
    socket = bind("127.0.0.1:0", "admin")
    listens = asyncio.Event()
    jobs.on_work = lambda _: listens.set()
    try:
        members.says("1", operations)
        await members.beat()
        await capacity.start(operations, "1")
        jobs.configure(operations, StoreFacts(name="test", warnings=(), fsync="everysec"))
        jobs.start()
        await asyncio.wait_for(listens.wait(), 10)  # before anything ends of which it is to hear
        await listener.start(socket)
        scene.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        yield scene
    finally:
        await listener.stop()
        await members.close()
        await jobs.close()
        await capacity.close()
        await client.aclose()
