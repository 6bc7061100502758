"""
Policy: what the files say of an operation's capacity, as the scripts read it.

The hash `policy` holds limits as text, `limit period interval burst concurrency` with `-` where
nothing is stated (times in microseconds), so that `redis-cli hgetall` can be read by a person:

    file            the operation's own limits
    tenant          those of every tenant; `tenant:<name>` an exception, `exceptions` whether there are any
    override        a person's limits, with override_until, _author, _reason, _since; kept when files change
    calendar        1 when the zset `calendar` says which limits hold when
    quota           starts per period; the zset `periods` holds the periods
    mode, overflow, waiting_max, retry_max_us, version
    queue           bounds and times of the jobs, see lua/queue.lua:load_queue; `weight:<tenant>`, `weights` whether any
    debt            cost that a batch may charge at once
    circuit         numbers of its circuit, see lua/circuit.lua:circuit_terms; missing without one
    adaptive_min, pause_max, pauses_tenants
    edition, term, published
                    of the configuration that was in force, of the steward that renewed, and when either did so last
    hold            `paused` or `draining`, by a person, with hold_until, _author, _reason, _since; kept when files change
"""

from collections.abc import Mapping
from hashlib import sha256

from breaker.core.calendar import quota_periods, transitions
from breaker.core.circuit_policy import CircuitMode, CircuitPolicy, SlowDown
from breaker.core.job_policy import Effects, Queue
from breaker.core.model import LEASE_US, Limits, Operation, Rate
from breaker.core.quorum import CircuitTerms
from breaker.core.terms import QueueTerms, Terms

DAY_US = 86_400_000_000
AHEAD_US = 60 * DAY_US  # calendars are published this far ahead ...
NO_VERSION = "-"
BEHIND_US = 8 * DAY_US  # ... and from before now, so that a clock that jumps back finds an entry


def terms_of(operation: Operation, now_us: int) -> Terms:
    """The operation's capacity with its calendar resolved around `now_us`."""
    capacity = operation.capacity
    # Whole days, so that all replicas publish the same.
    today = now_us - now_us % DAY_US
    start, end = today - BEHIND_US, today + AHEAD_US
    return Terms(
        limits=capacity.limits,
        calendar=tuple(transitions(capacity, start, end)),
        per_tenant=capacity.per_tenant,
        tenants=dict(capacity.tenants),
        quota=capacity.quota.limit if capacity.quota else None,
        periods=tuple(quota_periods(capacity.quota, start, end)) if capacity.quota else (),
        mode=capacity.mode,
        overflow=operation.overflow,
        waiting_max=operation.waiting_max,
        retry_max_us=operation.retry_after_max_ms * 1_000,
        debt=operation.batch.max_items * capacity.cost.max if operation.batch else 0,
        queue=queue_terms_of(operation, operation.queue) if operation.queue else None,
        is_retired=operation.retired,
        circuit=circuit_terms_of(operation.circuit),
        adaptive_min=operation.adaptive_min or 0,
        pause_max_us=operation.slow_down_max_ms * 1_000,
        pauses_tenants=operation.slow_down is SlowDown.TENANT,
    )


def circuit_terms_of(policy: CircuitPolicy) -> CircuitTerms | None:
    """What the circuit goes by; None when there is none."""
    if policy.mode is CircuitMode.OFF:
        return None
    return CircuitTerms(
        failure_ppm=round(policy.failure_rate * 1_000_000),
        slow_ppm=round(policy.slow_rate * 1_000_000) if policy.slow_rate else 0,
        min_calls=policy.min_calls,
        consecutive=policy.consecutive,
        window_us=policy.window_ms * 1_000,
        open_us=policy.open_ms * 1_000,
        open_max_us=policy.open_max_ms * 1_000,
        probes=policy.probes,
        ramp_us=policy.ramp_ms * 1_000,
        is_shadow=policy.mode is CircuitMode.SHADOW,
    )


def text_of_circuit(terms: CircuitTerms) -> str:
    """The numbers of a circuit as lua/circuit.lua reads them."""
    numbers = (
        terms.failure_ppm, terms.slow_ppm, terms.min_calls, terms.consecutive, terms.window_us, terms.open_us,
        terms.open_max_us, terms.probes, terms.ramp_us, int(terms.is_shadow),
    )  # fmt: skip
    return " ".join(map(str, numbers))


