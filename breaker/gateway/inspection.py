"""
Inspection: what a call's body says, before any capacity is spent on it.

The contract; the tenant, the band and the batch key, where an operation looks for them in the body.
"""

from typing import Any

from breaker.gateway.call import Call, CallerError, Kind, Refusal
from breaker.gateway.contract import NotJsonError, at_pointer, parse


async def inspect(call: Call) -> Refusal | None:
    """Read what must be seen; why the call cannot go on, or None."""
    work = call.work
    operation = work.operation
    if not work.sees_body:
        length, most = call.body.length, operation.body_max
        if most is None or length is None or length <= most:
            return None
        detail = f"the body is larger than the {most} bytes that {operation.name} takes"
        return Refusal(kind=Kind.PAYLOAD_TOO_LARGE, detail=detail)
    # What is only looked into may be anything: what cannot be read names nothing.
    must_read = work.contract is not None or operation.batch is not None
    value, violations = None, []
    try:
        sent = call.sent_body = await call.body.read(operation.body_max, operation.body_timeout_ms / 1_000)
        if not work.reads_json:
            return None
        plain = call.body.decoded(sent, operation.body_max)
        if operation.batch and plain is not sent:
            detail = f"{operation.name} goes out in batches: send its body without Content-Encoding"
            return Refusal(kind=Kind.BAD_REQUEST, detail=detail)
        value = parse(plain)
        violations = work.contract.violations(value) if work.contract else []
    except CallerError as exc:
        if must_read or call.sent_body is None:
            return Refusal(kind=exc.kind, detail=exc.detail)
    except NotJsonError as exc:
        if must_read:
            return Refusal(kind=Kind.BAD_REQUEST, detail=str(exc))
    look_into(call, value)
    if not violations:
        return None
    found = [{"pointer": violation.pointer, "detail": violation.message} for violation in violations]
    return Refusal(
        kind=Kind.CONTRACT,
        detail=f"the body breaks the contract of {operation.name} in {len(found)} place(s)",
        extra={"violations": found},
    )


def look_into(call: Call, value: Any) -> None:
    """What the body says beside the work itself: its tenant, its band, and what it may share a batch with."""
    work = call.work
    operation = work.operation
    if work.pointer and call.tenant == call.tenants.own:
        named = at_pointer(value, work.pointer)
        call.tenant = call.tenants.named(str(named) if isinstance(named, str | int) else None)
    if operation.batch and operation.batch.key:
        call.batch_value = at_pointer(value, operation.batch.key)
    bands = operation.queue.bands if operation.queue else None
    if bands and bands.pointer:
        word = at_pointer(value, bands.pointer)
        call.band_word = word if isinstance(word, str) else None
