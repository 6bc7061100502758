"""
Work: an operation with everything that serves it, made once per configuration.

What can be known before a call arrives is computed here, so that the path need not.
"""

from dataclasses import dataclass

from breaker.core.circuit_policy import SlowDown
from breaker.core.model import Cost, HangUp, Limits, Operation
from breaker.gateway.contract import Contract
from breaker.gateway.downstream import Pool
from breaker.gateway.passage import OURS_DOWN, OURS_UP, Here, Passage
from breaker.store.lane import Lane

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(slots=True, kw_only=True)
class Work:
    """
    Attributes:
        contract: Compiled; None takes any body.
        pool: Connections to the downstream.
        lane: The operation's place in the store's round trips.
        is_limited: Whether the store must be asked at all.
        knows_tenants: Whether some limit is per tenant.
        sees_body: The body must be read before capacity is spent.
        reads_json: The body is looked into, for its contract, tenant, band or batch key.
        pointer: Where in the body the tenant stands.
        is_safe: Calling twice does no harm, so an unknown outcome is only a failure.
        linger: As settle.lua takes it.
        down, up: Which header lines pass; `up_bodiless` for answers that tell of a body they do not have.
        payload_max: Bytes of a request that may become a job, and of an answer that is kept.
        policy_lines: RateLimit-Policy lines, by the limits in force and the tenant.
        limit_words: The limit behind a policy, for a person, by limits in force, tenant and policy.

    """

    operation: Operation
    contract: Contract | None
    pool: Pool
    lane: Lane
    is_limited: bool
    knows_tenants: bool
    sees_body: bool
    reads_json: bool
    pointer: str | None
    is_safe: bool
    ends_on_hang_up: bool
    timeout_s: float
    wait_s: float
    linger: str
    down: Passage
    up: Passage
    up_bodiless: Passage
    payload_max: int
    policy_lines: dict[tuple[str, str], bytes]
    limit_words: dict[tuple[str, str, str], str | None]


def work_of(operation: Operation, pool: Pool, lane: Lane, *, cookies: bool) -> Work:
    """Prepare an operation; `cookies` says whether they pass."""
    credential = operation.downstream.credential
    ours_down = OURS_DOWN if cookies else OURS_DOWN | {b"cookie"}
    ours_up = OURS_UP if cookies else OURS_UP | {b"set-cookie"}
    added = b""
    if credential:
        # The downstream's own, in place of whatever the caller sent under that name.
        ours_down |= {credential.header.lower().encode()}
        added = f"{credential.header}: {credential.value}\r\n".encode()
    here = Here(operation)
    capacity = operation.capacity
    is_safe = operation.match.method in SAFE_METHODS
    on_hang_up = operation.on_hang_up or (HangUp.CANCEL if is_safe else HangUp.FINISH)
    pointer = operation.tenant.pointer if operation.tenant else None
    return Work(
        operation=operation,
        contract=Contract(operation.contract) if operation.contract is not None else None,
        pool=pool,
        lane=lane,
        is_limited=not capacity.is_unlimited
        or operation.queue is not None
        or operation.slow_down is SlowDown.TENANT,
        knows_tenants=capacity.per_tenant is not None
        or bool(capacity.tenants)
        or operation.slow_down is SlowDown.TENANT,
        pointer=pointer,
        sees_body=operation.contract is not None or pointer is not None or operation.queue is not None,
        is_safe=is_safe,
        ends_on_hang_up=on_hang_up is HangUp.CANCEL,
        timeout_s=operation.downstream.timeout_ms / 1_000,
        wait_s=operation.max_wait_ms / 1_000,
        linger="mean" if operation.linger_ms is None else str(operation.linger_ms * 1_000),
        down=Passage(ours_down, added=added),
        up=Passage(ours_up, here=here),
        up_bodiless=Passage(ours_up - {b"content-length"}, here=here),
        reads_json=operation.contract is not None or pointer is not None or looks_into_jobs(operation),
        payload_max=operation.queue.payload_max if operation.queue else 0,
        policy_lines={},
        limit_words={},
    )


def looks_into_jobs(operation: Operation) -> bool:
    """Whether a job's band stands in its body, or it goes into a batch, which is JSON."""
    bands = operation.queue.bands if operation.queue else None
    return (bands is not None and bands.pointer is not None) or operation.batch is not None


def cost_of(cost: Cost, sent: str | None) -> int | None:
    """What a call weighs; None when the caller's header is not a number within bounds."""
    if cost.header is None or sent is None:
        return cost.constant
    return int(sent) if sent.isascii() and sent.isdigit() and 1 <= int(sent) <= cost.max else None


def tenant_limits(operation: Operation, tenant: str) -> Limits | None:
    """The limits of one tenant, as the file states them."""
    return operation.capacity.tenants.get(tenant, operation.capacity.per_tenant)
