"""
Queues: from the sections about jobs to core types, with what only shows across fields.

Everything here belongs to `overflow: queue`; without it each of these fields is a problem, because
somebody would believe in a key, a batch or a callback that is not there. `retry` alone is of both.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from breaker.core.errors import Problem
from breaker.core.job_policy import (
    Band,
    BandSource,
    Batch,
    Callback,
    Effects,
    Idempotency,
    PromiseClock,
    Queue,
    Retry,
)
from breaker.core.model import Match
from breaker.policy.build_retry import RetryBuilder
from breaker.policy.document import Loc
from breaker.policy.files import read_secret
from breaker.policy.job_sections import (
    BandsSection,
    BatchSection,
    CallbackSection,
    QueueSection,
)
from breaker.policy.job_words import PROBE_KEY, parse_webhook_secrets
from breaker.policy.pipeline_file import OperationSection, PipelineFile
from breaker.policy.shape import Shaped
from breaker.policy.units import format_duration, format_size
from breaker.policy.words import BODILESS, placeholders

_OF_JOBS = ("queue", "effects", "probe", "idempotency", "batch", "callback")


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """What an operation says about its jobs, as `Operation` has it."""

    queue: Queue | None = None
    effects: Effects = Effects.KEYED
    probe: Match | None = None
    idempotency: Idempotency = field(default_factory=Idempotency)
    retry: Retry = field(default_factory=Retry)
    batch: Batch | None = None
    callback: Callback | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsBuilder:
    """
    Builds what one operation says about its jobs; `at` is its path in the document.

    Attributes:
        folder: Of the file, which paths are relative to.
        has_payload_keys: Whether gateway.yaml states a key ring.

    """

    shaped: Shaped[PipelineFile]
    at: Loc
    folder: Path
    has_payload_keys: bool
    problems: list[Problem]

    def build(self, section: OperationSection) -> Jobs:
        if section.overflow != "queue":
            self._check_unused(section)
            return Jobs()
        if section.match.method in BODILESS:
            self._add(
                ("overflow",),
                f"a {section.match.method} cannot be queued, because its caller wants the answer now: "
                "use `throttle` or `alert`",
            )
        if section.queue is None and not self.shaped.is_broken((*self.at, "queue")):
            self._add(("overflow",), "`overflow: queue` needs `queue`: state `start_within` and `max_jobs`")
        self._check_probe(section)
        queue = self._queue(section.queue) if section.queue else None
        return Jobs(
            queue=queue,
            effects=Effects(section.effects),
            probe=section.probe,
            idempotency=Idempotency(
                is_required=section.idempotency.key == "required", window_ms=section.idempotency.window
            ),
            retry=RetryBuilder(shaped=self.shaped, at=self.at, problems=self.problems).of_jobs(section.retry),
            batch=self._batch(section.batch, queue) if section.batch else None,
            callback=self._callback(section.callback) if section.callback else None,
        )

    def _check_unused(self, section: OperationSection) -> None:
        if self.shaped.is_broken((*self.at, "overflow")):
            return
        for name in _OF_JOBS:
            if name in section.model_fields_set and getattr(section, name) is not None:
                self._add(
                    (name,),
                    f"`{name}` has no effect with `overflow: {section.overflow}`: "
                    "write `overflow: queue` or leave it out",
                    at_key=True,
                )

    def _queue(self, section: QueueSection) -> Queue:
        self._check_times(section)
        self._check_bounds(section)
        encrypt = self.has_payload_keys if section.encrypt is None else section.encrypt
        self._check_sealing(section, encrypt=encrypt)
        return Queue(
            start_within_ms=section.start_within,
            clock=PromiseClock(section.clock),
            expire_after_ms=section.expire_after,
            jobs_max=section.max_jobs,
            bytes_max=section.max_bytes,
            tenant_jobs_max=section.max_jobs_per_tenant,
            tenant_bytes_max=section.max_bytes_per_tenant,
            durability=section.durability.durability,
            replicas=section.durability.replicas,
            keep_result_ms=section.keep_result,
            keep_dead_ms=section.keep_dead,
            payload_max=section.payload_max,
            weights=dict(section.weights),
            bands=self._bands(section.bands) if section.bands else None,
            encrypt=encrypt,
            store_headers=frozenset(section.store_headers),
        )

    def _check_times(self, section: QueueSection) -> None:
        if section.expire_after is not None and section.expire_after < section.start_within:
            self._add(
                ("queue", "expire_after"),
                f"`expire_after` {format_duration(section.expire_after)} is before the promise, `start_within` "
                f"{format_duration(section.start_within)}: jobs would end that are not late",
            )

    def _check_bounds(self, section: QueueSection) -> None:
        """A bound that nothing fits into, or that another one hides, is a mistake."""
        if self.shaped.is_broken((*self.at, "queue")):
            return
        for name, room in (
            ("max_bytes", section.max_bytes),
            ("max_bytes_per_tenant", section.max_bytes_per_tenant),
        ):
            if room is not None and room < section.payload_max:
                self._add(
                    ("queue", name),
                    f"`{name}` {format_size(room)} is less than `payload_max` {format_size(section.payload_max)}: "
                    "a body of that size could never be queued; raise one or lower the other",
                )
        for name, own, whole in (
            ("max_jobs", section.max_jobs_per_tenant, section.max_jobs),
            ("max_bytes", section.max_bytes_per_tenant, section.max_bytes),
        ):
            if own is not None and own > whole:
                self._add(
                    ("queue", f"{name}_per_tenant"),
                    f"`{name}_per_tenant` is more than `{name}`, so that it bounds nobody: lower it or leave it out",
                )

    def _check_sealing(self, section: QueueSection, *, encrypt: bool) -> None:
        if section.encrypt and not self.has_payload_keys:
            self._add(
                ("queue", "encrypt"), "`encrypt: true` needs a key: state `payload_keys` in gateway.yaml"
            )
        elif section.store_headers and not encrypt and not self._is_broken("queue", "encrypt"):
            way_out = (
                "leave `encrypt: false` out"
                if self.has_payload_keys
                else "state `payload_keys` in gateway.yaml"
            )
            self._add(
                ("queue", "store_headers"),
                f"`store_headers` needs `encrypt`, because headers carry what is secret: {way_out}",
            )

    def _bands(self, section: BandsSection) -> BandSource:
        has_source = section.header is not None or section.pointer is not None
        if not self._is_broken("queue", "bands"):
            if section.values and not has_source:
                self._add(("queue", "bands", "values"), "`values` are of a word: state `header` or `pointer`")
            elif has_source and not section.values:
                self._add(("queue", "bands"), "`bands` needs `values`: the band of each word")
            elif not section.model_fields_set:
                self._add(("queue", "bands"), "`bands` is empty: state `header` or `pointer`, and `values`")
        return BandSource(
            header=section.header,
            pointer=section.pointer,
            values={word: Band(band) for word, band in section.values.items()},
            default=Band(section.default),
        )

    def _check_probe(self, section: OperationSection) -> None:
        if section.probe is None:
            return
        if section.effects != "once" and not self._is_broken("effects"):
            self._add(
                ("probe",),
                "`probe` has no effect with `effects: keyed`, where an attempt is repeated with its key: "
                "write `effects: once` or leave it out",
            )
        if PROBE_KEY in placeholders(section.match.template):
            self._add(
                ("match",),
                f"`match` has a placeholder {{{PROBE_KEY}}}, which `probe` uses for the key that was sent: "
                "give that of `match` another name",
            )

    def _batch(self, section: BatchSection, queue: Queue | None) -> Batch:
        is_known = not self._is_broken("batch") and not self._is_broken("queue")
        if queue is not None and section.max_bytes < queue.payload_max and is_known:
            place = (
                ("batch", "max_bytes")
                if "max_bytes" in section.model_fields_set
                else ("queue", "payload_max")
            )
            self._add(
                place,
                f"`batch.max_bytes` {format_size(section.max_bytes)} is less than `queue.payload_max` "
                f"{format_size(queue.payload_max)}: a body of that size fits no batch; raise one or lower the other",
            )
        return Batch(
            max_items=section.max_items,
            max_bytes=section.max_bytes,
            window_ms=section.window,
            key=section.key,
            path=section.path,
        )

    def _callback(self, section: CallbackSection) -> Callback:
        path = self.folder / section.secret_file
        secrets: tuple[str, ...] = ()
        try:
            text = read_secret(path)
            try:
                secrets = parse_webhook_secrets(text)
            except ValueError as error:
                raise ValueError(f"{path} {error}") from None
        except ValueError as error:
            self._add(("callback", "secret_file"), f"`secret_file`: {error}")
        return Callback(allow=tuple(dict.fromkeys(section.allow)), secrets=secrets)

    def _is_broken(self, *path: str) -> bool:
        return self.shaped.is_broken((*self.at, *path))

    def _add(self, path: Iterable[str], message: str, *, at_key: bool = False) -> None:
        self.problems.append(self.shaped.document.problem((*self.at, *path), message, at_key=at_key))
