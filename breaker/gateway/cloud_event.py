"""
Cloud event: what a callback says about the end of a job.

CloudEvents 1.0, structured JSON. It is thin: which job, how it ended, and where to ask for more, so that a
receiver who is not the caller learns nothing of the work itself. The answer of the downstream is fetched
with the caller's own credential. The fields are documented in `docs/callbacks.md`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import orjson

from breaker.core.jobs import JobState

CONTENT_TYPE = "application/cloudevents+json"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """
    One end of one job; a job that was run again by hand has several.

    Attributes:
        job: Its whole id, `<operation>~<ULID>`.
        state: How it ended.
        attempts: How often it was leased.
        accepted_us, ended_us: Microseconds since 1970, of the store's clock.
        status: Of the downstream's answer; None when there is none.
        reason: Why it did not succeed; None or empty when there is nothing to say.

    Raises:
        ValueError: The job has not ended.

    """

    operation: str
    job: str
    state: JobState
    tenant: str
    attempts: int
    accepted_us: int
    ended_us: int
    status: int | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if not self.state.is_ended:
            raise ValueError(f"job {self.job!r} has not ended: it is {self.state}")

    @property
    def webhook_id(self) -> str:
        """
        The same for every attempt to tell of this end, and for nothing else.

        The ULID alone would not do: a dead job that is run again and dies again has news, and so has one
        that is purged. Operation names are left out, since webhook ids have no full stops.
        """
        return f"{self.job.rpartition('~')[2]}_{self.attempts}_{self.state}"


def cloud_event(ended: EndedJob, *, cluster: str) -> bytes:
    """The body of the callback."""
    path = f"/v1/jobs/{quote(ended.job)}"
    ended_at = _rfc3339(ended.ended_us)
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": ended.webhook_id,
            "source": f"/breaker/{quote(cluster, safe='')}/{quote(ended.operation, safe='')}",
            "type": f"breaker.job.{ended.state}",
            "subject": ended.job,
            "time": ended_at,
            "datacontenttype": "application/json",
            "data": {
                "operation": ended.operation,
                "state": ended.state,
                "tenant": ended.tenant,
                "attempts": ended.attempts,
                "accepted_at": _rfc3339(ended.accepted_us),
                "ended_at": ended_at,
                "status": ended.status,
                "reason": ended.reason or None,
                # Relative: a gateway does not know under which name its callers reach it.
                "links": {"job": path, "result": f"{path}/result" if ended.status is not None else None},
            },
        }
    )


def _rfc3339(at_us: int) -> str:
    # Not `fromtimestamp`: a float of seconds does not hold every microsecond.
    at = _EPOCH + timedelta(microseconds=at_us)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