def queue_terms_of(operation: Operation, queue: Queue) -> QueueTerms:
    batch = operation.batch
    return QueueTerms(
        jobs_max=queue.jobs_max,
        bytes_max=queue.bytes_max,
        tenant_jobs_max=-1 if queue.tenant_jobs_max is None else queue.tenant_jobs_max,
        tenant_bytes_max=-1 if queue.tenant_bytes_max is None else queue.tenant_bytes_max,
        keep_result_us=queue.keep_result_ms * 1_000,
        keep_dead_us=queue.keep_dead_ms * 1_000,
        window_us=operation.idempotency.window_ms * 1_000,
        is_once=operation.effects is Effects.ONCE,
        probe_us=operation.downstream.timeout_ms * 1_000 + LEASE_US if operation.probe else 0,
        batch_items=batch.max_items if batch else 0,
        batch_bytes=batch.max_bytes if batch else 0,
        batch_window_us=batch.window_ms * 1_000 if batch else 0,
        weights=queue.weights,
    )


def text_of_queue(terms: QueueTerms) -> str:
    """The numbers of a queue as lua/queue.lua reads them."""
    numbers = (
        terms.jobs_max, terms.bytes_max, terms.tenant_jobs_max, terms.tenant_bytes_max, terms.keep_result_us,
        terms.keep_dead_us, terms.window_us, int(terms.is_once), terms.probe_us, terms.batch_items,
        terms.batch_bytes, terms.batch_window_us,
    )  # fmt: skip
    return " ".join(map(str, numbers))


def text_of(limits: Limits) -> str:
    """Limits as the scripts read them."""
    rate = limits.rate
    head = f"{rate.limit} {rate.period_us} {rate.interval_us} {rate.burst}" if rate else "- - - -"
    return f"{head} {'-' if limits.concurrency is None else limits.concurrency}"


def limits_of(text: str) -> Limits:
    """The same, read back."""
    limit, period, _, burst, concurrency = text.split(" ")
    rate = None if limit == "-" else Rate(limit=int(limit), period_us=int(period), burst=int(burst))
    return Limits(rate=rate, concurrency=None if concurrency == "-" else int(concurrency))


def publish_arguments(
    terms: Terms,
    version: str,
    *,
    renews: bool = False,
    only_missing: bool = False,
    guards: Mapping[str, int] | None = None,
) -> list[str]:
    """
    ARGV of `publish.lua`; the first field is a digest of all, so that nothing changes twice.

    Args:
        renews: Only bring the calendars of this version up to date; another version's limits stay.
        only_missing: Whatever is published stays.
        guards: `edition`, `term`: refused when the store has seen a later one; see store/members.py.

    """
    fields = {
        "file": text_of(terms.limits),
        "mode": str(terms.mode),
        "overflow": str(terms.overflow),
        "waiting_max": str(terms.waiting_max),
        "retry_max_us": str(terms.retry_max_us),
        "calendar": "1" if terms.calendar else "0",
        "exceptions": "1" if terms.tenants else "0",
        "version": version,
    }
    fields["pause_max"] = str(terms.pause_max_us)
    if terms.circuit:
        fields["circuit"] = text_of_circuit(terms.circuit)
    if terms.adaptive_min:
        fields["adaptive_min"] = str(terms.adaptive_min)
    if terms.pauses_tenants:
        fields["pauses_tenants"] = "1"
    if terms.per_tenant:
        fields["tenant"] = text_of(terms.per_tenant)
    if terms.quota is not None:
        fields["quota"] = str(terms.quota)
    if terms.is_retired:
        fields["retired"] = "1"
    if terms.debt:
        fields["debt"] = str(terms.debt)
    if terms.queue:
        weights = terms.queue.weights
        fields["queue"] = text_of_queue(terms.queue)
        fields["weights"] = "1" if weights else "0"
        fields |= {f"weight:{name}": str(weight) for name, weight in weights.items()}
    fields |= {f"tenant:{name}": text_of(limits) for name, limits in terms.tenants.items()}
    times: list[str] = [str(len(terms.calendar))]
    for start, limits in terms.calendar:
        times += [str(start), text_of(limits)]
    for first, last in terms.periods:
        times += [str(first), str(last)]
    pairs = [part for pair in fields.items() for part in pair]
    digest = sha256("\n".join(pairs + times).encode()).hexdigest()[:16]
    # Not part of the digest: they say who publishes, not what.
    guarded = [part for name, number in (guards or {}).items() for part in (name, str(number))]
    count = len(fields) + 1 + len(guards or {})
    replaces = NO_VERSION if only_missing else version if renews else ""
    return [replaces, str(count), "digest", digest, *guarded, *pairs, *times]
