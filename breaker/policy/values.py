"""
Values: a Config in words, field by field, as a person would have written it.

`explain` shows these with their origin and `diff` compares them. The names are those of the
files; secrets are compared and never shown.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from breaker.core.alert_policy import Alerting, AlertPolicy, Channel, ChannelType
from breaker.core.circuit_policy import CircuitPolicy, DirectRetry
from breaker.core.config import Caller, Gateway, Operator
from breaker.core.job_policy import Queue
from breaker.core.model import Capacity, Downstream, HangUp, Limits, Operation, Overflow
from breaker.policy import units as u
from breaker.policy.job_words import format_durability

NONE = "none"


@dataclass(frozen=True, slots=True)
class Hidden:
    """A secret: equal to itself, shown to nobody."""

    value: object = field(repr=False)

    def __str__(self) -> str:
        return "(hidden)"


Value = str | Hidden


def operation_values(operation: Operation) -> dict[str, Value]:
    """Every field of an operation, by its path below `operations.<name>`."""
    tenant = operation.tenant
    return {
        "match": f"{operation.match.method} {operation.match.template}",
        "team": operation.team,
        **_downstream(operation.downstream),
        "tenant.header": (tenant and tenant.header) or NONE,
        "tenant.pointer": (tenant and tenant.pointer) or NONE,
        "contract": _contract(operation.contract_file, operation.contract),
        **_capacity(operation.capacity),
        "overflow": operation.overflow,
        "max_wait": u.format_duration(operation.max_wait_ms),
        "max_waiting": str(operation.waiting_max),
        "retry_after_max": u.format_duration(operation.retry_after_max_ms),
        "linger": _or(operation.linger_ms, u.format_duration, "mean service time"),
        "max_body": _or(operation.body_max, u.format_size, "no limit (streamed)"),
        "body_timeout": u.format_duration(operation.body_timeout_ms),
        "on_hang_up": operation.on_hang_up or _on_hang_up(operation.match.method),
        **(
            _jobs(operation)
            if operation.overflow is Overflow.QUEUE
            else _direct_retry(operation.direct_retry)
        ),
        **_circuit(operation.circuit),
        "slow_down": operation.slow_down,
        "slow_down_max": u.format_duration(operation.slow_down_max_ms),
        "adaptive.min": _or(operation.adaptive_min, str, NONE),
        "when_store_down": operation.when_store_down,
        **_alerts(operation.alerts),
        "retired": _yes(operation.retired),
    }


def gateway_values(gateway: Gateway) -> dict[str, Value]:
    """Every field of the process; callers by their id."""
    store = gateway.store
    values: dict[str, Value] = {
        "listen": gateway.listen,
        "admin": gateway.admin,
        "cluster": gateway.cluster,
        "replicas_expected": str(gateway.replicas_expected),
        "store.url": store.url,
        "store.timeout": u.format_duration(store.timeout_ms),
        "store.username": store.username or NONE,
        "store.password_file": Hidden(store.password) if store.password else NONE,
        "store.ca_file": store.ca_file or NONE,
        "store.needed_at_start": _yes(store.needed_at_start),
        "log.level": gateway.log_level,
        "log.format": gateway.log_format,
        "log.sample": f"{gateway.log_sample:g}",
        "traces.endpoint": gateway.traces_endpoint or "nothing is traced",
        "traces.sample": f"{gateway.traces_sample:g}",
        "drain.delay": u.format_duration(gateway.drain_delay_ms),
        "drain.timeout": u.format_duration(gateway.drain_timeout_ms),
        "limits.head_timeout": u.format_duration(gateway.head_timeout_ms),
        "limits.connections": str(gateway.connections_max),
        "cookies": _yes(gateway.cookies),
        "payload_keys": ", ".join(id_ for id_, _ in gateway.key_ring) or NONE,
        "jobs.in_flight": str(gateway.jobs_max),
        **_alerting(gateway.alerts),
    }
    for caller in gateway.callers or ():
        values |= _caller(caller)
    for operator in gateway.operators:
        values |= _operator(operator)
    values |= {f"payload_keys.{id_}.file": Hidden(key) for id_, key in gateway.key_ring}
    return values


def limits_in_words(limits: Limits) -> str:
    """`12/min, burst 1, concurrency 3`."""
    words = []
    if limits.rate is not None:
        words.append(u.format_rate(limits.rate) if limits.rate.limit else "closed")
        words += [f"burst {limits.rate.burst}"] if limits.rate.limit else []
    if limits.concurrency is not None:
        words.append(f"concurrency {limits.concurrency}")
    return ", ".join(words) or "no limit"


def _caller(caller: Caller) -> dict[str, Value]:
    at = f"callers.{caller.id}"
    return {
        f"{at}.key_sha256": Hidden(caller.key_hashes),
        f"{at}.operations": ", ".join(caller.operations),
        f"{at}.may_name": ", ".join(sorted(caller.may_name)) or NONE,
        f"{at}.max_tenants": str(caller.tenants_max),
    }


def _operator(operator: Operator) -> dict[str, Value]:
    at = f"operators.{operator.id}"
    return {f"{at}.key_sha256": Hidden(operator.key_hashes), f"{at}.role": operator.role}


def _alerts(alerts: AlertPolicy) -> dict[str, Value]:
    return {
        "alerts.utilisation": f"{alerts.utilisation:g}",
        "alerts.clear": f"{alerts.clear:g}",
        "alerts.for": u.format_duration(alerts.for_ms),
        "alerts.objective": f"{alerts.objective:g}",
        "alerts.routes": ", ".join(alerts.routes) or "the gateway's",
    }


def _alerting(alerting: Alerting) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for channel in alerting.channels.values():
        values |= _channel(channel)
    for route in alerting.routes:
        at = f"alerts.routes.{route.severity}"
        values[f"{at}.to"] = ", ".join(route.to)
        values[f"{at}.backup"] = ", ".join(route.backup) or NONE
        values[f"{at}.backup_after"] = u.format_duration(route.backup_after_ms)
    return values | {
        "alerts.group_wait": u.format_duration(alerting.group_wait_ms),
        "alerts.group_interval": u.format_duration(alerting.group_interval_ms),
        "alerts.keep": u.format_duration(alerting.keep_ms),
        "alerts.repeat": u.format_duration(alerting.repeat_ms),
        "alerts.runbooks": alerting.runbooks or "docs/runbooks/",
        "alerts.dashboards": alerting.dashboards or NONE,
    }


def _channel(channel: Channel) -> dict[str, Value]:
    at, is_slack = f"alerts.channels.{channel.name}", channel.type is ChannelType.SLACK
    secrets = Hidden(channel.secrets) if channel.secrets else NONE
    return {
        f"{at}.type": channel.type,
        f"{at}.url": NONE if is_slack else channel.url,
        f"{at}.url_file": Hidden(channel.url) if is_slack else NONE,
        f"{at}.routing_key_file": secrets if channel.type is ChannelType.PAGERDUTY else NONE,
        f"{at}.secret_file": secrets if channel.type is ChannelType.WEBHOOK else NONE,
    }


def _downstream(downstream: Downstream) -> dict[str, Value]:
    credential, tls = downstream.credential, downstream.tls
    return {
        "downstream.url": downstream.url,
        "downstream.timeout": u.format_duration(downstream.timeout_ms),
        "downstream.connect_timeout": u.format_duration(downstream.connect_timeout_ms),
        "downstream.path": downstream.path or "as called",
        "downstream.credentials.header": credential.header if credential else NONE,
        "downstream.credentials.file": Hidden(credential.value) if credential else NONE,
        "downstream.tls.ca_file": (tls and tls.ca_file) or NONE,
        "downstream.tls.cert_file": (tls and tls.cert_file) or NONE,
        "downstream.tls.key_file": (tls and tls.key_file) or NONE,
        "downstream.tls.server_name": (tls and tls.server_name) or NONE,
        "downstream.max_response": _or(downstream.response_max, u.format_size, NONE),
    }


def _capacity(capacity: Capacity) -> dict[str, Value]:
    cost, quota, schedule = capacity.cost, capacity.quota, capacity.schedule
    values: dict[str, Value] = {
        **_limits("capacity", capacity.limits),
        "capacity.cost.constant": str(cost.constant),
        "capacity.cost.header": cost.header or NONE,
        "capacity.cost.max": str(cost.max),
        "capacity.quota.limit": str(quota.limit) if quota else NONE,
        "capacity.quota.per": quota.per if quota else NONE,
        "capacity.quota.timezone": quota.timezone if quota else NONE,
        **_limits("capacity.per_tenant", capacity.per_tenant or Limits()),
    }
    for tenant, limits in capacity.tenants.items():
        values |= _limits(f"capacity.tenants.{tenant}", limits)
    if schedule is not None:
        values["capacity.schedule.timezone"] = schedule.timezone
        for index, entry in enumerate(schedule.hours):
            at = f"capacity.schedule.hours[{index}]"
            values[f"{at}.when"] = entry.text
            values |= _limits(at, entry.limits)
        values |= _limits("capacity.schedule.otherwise", schedule.otherwise)
    values["capacity.mode"] = capacity.mode
    return values


def _limits(at: str, limits: Limits) -> dict[str, Value]:
    return {
        f"{at}.rate": u.format_rate(limits.rate) if limits.rate else NONE,
        f"{at}.burst": str(limits.rate.burst) if limits.rate else NONE,
        f"{at}.concurrency": _or(limits.concurrency, str, NONE),
    }


def _jobs(operation: Operation) -> dict[str, Value]:
    probe, idempotency, retry = operation.probe, operation.idempotency, operation.retry
    batch, callback = operation.batch, operation.callback
    return {
        **(_queue(operation.queue) if operation.queue else {}),
        "effects": operation.effects,
        "probe": f"{probe.method} {probe.template}" if probe else NONE,
        "idempotency.key": "required" if idempotency.is_required else "optional",
        "idempotency.window": u.format_duration(idempotency.window_ms),
        "retry.for": u.format_duration(retry.for_ms),
        "retry.base": u.format_duration(retry.base_ms),
        "retry.cap": u.format_duration(retry.cap_ms),
        "retry.attempts": _or(retry.attempts, str, "as many as fit"),
        "batch.max_items": str(batch.max_items) if batch else NONE,
        "batch.max_bytes": u.format_size(batch.max_bytes) if batch else NONE,
        "batch.window": u.format_duration(batch.window_ms) if batch else NONE,
        "batch.key": (batch and batch.key) or NONE,
        "batch.path": f"POST {batch.path}" if batch else NONE,
        "callback.allow": ", ".join(callback.allow) if callback else NONE,
        "callback.secret_file": Hidden(callback.secrets) if callback else NONE,
    }


def _direct_retry(retry: DirectRetry | None) -> dict[str, Value]:
    if retry is None:
        return dict.fromkeys(("retry.for", "retry.base", "retry.cap", "retry.attempts"), NONE)
    return {
        "retry.for": _or(retry.for_ms, u.format_duration, "the call's deadline"),
        "retry.base": u.format_duration(retry.base_ms),
        "retry.cap": u.format_duration(retry.cap_ms),
        "retry.attempts": str(retry.attempts),
    }


def _circuit(circuit: CircuitPolicy) -> dict[str, Value]:
    return {
        "circuit.failure_rate": f"{circuit.failure_rate:g}",
        "circuit.slow_rate": "off" if circuit.slow_rate is None else f"{circuit.slow_rate:g}",
        "circuit.slow_call": _or(circuit.slow_call_ms, u.format_duration, "off"),
        "circuit.min_calls": str(circuit.min_calls),
        "circuit.consecutive": str(circuit.consecutive),
        "circuit.window": u.format_duration(circuit.window_ms),
        "circuit.open": u.format_duration(circuit.open_ms),
        "circuit.open_max": u.format_duration(circuit.open_max_ms),
        "circuit.probes": str(circuit.probes),
        "circuit.ramp": u.format_duration(circuit.ramp_ms),
        "circuit.mode": circuit.mode,
    }


def _queue(queue: Queue) -> dict[str, Value]:
    bands = queue.bands
    return {
        "queue.start_within": u.format_duration(queue.start_within_ms),
        "queue.clock": queue.clock,
        "queue.expire_after": _or(queue.expire_after_ms, u.format_duration, "never"),
        "queue.max_jobs": str(queue.jobs_max),
        "queue.max_bytes": u.format_size(queue.bytes_max),
        "queue.max_jobs_per_tenant": _or(queue.tenant_jobs_max, str, NONE),
        "queue.max_bytes_per_tenant": _or(queue.tenant_bytes_max, u.format_size, NONE),
        "queue.durability": format_durability(queue.durability, queue.replicas),
        "queue.keep_result": u.format_duration(queue.keep_result_ms),
        "queue.keep_dead": u.format_duration(queue.keep_dead_ms),
        "queue.payload_max": u.format_size(queue.payload_max),
        **{f"queue.weights.{tenant}": str(weight) for tenant, weight in queue.weights.items()},
        "queue.bands.header": (bands and bands.header) or NONE,
        "queue.bands.pointer": (bands and bands.pointer) or NONE,
        **{f"queue.bands.values.{word}": band for word, band in (bands.values if bands else {}).items()},
        "queue.bands.default": bands.default if bands else "normal",
        "queue.encrypt": _yes(queue.encrypt),
        "queue.store_headers": ", ".join(sorted(queue.store_headers)) or NONE,
    }


def _contract(file: str | None, contract: Mapping[str, Any] | None) -> str:
    """The file and the start of its content's hash: a contract that changed under its name shows."""
    if file is None:
        return NONE
    content = json.dumps(contract, sort_keys=True).encode()
    return f"{file} ({hashlib.sha256(content).hexdigest()[:8]})"


def _on_hang_up(method: str) -> HangUp:
    return HangUp.CANCEL if method in {"GET", "HEAD", "OPTIONS"} else HangUp.FINISH


def _yes(value: bool) -> str:
    return str(value).lower()


def _or(value: int | None, write: Any, otherwise: str) -> str:
    return otherwise if value is None else str(write(value))
