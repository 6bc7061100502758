"""
Headers that we add: who called, whose answer it is, and the room that is left.
"""

from breaker.core.events import Outcome
from breaker.core.model import Limits, Operation
from breaker.core.verdict import Policy, Room
from breaker.gateway.acceptance import Replay
from breaker.gateway.call import Call
from breaker.gateway.work import tenant_limits
from breaker.store.policy import limits_of

NOT_OF_CAPACITY = frozenset(
    {
        Policy.JOBS, Policy.BYTES, Policy.TENANT_JOBS, Policy.TENANT_BYTES, Policy.DRAINING, Policy.PAUSED,
        Policy.CIRCUIT, Policy.SLOW_DOWN, Policy.TENANT_SLOW_DOWN,
    }
)  # fmt: skip
LINES_MAX = 1_000  # RateLimit-Policy lines kept per operation, one per tenant with limits of its own


def peer_lines(peer: str, host: str, scheme: str) -> bytes:
    """Who called, as the next hop learns it (RFC 7239, and the older fields that everybody reads)."""
    node = f'"[{peer}]"' if ":" in peer else peer or "unknown"
    return (
        f'Forwarded: for={node};host="{host}";proto={scheme}\r\n'
        f"X-Forwarded-For: {peer}\r\nX-Forwarded-Host: {host}\r\nX-Forwarded-Proto: {scheme}\r\n"
    ).encode("latin-1", "replace")


def our_lines(call: Call, outcome: Outcome) -> bytes:
    """What every answer tells about itself: whose it is, the decision, and the room that is left."""
    lane, lines = call.work.lane, call.work.policy_lines
    known = (lane.limits_text, call.ask.tenant)
    policy = lines.get(known)
    if policy is None:
        if len(lines) >= LINES_MAX:
            lines.clear()
        policy = lines[known] = policy_line(call.work.operation, *known)
    room = room_line(call.verdict.room) if call.verdict else b""
    return b"Breaker-Outcome: %b\r\nBreaker-Decision: %b\r\nX-Request-Id: %b\r\n%b%b" % (
        outcome.encode(), call.decision.encode(), call.request_id.encode(), policy, room,
    )  # fmt: skip


def policy_line(operation: Operation, limits_text: str, tenant: str) -> bytes:
    """`RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11): every limit that holds now."""
    limits = limits_of(limits_text) if limits_text else Limits()
    parts = stated(limits, Policy.RATE, Policy.SLOTS)
    own = tenant_limits(operation, tenant) if tenant else None
    if own:
        parts += stated(own, Policy.TENANT_RATE, Policy.TENANT_SLOTS)
    quota = operation.capacity.quota
    if quota:
        parts.append(f'"{Policy.QUOTA}";q={quota.limit}')
    return f"RateLimit-Policy: {', '.join(parts)}\r\n".encode() if parts else b""


def stated(limits: Limits, rate: Policy, slots: Policy) -> list[str]:
    parts = []
    if limits.rate:
        parts.append(f'"{rate}";q={limits.rate.limit};w={limits.rate.period_us // 1_000_000}')
    if limits.concurrency is not None:
        parts.append(f'"{slots}";q={limits.concurrency};qu="concurrent-requests"')
    return parts


def room_line(room: Room) -> bytes:
    """`RateLimit`: what is left of the tightest limit, and seconds until it is free again."""
    if room.policy is None:
        return b""
    return b'RateLimit: "%b";r=%d;t=%d\r\n' % (
        room.policy.encode(),
        room.remaining,
        -(-room.reset_us // 1_000_000),
    )


def limit_words(call: Call, policy: Policy) -> str | None:
    """The limit behind a policy, for a person: `20 per 1 s, burst 40`, `8 at once`."""
    work = call.work
    known = (work.lane.limits_text, call.ask.tenant, policy)
    if known not in work.limit_words:
        if len(work.limit_words) >= LINES_MAX:
            work.limit_words.clear()
        work.limit_words[known] = words_of(work.operation, *known)
    return work.limit_words[known]


def words_of(operation: Operation, limits_text: str, tenant: str, policy: Policy) -> str | None:
    limits = (tenant_limits(operation, tenant) if policy.is_tenants_own else None) or (
        limits_of(limits_text) if limits_text else Limits()
    )
    quota = operation.capacity.quota
    if policy is Policy.QUOTA and quota:
        return f"{quota.limit} per {quota.per} ({quota.timezone})"
    if policy in NOT_OF_CAPACITY:
        return queue_words(operation, policy)
    if policy in (Policy.SLOTS, Policy.TENANT_SLOTS) and limits.concurrency is not None:
        return f"{limits.concurrency} at once"
    if limits.rate:
        return f"{limits.rate.limit} per {limits.rate.period_us // 1_000_000} s, burst {limits.rate.burst}"
    return None


def queue_words(operation: Operation, policy: Policy) -> str | None:
    """The bound of a queue behind a policy; None for what a person did."""
    queue = operation.queue
    if queue is None:
        return None
    bounds = {
        Policy.JOBS: (queue.jobs_max, "jobs"),
        Policy.BYTES: (queue.bytes_max, "bytes"),
        Policy.TENANT_JOBS: (queue.tenant_jobs_max, "jobs"),
        Policy.TENANT_BYTES: (queue.tenant_bytes_max, "bytes"),
    }
    number, noun = bounds.get(policy, (None, ""))
    return None if number is None else f"{number} {noun if number != 1 else noun[:-1]}"


def own_key(call: Call) -> bytes:
    """A direct call whose caller sent no key carries one all the same: the id of its decision."""
    return b"" if call.wishes.key else b"Idempotency-Key: %b\r\n" % call.decision.encode()


def replay_lines(replay: Replay) -> bytes:
    """What an answer that was kept says of itself."""
    job = replay.job.encode()
    lines = b"Breaker-Job: %b\r\nContent-Location: /v1/jobs/%b/result\r\n" % (job, job)
    if replay.preference:
        lines += b"Preference-Applied: %b\r\n" % replay.preference.encode()
    return lines if replay.is_first else lines + b"Idempotent-Replayed: true\r\n"
