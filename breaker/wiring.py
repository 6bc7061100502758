"""
The composition root: the one file that knows every class, and how a gateway starts, reloads and stops.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from breaker import __version__
from breaker.core.config import Config, StoreSettings
from breaker.core.errors import (
    ConfigError,
    StartError,
    StoreAwayError,
    StoreError,
    StoreRefusedError,
)
from breaker.core.events import ConfigLoaded, Event, JobAttempted, StoreFailed, StoreReset
from breaker.core.ids import Ids, base32
from breaker.core.jobs import Pace
from breaker.core.promise import Eta
from breaker.core.verdict import Policy
from breaker.gateway.acceptance import Acceptance
from breaker.gateway.call import Kind
from breaker.gateway.chores import Chores
from breaker.gateway.degraded import Degraded
from breaker.gateway.dispatcher import Dispatcher
from breaker.gateway.gate import Gate
from breaker.gateway.local import LocalCapacity
from breaker.gateway.path import Path as CallPath
from breaker.gateway.receipts import Receipts
from breaker.gateway.runner import Runner
from breaker.gateway.site import Site, build_site
from breaker.gateway.vault import Vault
from breaker.policy.load import load
from breaker.policy.restart import refuse_what_needs_a_restart
from breaker.signals.call_log import CallLog
from breaker.signals.duty import Duty
from breaker.signals.evidence import Known
from breaker.signals.logs import Logs
from breaker.signals.metrics import Metrics
from breaker.signals.traces import Traces, open_traces
from breaker.signals.watch import Memory, Sources, Watch
from breaker.store.alert_book import AlertBook
from breaker.store.audit import Audit
from breaker.store.capacity import REFRESH_S, CapacityStore, Look
from breaker.store.checks import StoreFacts, check_store, durability_warnings, memory_of
from breaker.store.connection import open_client
from breaker.store.health import Health, StoreKeeper
from breaker.store.job_desk import JobDesk
from breaker.store.jobs import JobStore
from breaker.store.members import Members
from breaker.store.published import is_published
from breaker.store.removed import LET_GO_EVERY_S, RemovedOperations
from breaker.store.steward import Chore
from breaker.store.tallies import Tallies
from breaker.web.admin import AdminListener, admin_app
from breaker.web.admin_controls import Controls
from breaker.web.handler import Handler
from breaker.web.identity import Callers
from breaker.web.job_pages import JobPages
from breaker.web.listener import Listener
from breaker.web.own_pages import OwnPages

UNKNOWN_STORE = StoreFacts(name="not reached yet", warnings=())
RESULTS_MEMORY_MAX = 0.9  # share of the store's memory in use, beyond which results are not kept

REASONS = frozenset(Kind) | frozenset(Policy) | {"", "hang_up", "cut", "bug", "asked", "known"}


class GatewayProcess:
    """
    One gateway process: `start`, `reload` at will, `stop`.

    Args:
        folder, environ: Where the configuration is read from, now and on reload.
        store: How the store is reached; resolved when the files say `embedded`.
    """

    def __init__(
        self, config: Config, folder: Path, environ: Mapping[str, str], store: StoreSettings, logs: Logs
    ) -> None:
        self.config = config
        self._folder, self._environ = folder, environ
        self._store_settings = store
        self.replica = base32(secrets.randbits(40), 8)
        gateway = config.gateway
        self._ids = Ids(self.replica)
        self.metrics_of = Metrics(
            config.operations,
            replica=self.replica,
            cluster=gateway.cluster,
            version=__version__,
            reasons=REASONS,
        )
        self._logs, self._say = logs, structlog.get_logger()
        self._call_log = CallLog(logs, sample=gateway.log_sample)
        self._traces: Traces | None = None
        self._client = open_client(store)
        cluster = gateway.cluster
        self._keeper = StoreKeeper(Health(store.timeout_ms * 1_000), self._emit, self._on_bug)
        self.store = CapacityStore(store, cluster=cluster, replica=self.replica, emit=self._on_store_event)
        self.members = Members(
            store, cluster=cluster, replica=self.replica, emit=self._emit, on_bug=self._on_bug
        )
        self.members.on_standing = self.store.publish_soon
        self.members.on_reset = self.store.restore_soon
        self.store.standing = lambda: self.members.standing
        self.removed = RemovedOperations(self.store, self._client, cluster)
        self.members.steward.add(Chore(name="calendars", every_s=REFRESH_S, run=self.store.renew_calendars))
        self.members.steward.add(Chore(name="removed", every_s=LET_GO_EVERY_S, run=self.removed.let_go))
        self._local = LocalCapacity(
            replica=self.replica,
            now_us=self._now_us,
            live_replicas=lambda: self.members.live,
            expected=gateway.replicas_expected,
        )
        self._degraded = Degraded(self.store, self._local, self._emit, self._bring_back)
        self.jobs = JobStore(self.store, store, cluster=cluster, emit=self._emit)
        self.desk = JobDesk(self.store, self.jobs, cluster=cluster, emit=self._emit)
        self.audit = Audit(self._client, cluster)
        self.book = AlertBook(self._client, cluster)
        self.duty = Duty(
            cluster=cluster,
            replica=self.replica,
            book=self.book,
            tallies=Tallies(self.store),
            known=Known(
                operations=lambda: self.config.operations,
                alerting=lambda: self.config.gateway.alerts,
                now_us=self._now_us,
                stewardship=lambda: self.members.steward.stewardship,
                differing=lambda: self.members.differing,
            ),
            replicas=self._live_ids,
            episode=lambda: str(self.members.term),
            metrics=self.metrics_of.alerts,
            emit=self._emit,
            on_bug=self._on_bug,
        )
        vault = Vault(gateway.key_ring)
        self._receipts = Receipts(self.store.clock)
        self._runner = Runner(self.jobs, vault, self._emit)
        self._runner.drops_results = self._is_memory_short
        self._dispatcher = Dispatcher(self.jobs, self._runner, jobs_max=gateway.jobs_max, on_bug=self._on_bug)
        self._acceptance = Acceptance(
            self.jobs,
            self.desk,
            vault,
            self._receipts,
            self._emit,
            self._dispatcher.accepted,
            is_store_down=self._keeper.is_down,
        )
        self._chores = Chores(
            self.desk, vault, self._emit, cluster=cluster, now_us=self.store.clock.now_us, on_bug=self._on_bug
        )
        self._retiring: set[asyncio.Task[None]] = set()
        self._one_reload = asyncio.Lock()
        self._site: Site | None = None
        self._handler: Handler | None = None
        self._listener: Listener | None = None
        self._admin: AdminListener | None = None
        self._watch: Watch | None = None
        self._facts: StoreFacts | None = None
        self.own_pages = OwnPages(
            replica=self.replica,
            folder=folder,
            metrics_of=self.metrics_of,
            store=self.store,
            desk=self.desk,
            keeper=self._keeper,
            members=self.members,
            removed=self.removed,
            now_us=self._now_us,
            forecast=self._eta,
            reload=self.reload,
            config=config,
        )

    def _emit(self, event: Event) -> None:
        if isinstance(event, StoreReset):
            self._keeper.listen(event)
        self.metrics_of.listen(event)
        self._call_log.listen(event)
        self.duty.listen(event)
        if self._traces:
            self._traces.listen(event)
        if isinstance(event, JobAttempted) and event.is_ended:
            self._chores.kick(event.operation)

    def _open_traces(self) -> Traces | None:
        gateway = self.config.gateway
        if gateway.traces_endpoint is None:
            return None
        resource = {
            "service.name": "breaker",
            "service.version": __version__,
            "service.instance.id": self.replica,
            "service.namespace": gateway.cluster,
        }
        return open_traces(gateway.traces_endpoint, sample=gateway.traces_sample, resource=resource)

    def _on_store_event(self, event: Event) -> None:
        self._keeper.listen(event)
        self._emit(event)

    def _now_us(self) -> int:
        """The store's time; our own where it was never heard of."""
        return self.store.clock.now_us() if self.store.clock.is_set else int(time.time() * 1e6)

    async def _meet_store(self) -> StoreFacts:
        """
        Look at the store before anything depends on it.

        Raises:
            StartError: It cannot be used, or (StoreAwayError) it is not there.
        """
        facts = await check_store(self._store_settings)
        for warning in [*facts.warnings, *durability_warnings(facts, self.config.operations.values())]:
            self._say.warning("store_warning", detail=warning)
        return facts

    async def _bring_back(self) -> None:
        """
        The store takes writes (again): it is looked at if it never was, and has the limits.

        Raises:
            StoreError: Not yet.
        """
        if self._facts is None:
            try:
                self._facts = self.own_pages.facts = await self._meet_store()
            except StartError as exc:
                self._emit(StoreFailed(StoreRefusedError.kind, str(exc)))
                raise StoreRefusedError(str(exc)) from exc
            self.jobs.configure(self.config.operations, self._facts)
        before = self.members.standing
        await self.members.beat()
        if self.members.standing != before:
            self.store.publish_soon()  # what we say may hold from now on, and nobody else publishes it
        await self.store.republish()

    async def _look(self, operation: str) -> Look:
        look = await self.store.look(operation)
        self._local.looked(self.store.lane(operation), look)
        return look

    async def start(self, callers: socket.socket, admin: socket.socket, *, admin_is_loopback: bool) -> None:
        """
        Check the store, publish the limits, and serve.

        Raises:
            StartError: This machine or this store is not ready; nothing is served.
        """
        self._traces = self._open_traces()
        absence = ""
        try:
            self._facts = self.own_pages.facts = await self._meet_store()
        except StoreAwayError as exc:
            if self._store_settings.needed_at_start:
                raise
            absence = str(exc)
        self.members.says(self.config.version, self.config.operations)
        try:
            if self._facts:
                await self.members.beat()
        except StoreError as exc:
            raise StartError(f"this replica cannot join the others: {exc}") from exc
        try:
            await self.store.start(
                self.config.operations, self.config.version, is_needed=self._facts is not None
            )
            self._site = build_site(self.config, self.store)
        except StoreError as exc:
            raise StartError(f"the store did not take the limits: {exc}") from exc
        except OSError as exc:
            raise StartError(f"a downstream's tls file cannot be used: {exc}") from exc
        self.jobs.configure(self.config.operations, self._facts or UNKNOWN_STORE)
        self.members.start()
        self._keeper.start(self._degraded.returning())
        if absence:
            self._keeper.absent(absence)
        self.jobs.start()
        path = CallPath(
            Gate(self.store, self._keeper, self._local, timeout_ms=self._store_settings.timeout_ms),
            self._acceptance,
            self._emit,
            time.monotonic,
        )
        known = Callers(self.config.gateway.callers, self._emit)
        pages = JobPages(self.jobs, self.desk, lambda: self._runner.vault, self._receipts, self._chores.kick)
        self._handler = Handler(
            self._site, known, path, self._ids, self.own_pages.for_callers(), pages, self._emit
        )
        if self._traces:
            self._handler.begin_span = self._traces.of_call
            self._runner.begin_span = self._traces.of_attempt
        self._dispatcher.configure(self._site.works)
        await self._chores.configure(self._site.works)
        self._in_force(self.config, self._site)
        sources = Sources(
            look=self._look,
            look_queue=self.desk.look_queue,
            memory=self._memory,
            removed=self._removed_jobs,
            forecast=self._eta,
            spent=self._spent,
        )
        self._watch = Watch(sources, self.metrics_of, on_pass=self.duty.on_pass)
        self._watch.start()
        self.duty.start()
        self._listener = Listener(
            self._handler, self.config.gateway, on_bug=self._on_bug, on_broken=self._handler.broken
        )
        controls = Controls(
            jobs=self.jobs,
            desk=self.desk,
            audit=self.audit,
            operations=lambda: self.config.operations,
            is_published=lambda name: is_published(self._client, self.config.gateway.cluster, name),
            look=self.store.look,
            force=self.store.circuits.force,
            overrides=self.store.overrides,
            forecast=self._eta,
            vault=lambda: self._runner.vault,
            now_us=self.store.clock.now_us,
            replicas=self.members.listed,
            removed=self.removed.names,
            book=self.book,
            alerting=lambda: self.config.gateway.alerts,
            cluster=self.config.gateway.cluster,
            own_incidents=self.duty.own_incidents,
            test_channel=self.duty.test,
        )
        app = admin_app(
            self.own_pages,
            is_loopback=admin_is_loopback,
            operators=lambda: self.config.gateway.operators,
            controls=controls,
        )
        self.own_pages.handler, self.own_pages.listener = self._handler, self._listener
        self._admin = AdminListener(app)
        await self._admin.start(admin)
        await self._listener.start(callers)
        if known.is_open:
            self._say.warning(
                "callers_open", detail="no callers are configured: everybody may call every operation"
            )
        self._say.info(
            "gateway_started",
            replica=self.replica,
            store=(self._facts or UNKNOWN_STORE).name,
            listen=self.config.gateway.listen,
        )

    async def reload(self) -> str:
        """
        Read the files again and swap what they say, all at once.

        Returns:
            The version in force.

        Raises:
            ConfigError: The files are wrong; the old configuration stays, as it does when
            a setting changed that needs a restart.
            StoreError: The new limits could not be published; the old configuration stays.
        """
        async with self._one_reload:  # a signal and a request may come at once
            return await self._reload()

    async def _reload(self) -> str:
        try:
            new = load(self._folder, self._environ)
            refuse_what_needs_a_restart(self.config.gateway, new.gateway, self._folder)
            fresh = build_site(new, self.store)
            self.members.says(new.version, new.operations)
            await self.members.beat()  # whether it is in force now
            await self.store.publish(new.operations, new.version)
        except (ConfigError, StoreError, OSError) as exc:
            self.members.says(self.config.version, self.config.operations)
            self._emit(ConfigLoaded(self.config.version, ok=False, detail=str(exc)))
            raise
        handler, old = self._handler, self._site
        if handler is None or old is None:
            raise StartError("the gateway has not started yet")
        self.config = new
        handler.site, handler.callers = fresh, Callers(new.gateway.callers, self._emit)
        self._site = fresh
        if self._facts:
            self.jobs.configure(new.operations, self._facts)
        self._runner.vault = self._acceptance.vault = Vault(new.gateway.key_ring)
        self._dispatcher.configure(fresh.works)
        await self._chores.configure(fresh.works)
        self._in_force(new, fresh)
        task = asyncio.get_running_loop().create_task(old.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return new.version

    async def stop(self) -> int:
        """
        Drain: not ready, then no new connections, then calls under way finish.

        Returns:
            How many calls had to be broken off at the drain timeout.
        """
        gateway = self.config.gateway
        broken = 0
        if self._handler and self._listener:
            self._handler.is_draining = True
            await asyncio.sleep(gateway.drain_delay_ms / 1_000)
            stopping = asyncio.get_running_loop().create_task(
                self._dispatcher.stop(gateway.drain_timeout_ms / 1_000)
            )
            self.jobs.stop_waiting()
            broken = await self._listener.stop(gateway.drain_timeout_ms / 1_000)
            await stopping
            await self._chores.close()
        if self._watch:
            await self._watch.close()
            await self.duty.close()
        if self._site:
            for pool in self._site.pools.values():
                await pool.close()
        if self._admin:
            await self._admin.stop()  # what it streams ends while the store is still there to be told
        await self.jobs.close()
        await self.members.close()
        await self._keeper.close()
        await self._degraded.close()
        await self.store.close()
        await self._client.aclose()
        if self._traces:
            await self._traces.close()
        self._say.info("gateway_stopped", replica=self.replica, calls_broken_off=broken)
        return broken

    def _in_force(self, config: Config, site: Site) -> None:
        self._local.expected = config.gateway.replicas_expected
        self.metrics_of.configured(config.version, config.operations)
        self.duty.configure(config.gateway.alerts)
        self.own_pages.in_force(config, site.works)
        self._emit(ConfigLoaded(config.version, ok=True, detail=config.folder))

    def _on_bug(self, exc: BaseException) -> None:
        self._say.error("bug", exc_info=exc)

    # What the watch asks, and what follows from it.

    async def _memory(self) -> Memory:
        used, most = await memory_of(self._client)
        return Memory(used=used, most=most)

    def _is_memory_short(self) -> bool:
        return self._watch is not None and self._watch.memory_ratio > RESULTS_MEMORY_MAX

    async def _removed_jobs(self) -> dict[str, int]:
        """Jobs that have not ended, of operations that no file names any more."""
        found = {}
        for name in await self.removed.names():
            if name not in self.config.operations:
                queue = await self.desk.look_queue(name)
                if count := queue.queued + queue.scheduled + queue.running:
                    found[name] = count
        return found

    async def _live_ids(self) -> list[str]:
        return [member.id for member in await self.members.listed()]

    def _spent(self, operation: str, start_us: int, end_us: int) -> int:
        work = self._site.works.get(operation) if self._site else None
        return self._receipts.spent_us(work, start_us, end_us) if work else max(0, end_us - start_us)

    def _eta(self, operation: str, ahead: int, pace: Pace) -> Eta | None:
        work = self._site.works.get(operation) if self._site else None
        return self._receipts.eta(work, ahead, pace, is_held=False) if work else None
