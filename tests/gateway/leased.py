"""
Leased jobs, and an operation with a downstream to send them to.
"""

from breaker.core.job_policy import Band, Effects
from breaker.core.jobs import JobHead, JobState, LeasedJob
from breaker.core.model import Credential, Downstream, Match, Operation
from breaker.gateway.downstream import Pool
from breaker.gateway.work import Work, work_of
from breaker.store.lane import Lane

NOW = 1_800_000_000_000_000
NAME = "billing.charge-invoice"


def leased(id_: str = "01J", *, key: str = "", attempt: int = 1) -> LeasedJob:
    """A running job with an id and perhaps a key."""
    head = JobHead(
        id=id_, state=JobState.RUNNING, band=Band.NORMAL, attempt=attempt, failures=0, lost=0, is_suspect=False,
        first_us=NOW, since_us=NOW, accepted_us=NOW, deadline_us=0, expiry_us=0, cost=1, size=0, caller="crm",
        tenant="acme", line="acme", key=key, callback="",
    )  # fmt: skip
    return LeasedJob(head=head, slot="REPLICA1.00000001", payload=b"")


def work_with(
    pool: Pool,
    *,
    timeout_ms: int = 5_000,
    credential: Credential | None = None,
    path: str | None = None,
    effects: Effects = Effects.KEYED,
    probe: str | None = None,
    method: str = "POST",
) -> Work:
    """`POST /invoices/{invoice_id}/charge`, served by this pool."""
    operation = Operation(
        name=NAME,
        pipeline="billing",
        team="finance",
        match=Match(method=method, template="/invoices/{invoice_id}/charge"),
        # The url is the pool's affair.
        downstream=Downstream(
            url="http://127.0.0.1", timeout_ms=timeout_ms, credential=credential, path=path
        ),
        effects=effects,
        probe=Match(method="GET", template=probe) if probe else None,
    )
    return work_of(operation, pool, Lane(operation=NAME, keys=()), cookies=False)
