"""The OpenAPI document knows jobs: how one is asked for, what it looks like, and where it is found."""

import json
from dataclasses import replace

import pytest

from breaker.core.job_policy import Band, Callback, Idempotency
from breaker.core.jobs import JobState, Reason
from breaker.core.promise import Eta
from breaker.gateway.call import Receipt
from breaker.web.docs_page import curl
from breaker.web.job_documents import accepted
from breaker.web.openapi import document
from breaker.web.wishes import READ
from tests.web.described import (
    config,
    operation,
    queued,
    validator,
)


def test_a_job_is_described_where_it_can_be_given() -> None:
    """Who generates a client gets the job as a type, and the way from the 202 to the result."""
    described = document(config(queued(), operation("billing.z", "POST /z")))
    paths = described["paths"]
    assert "202" not in paths["/billing/z"]["post"]["responses"]
    told = paths["/billing/charges"]["post"]["responses"]["202"]
    ids = {
        item[method]["operationId"] for item in paths.values() for method in item if method != "parameters"
    }
    assert (
        {link["operationId"] for link in told["links"].values()}
        == {"getJob", "getJobResult", "cancelJob"}
        <= ids
    )
    schema = validator(described, told["content"]["application/json"]["schema"])
    receipt = Receipt(
        job="billing.charge~01K3D8PM7VR3P1CA0000000042", state="queued", band=Band.HIGH, position=3,
        eta=Eta(p50_us=1_000, p90_us=2_000), deadline_us=1_800_000_000_000_000, durability="fsync",
    )  # fmt: skip
    lines, body = accepted(receipt)
    job = json.loads(body)
    only = validator(described, {"$ref": "#/components/schemas/Job"})
    assert schema.is_valid(job)
    assert only.is_valid(job)
    assert schema.is_valid({"id": "the downstream's own"})
    assert not schema.is_valid({**job, "state": "lost"})
    assert not schema.is_valid({**job, "deadline": "2027-01-15T08:00:00"})
    names = {line.partition(":")[0] for line in lines.decode().split("\r\n") if line}
    assert names - {"Content-Type", "Cache-Control"} <= set(told["headers"])


def test_every_state_band_and_reason_stands_in_the_document() -> None:
    """A state that a generated client does not know is an exception at night."""
    job = document(config(queued()))["components"]["schemas"]["Job"]["properties"]
    assert set(job["state"]["enum"]) == {*(str(state) for state in JobState), "held"}
    assert set(job["band"]["enum"]) == {str(band) for band in Band}
    assert set(job["reason"]["enum"]) == {*(str(reason) for reason in Reason), None}


@pytest.mark.parametrize("is_required", [False, True])
def test_the_headers_that_ask_for_a_job_stand_where_they_are_read(is_required: bool) -> None:
    """A header that an operation does not read must not stand there; one that it needs is required."""
    callback = Callback(allow=("hooks.example.com",), secrets=())
    one = replace(queued(), idempotency=Idempotency(is_required=is_required))
    for operation_, has_callback in ((one, False), (replace(one, callback=callback), True)):
        described = document(config(operation_, operation("billing.z", "POST /z")))
        known = described["components"]["parameters"]
        stated = [
            known[parameter["$ref"].rpartition("/")[2]] if "$ref" in parameter else parameter
            for parameter in described["paths"]["/billing/charges"]["post"]["parameters"]
        ]
        names = {parameter["name"] for parameter in stated}
        assert set(READ) - names == (set() if has_callback else {"Breaker-Callback"})
        (key,) = (parameter for parameter in stated if parameter["name"] == "Idempotency-Key")
        assert key.get("required", False) is is_required
        others = described["paths"]["/billing/z"]["post"]["parameters"]
        assert not {parameter["$ref"].rpartition("/")[2] for parameter in others} & set(READ)
        command = curl("/billing/charges", "post", described["paths"]["/billing/charges"]["post"], described)
        assert ('-H "Idempotency-Key: $WORK"' in command) is is_required
