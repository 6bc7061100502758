"""
Operations: from the file of a pipeline to core types, with what only shows across fields and files.

`team` and `tenant` of an operation replace the pipeline's; its `downstream` replaces it field by
field. Paths to other files are relative to the file that names them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from breaker.core.errors import Problem
from breaker.core.job_policy import Queue
from breaker.core.model import Credential, Downstream, HangUp, Operation, Overflow, TenantSource, Tls
from breaker.policy.build_alerts import AlertPolicyBuilder
from breaker.policy.build_circuit import CircuitBuilder
from breaker.policy.build_limits import LimitsBuilder
from breaker.policy.build_queue import JobsBuilder
from breaker.policy.document import Loc
from breaker.policy.files import Files, check_readable, read_contract, read_secret
from breaker.policy.pipeline_file import DownstreamSection, OperationSection, PipelineFile, TlsSection
from breaker.policy.shape import Shaped
from breaker.policy.units import format_size
from breaker.policy.words import BODILESS, placeholders, shape

BODY_MAX = 1_048_576
_RESERVED = {"v1", "docs", "livez", "readyz", "startupz"}  # the gateway's own paths begin so
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsBuilder:
    """
    Builds the operations of one pipeline.

    Attributes:
        channels: Those of gateway.yaml that alerts may go to; None is not known.

    """

    shaped: Shaped[PipelineFile]
    file: PipelineFile
    path: Path
    files: Files
    has_payload_keys: bool
    has_callers: bool
    channels: tuple[str, ...] | None
    problems: list[Problem]

    def build(self) -> list[Operation]:
        if self.file.pipeline in _RESERVED:
            self._add(
                ("pipeline",), f"'{self.file.pipeline}' is a path of the gateway itself: choose another name"
            )
        built = [self._operation(name, section) for name, section in self.file.operations.items()]
        self._check_matches()
        return [operation for operation in built if operation is not None]

    def _operation(self, name: str, section: OperationSection) -> Operation | None:
        at: Loc = ("operations", name)
        capacity = LimitsBuilder(shaped=self.shaped, at=at, problems=self.problems).build(section.capacity)
        downstream = self._downstream(at, section)
        tenant = self._tenant(at, section)
        contract = None
        if section.contract is not None:
            path = self._beside(section.contract)
            contract, problems = self._from_file(
                (*at, "contract"), lambda: read_contract(path, self.files)
            ) or (None, [])
            self.problems.extend(problems)
            if section.match.method in BODILESS:
                self._add(
                    (*at, "contract"), f"a {section.match.method} has no body that a contract could check"
                )
        team = section.team or self.file.team
        if team is None and not any(len(path) == 1 for path in self.shaped.broken):
            self._add(
                at, f"nobody owns '{name}': state `team` for the pipeline or the operation", at_key=True
            )
        self._check_waiting(at, section)
        jobs = JobsBuilder(
            shaped=self.shaped,
            at=at,
            folder=self.path.parent,
            has_payload_keys=self.has_payload_keys,
            problems=self.problems,
        ).build(section)
        precautions = CircuitBuilder(
            shaped=self.shaped, at=at, has_callers=self.has_callers, problems=self.problems
        ).build(section, capacity, downstream, tenant)
        alerts = AlertPolicyBuilder(
            shaped=self.shaped, at=at, channels=self.channels, problems=self.problems
        ).build(section.alerts)
        if downstream is None or team is None:
            return None
        return Operation(
            name=f"{self.file.pipeline}.{name}",
            pipeline=self.file.pipeline,
            team=team,
            match=section.match,
            downstream=downstream,
            capacity=capacity,
            overflow=Overflow(section.overflow),
            contract=contract,
            contract_file=section.contract and self.files.name(self._beside(section.contract)),
            tenant=tenant,
            max_wait_ms=section.max_wait,
            waiting_max=section.max_waiting,
            retry_after_max_ms=section.retry_after_max,
            linger_ms=section.linger,
            body_max=self._body_max(at, section, tenant, jobs.queue),
            body_timeout_ms=section.body_timeout,
            on_hang_up=section.on_hang_up and HangUp(section.on_hang_up),
            queue=jobs.queue,
            effects=jobs.effects,
            probe=jobs.probe,
            idempotency=jobs.idempotency,
            retry=jobs.retry,
            batch=jobs.batch,
            callback=jobs.callback,
            retired=section.retired,
            circuit=precautions.circuit,
            slow_down=precautions.slow_down,
            slow_down_max_ms=precautions.slow_down_max_ms,
            adaptive_min=precautions.adaptive_min,
            when_store_down=precautions.when_store_down,
            direct_retry=precautions.direct_retry,
            alerts=alerts,
        )

    def _downstream(self, at: Loc, section: OperationSection) -> Downstream | None:
        own, common = section.downstream or DownstreamSection(), self.file.downstream or DownstreamSection()
        stated = {name: getattr(own, name) for name in own.model_fields_set}
        merged = common.model_copy(update=stated)

        def place(name: str) -> Loc:
            return (*at, "downstream", name) if name in stated else ("downstream", name)

        url = merged.url
        if url is None:
            if not self.shaped.document.has(("downstream", "url")) and not self.shaped.is_broken(
                place("url")
            ):
                self._add((*at, "downstream"), "`downstream.url` is missing, here and in the pipeline")
            return None
        unknown = placeholders(merged.path or "") - placeholders(section.match.template)
        if unknown:
            self._add(place("path"), f"`path` uses {{{min(unknown)}}}, which `match` does not have")
        credential = None
        if merged.credentials is not None:
            value = self._credential((*place("credentials"), "file"), merged.credentials.file)
            credential = Credential(header=merged.credentials.header, value=value or "")
        return Downstream(
            url=url,
            timeout_ms=merged.timeout,
            connect_timeout_ms=merged.connect_timeout,
            path=merged.path,
            credential=credential,
            tls=self._tls(place("tls"), merged.tls, url),
            response_max=merged.max_response,
        )

    def _credential(self, at: Loc, file: str) -> str | None:
        value = self._from_file(at, lambda: read_secret(self._beside(file)))
        if value is not None and not re.fullmatch(r"[\x20-\x7e\t]+", value):
            self._add(
                at, f"{self._beside(file)} holds more than one line of plain characters: a header is one"
            )
        return value

    def _tls(self, at: Loc, section: TlsSection | None, url: str) -> Tls | None:
        if section is None:
            return None
        if not url.startswith("https:"):
            self._add(at, f"`tls` has no effect on {url}: write https:// or leave it out")
        if (section.cert_file is None) != (section.key_file is None) and not self.shaped.is_broken(at):
            self._add(at, "`cert_file` and `key_file` belong together: state both or neither")

        def readable(name: str, file: str | None) -> str | None:
            return file and self._from_file((*at, name), lambda: check_readable(self._beside(file)))

        return Tls(
            ca_file=readable("ca_file", section.ca_file),
            cert_file=readable("cert_file", section.cert_file),
            key_file=readable("key_file", section.key_file),
            server_name=section.server_name,
        )

    def _tenant(self, at: Loc, section: OperationSection) -> TenantSource | None:
        is_own = "tenant" in section.model_fields_set
        tenant = section.tenant if is_own else self.file.tenant
        if tenant is None:
            return None
        place: Loc = (*at, "tenant") if is_own else ("tenant",)
        if tenant.header is None and tenant.pointer is None and not self.shaped.is_broken(place):
            self._add(place, "`tenant` needs `header`, `pointer` or both")
        return TenantSource(header=tenant.header, pointer=tenant.pointer)

    def _body_max(
        self, at: Loc, section: OperationSection, tenant: TenantSource | None, queue: Queue | None
    ) -> int | None:
        stated, body_max = "max_body" in section.model_fields_set, section.max_body
        place: Loc = (*at, "max_body")
        if queue is not None:
            if not stated:
                return queue.payload_max
            if self.shaped.is_broken((*at, "queue", "payload_max")):
                return body_max
            if body_max is None or body_max > queue.payload_max:
                shown = "null" if body_max is None else format_size(body_max)
                self._add(
                    place,
                    f"`max_body` {shown} is more than `queue.payload_max` {format_size(queue.payload_max)}, "
                    "and what is larger could not be queued: raise `payload_max` or leave `max_body` out",
                )
            return body_max
        is_seen = section.contract is not None or (tenant is not None and tenant.pointer is not None)
        if not stated:
            return BODY_MAX if is_seen else None
        if body_max is None and is_seen:
            self._add(
                place, "`max_body: null` cannot hold: a contract or tenant pointer needs the whole body"
            )
        return body_max

    def _check_waiting(self, at: Loc, section: OperationSection) -> None:
        reason = {"alert": "where no call waits", "queue": "where jobs wait: `queue` says how long"}
        if section.overflow in reason:
            for name in sorted({"max_wait", "max_waiting"} & section.model_fields_set):
                self._add(
                    (*at, name),
                    f"`{name}` has no effect with `overflow: {section.overflow}`, {reason[section.overflow]}",
                )

    def _check_matches(self) -> None:
        seen: dict[str, str] = {}
        for name, section in self.file.operations.items():
            first = seen.setdefault(shape(section.match), name)
            if first != name:
                match = f"{section.match.method} {section.match.template}"
                self._add(
                    ("operations", name, "match"),
                    f"'{match}' takes the same calls as '{first}': one must differ",
                )

    def _beside(self, file: str) -> Path:
        return self.path.parent / file

    def _from_file(self, at: Loc, read: Callable[[], _Read]) -> _Read | None:
        try:
            return read()
        except ValueError as error:
            self._add(at, f"`{at[-1]}`: {error}")
            return None

    def _add(self, at: Loc, message: str, *, at_key: bool = False) -> None:
        self.problems.append(self.shaped.document.problem(at, message, at_key=at_key))
