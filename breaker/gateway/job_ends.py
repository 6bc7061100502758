"""
Job ends: a caller waits here until its job has ended, wherever it runs.
"""

from breaker.core.jobs import JobRecord
from breaker.store.job_desk import JobDesk
from breaker.store.jobs import JobStore


async def end_of(
    jobs: JobStore, desk: JobDesk, operation: str, job: str, seconds: float, *, caller: str
) -> JobRecord | None:
    """
    A job when it has ended, or as it stands after so long; None when this caller has no such job.

    Raises:
        StoreError: It cannot be looked up now.

    """
    # Before it is looked at: the message of its end may be faster than the answer to the look.
    jobs.expect_end(job)
    is_waiting = False
    try:
        record = await desk.show(operation, job, watch=True)
        if record is None or record.head.caller != caller:
            return None
        if record.head.state.is_ended:
            return record
        is_waiting = True
        await jobs.wait_ended(job, seconds)
    finally:
        if not is_waiting:
            jobs.forget_end(job)
    return await desk.show(operation, job)
