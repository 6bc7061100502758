"""The body of a callback: a CloudEvent that says which job ended, how, and where to ask for more."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from breaker.core.jobs import JobState
from breaker.gateway.cloud_event import CONTENT_TYPE, EndedJob, cloud_event

JOB = "billing.charge-invoice~01JABCDEFGHJKMNPQRSTVWXYZ0"
ENDED = EndedJob(
    operation="billing.charge-invoice",
    job=JOB,
    state=JobState.SUCCEEDED,
    tenant="acme",
    attempts=2,
    accepted_us=1_767_225_599_999_999,
    ended_us=1_767_225_600_123_456,
    status=201,
)
ENDS = [state for state in JobState if state.is_ended]
GUIDE = Path(__file__).parents[2] / "docs" / "callbacks.md"


def told(ended: EndedJob) -> dict[str, Any]:
    event = orjson.loads(cloud_event(ended, cluster="eu/1"))
    assert isinstance(event, dict)
    return event


def test_event_is_what_the_specification_asks_for() -> None:
    """A receiver's CloudEvents library takes it as it is."""
    assert told(ENDED) == {
        "specversion": "1.0",
        "id": "01JABCDEFGHJKMNPQRSTVWXYZ0_2_succeeded",
        "source": "/breaker/eu%2F1/billing.charge-invoice",
        "type": "breaker.job.succeeded",
        "subject": JOB,
        "time": "2026-01-01T00:00:00.123Z",
        "datacontenttype": "application/json",
        "data": {
            "operation": "billing.charge-invoice",
            "state": "succeeded",
            "tenant": "acme",
            "attempts": 2,
            "accepted_at": "2025-12-31T23:59:59.999Z",
            "ended_at": "2026-01-01T00:00:00.123Z",
            "status": 201,
            "reason": None,
            "links": {"job": f"/v1/jobs/{JOB}", "result": f"/v1/jobs/{JOB}/result"},
        },
    }


def test_job_without_an_answer_has_a_reason_and_no_result() -> None:
    """A link to a result that never was would send its reader on a hunt."""
    data = told(replace(ENDED, state=JobState.EXPIRED, status=None, reason="budget"))["data"]
    assert (data["status"], data["reason"], data["links"]["result"]) == (None, "budget", None)
    assert told(replace(ENDED, reason=""))["data"]["reason"] is None


@pytest.mark.parametrize("state", [state for state in JobState if not state.is_ended])
def test_job_that_has_not_ended_has_no_event(state: JobState) -> None:
    """Whoever is told `running` would wait for nothing more."""
    with pytest.raises(ValueError, match="has not ended"):
        replace(ENDED, state=state)


def test_each_end_of_a_job_has_an_id_of_its_own() -> None:
    """A dead job that was run again and succeeded is news, and a receiver drops ids that it has seen."""
    ends = [replace(ENDED, state=state, attempts=attempts) for state in ENDS for attempts in (0, 2, 3)]
    assert len({end.webhook_id for end in ends}) == len(ends)
    assert all("." not in end.webhook_id for end in ends)


def test_guide_for_receivers_lists_every_field_and_type() -> None:
    """A receiver is written from the guide alone."""
    text = GUIDE.read_text().partition("## What a receiver")[0]
    event = told(ENDED)
    fields = (
        {*event}
        | {f"data.{name}" for name in event["data"]}
        | {f"data.links.{name}" for name in event["data"]["links"]}
    )
    fields -= {"data", "data.links"}
    rows = re.findall(r"^\| ((?:`[a-z_.]+`(?:, )?)+) \|", text, re.MULTILINE)
    documented = {word for row in rows for word in re.findall(r"`([a-z_.]+)`", row)}
    types = {word for word in documented if word.startswith("breaker.job.")}
    assert types == {f"breaker.job.{state}" for state in ENDS}
    assert documented - types == fields
    assert f"`{CONTENT_TYPE}`" in text
