"""
Own pages: what a gateway process says of itself, to callers and on the admin listener.

Wiring tells it what is in force; nothing is decided here.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from breaker import __version__
from breaker.core.config import Config
from breaker.core.errors import StoreError
from breaker.core.jobs import Pace
from breaker.core.promise import Eta
from breaker.gateway.gate import refuses_alone
from breaker.gateway.work import Work
from breaker.signals.metrics import Metrics
from breaker.store.capacity import CapacityStore
from breaker.store.checks import StoreFacts
from breaker.store.health import StoreKeeper
from breaker.store.job_desk import JobDesk
from breaker.store.members import Members
from breaker.store.removed import RemovedOperations
from breaker.web.admin import looks, status_of
from breaker.web.admin_replicas import membership_view
from breaker.web.admin_views import queue_view
from breaker.web.catalogue import catalogue
from breaker.web.docs_page import page as docs_page
from breaker.web.handler import Handler, Page, Remembered
from breaker.web.listener import Listener
from breaker.web.openapi import document


@dataclass(slots=True, kw_only=True)
class OwnPages:
    """
    One process, as it tells of itself.

    Attributes:
        now_us: The store's time, else our own.
        forecast: When a job of this operation with so many ahead would start.
        reload: Reads the files again, as `web/admin.py:Process` says.
        config, works: In force.
        facts: Of the store; None while it was never reached.
        handler, listener: None while the process starts.

    """

    replica: str
    folder: Path
    metrics_of: Metrics
    store: CapacityStore
    desk: JobDesk
    keeper: StoreKeeper
    members: Members
    removed: RemovedOperations
    now_us: Callable[[], int]
    forecast: Callable[[str, int, Pace], Eta | None]
    reload: Callable[[], Coroutine[Any, Any, str]]
    config: Config
    works: Mapping[str, Work] = field(default_factory=dict)
    facts: StoreFacts | None = None
    handler: Handler | None = None
    listener: Listener | None = None
    _document: bytes = b""
    _docs: bytes = b""

    def in_force(self, config: Config, works: Mapping[str, Work]) -> None:
        """From now on this configuration holds."""
        self.config, self.works = config, works
        described = document(config)
        self._document = orjson.dumps(described)
        self._docs = docs_page(described).encode()

    def for_callers(self) -> dict[str, Callable[[], Awaitable[Page]]]:
        """The pages of the callers' listener, by path."""
        listed = Remembered(self._list_operations)

        async def livez() -> Page:
            return Page(200, "text/plain", b"ok\n")

        async def readyz() -> Page:
            is_ready, why = await self.is_ready()
            return Page(200 if is_ready else 503, "text/plain", f"{why}\n".encode())

        async def openapi() -> Page:
            return Page(200, "application/json", self._document)

        async def docs() -> Page:
            return Page(200, "text/html; charset=utf-8", self._docs)

        return {
            "/livez": livez, "/readyz": readyz, "/openapi.json": openapi, "/docs": docs,
            "/v1/operations": listed.page,
        }  # fmt: skip

    async def _list_operations(self) -> Page:
        found, queues = await self._looks()
        now_us = self.store.clock.now_us()
        listed = catalogue(self.config, found, queues, forecast=self.forecast, now_us=now_us)
        return Page(200, "application/json", orjson.dumps(listed))

    async def _looks(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The numbers of all operations and of all queues; None where the store does not tell them."""
        return await asyncio.gather(
            looks(list(self.config.operations), self.store.look),
            looks(list(self.metrics_of.queues), self.desk.look_queue),
        )

    # For the admin listener.

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        content_type, pieces = self.metrics_of.page(accept)
        page = []
        for piece in pieces:
            page.append(piece)
            await asyncio.sleep(0)  # calls go first
        return b"".join(page), content_type

    async def is_ready(self) -> tuple[bool, str]:
        if self.handler is None:
            return False, "starting"
        if self.handler.is_draining:
            return False, "draining"
        works = self.works.values()
        if self.keeper.health.is_down and works and all(refuses_alone(work) for work in works):
            return False, "the store cannot be used, and no operation goes on without it"
        return True, "ready"

    async def is_started(self) -> bool:
        return self.handler is not None

    async def status(self) -> dict[str, Any]:
        operations = self.config.operations
        found, queues = await self._looks()
        return {
            "replica": self.replica,
            "version": __version__,
            "pid": os.getpid(),
            "config": {"folder": str(self.folder), "version": self.config.version},
            "store": {
                "name": self.facts.name if self.facts else None,
                "warnings": self.facts.warnings if self.facts else [],
                "answers": any(found.values()),
                "clock_offset_us": self.store.clock.jumped_us,
            },
            "ready": (await self.is_ready())[1],
            "connections": self.listener.connections if self.listener else 0,
            "replicas": membership_view(self.members),
            "operations": {
                name: status_of(operations[name], look, queues.get(name), self.now_us())
                for name, look in found.items()
            },
            "removed": await self._removed(),
        }

    async def _removed(self) -> dict[str, Any] | None:
        """Operations that no file names any more, with their jobs; None when the store does not say."""
        if self.keeper.health.is_down:
            return None
        try:
            names = [name for name in await self.removed.names() if name not in self.config.operations]
            return {name: queue_view(await self.desk.look_queue(name)) for name in names}
        except StoreError:
            return None
