"""The OpenAPI document says what the gateway does."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from breaker.core.circuit_policy import CircuitMode, CircuitPolicy, SlowDown
from breaker.core.job_policy import Callback, Durability, Idempotency
from breaker.core.model import (
    Capacity,
    Cost,
    Limits,
    Match,
    Mode,
    Operation,
    Overflow,
    Per,
    Quota,
    Rate,
    TenantSource,
)
from breaker.gateway.call import Kind, Refusal
from breaker.web.docs_page import page
from breaker.web.openapi import document, kinds_of
from breaker.web.problem_types import PROBLEMS, type_uri
from breaker.web.problems import problem
from tests.web.described import (
    CALLER,
    LIMITED,
    PLAIN,
    QUEUE,
    RATE,
    SECOND,
    config,
    operation,
    queued,
    shipped,
    validator,
)


def test_the_shipped_configuration_gives_a_valid_document() -> None:
    """Whoever generates a client from it is not stopped by an error of ours."""
    described = json.loads(json.dumps(document(shipped())))
    OpenAPIV31SpecValidator(described).validate()
    assert "/billing/invoices/{invoice_id}/charge" in described["paths"]


names = st.sampled_from(["a", "b-c", "d1"])


segments = st.sampled_from(["x", "{id}", "{other_id}", "%2Fz", "a~b"])


limits = st.builds(
    Limits,
    rate=st.none() | st.builds(Rate, limit=st.sampled_from([0, 1, 7]), period_us=st.just(SECOND)),
    concurrency=st.sampled_from([None, 0, 1]),
)


capacities = st.builds(
    Capacity,
    limits=limits,
    per_tenant=st.none() | limits,
    tenants=st.dictionaries(names, limits, max_size=1),
    quota=st.none() | st.just(Quota(limit=3, per=Per.WEEK, timezone="UTC")),
    cost=st.sampled_from([Cost(), Cost(header="X-Weight", max=4), Cost(header="x-request-ID", max=4)]),
    mode=st.sampled_from(Mode),
)


OVERFLOWS: list[dict[str, Any]] = [
    {"overflow": Overflow.THROTTLE},
    {"overflow": Overflow.ALERT},
    {"overflow": Overflow.QUEUE, "queue": QUEUE},
    {
        "overflow": Overflow.QUEUE, "queue": QUEUE, "idempotency": Idempotency(is_required=True),
        "callback": Callback(allow=("hooks.example.com",), secrets=()),
    },
]  # fmt: skip


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    path = draw(
        st.lists(segments, max_size=3, unique_by=lambda part: part if part.startswith("{") else object())
    )
    method = draw(st.sampled_from(["GET", "HEAD", "POST", "DELETE", "OPTIONS"]))
    contract = draw(st.sampled_from([None, {"$id": "urn:c", "$ref": "#/$defs/a", "$defs": {"a": True}}]))
    return operation(
        f"{draw(names)}.{draw(names)}",
        f"{method} /{'/'.join(path)}",
        capacity=draw(capacities),
        **draw(st.sampled_from(OVERFLOWS)),
        contract=None if method in ("GET", "HEAD", "OPTIONS") else contract,
        tenant=draw(st.sampled_from([None, TenantSource(header="X-WEIGHT"), TenantSource(pointer="/id")])),
        max_wait_ms=draw(st.sampled_from([0, 1])),
        body_max=draw(st.sampled_from([None, 1])),
    )


def route(one: Operation) -> tuple[str, str]:
    return one.match.method, one.pipeline + re.sub(r"{\w+}", "{}", one.match.template)


@given(st.lists(operations(), min_size=1, max_size=4, unique_by=(lambda one: one.name, route)), st.booleans())
@settings(max_examples=40)
def test_every_configuration_gives_a_valid_document_with_every_operation(
    given_operations: list[Operation], has_callers: bool
) -> None:
    """Paths that differ in a parameter's name, or headers that are named twice, break generators."""
    described = document(config(*given_operations, callers=(CALLER,) if has_callers else None))
    OpenAPIV31SpecValidator(described).validate()
    found = {
        (method.upper(), re.sub(r"{\w+}", "{}", path)): item[method]["operationId"]
        for path, item in described["paths"].items()
        for method in item
        if method != "parameters"
    }
    for one in given_operations:
        method, path = route(one)
        assert found[method, f"/{path}"] == one.name
    assert len(found.values()) == len(set(found.values())), "an operationId stands twice"
    assert page(described).count('<article id="operation-') == len(given_operations)


GIVES: list[tuple[Kind, Operation, Operation]] = [
    (Kind.UNKNOWN_OPERATION, operation(match="POST /a/{id}"), PLAIN),
    (Kind.REQUEST_TIMEOUT, PLAIN, operation(match="GET /a")),
    (Kind.PAYLOAD_TOO_LARGE, PLAIN, replace(PLAIN, body_max=None)),
    (Kind.CONTRACT, replace(PLAIN, contract={}), PLAIN),
    (Kind.TOO_COSTLY, replace(PLAIN, capacity=replace(LIMITED, cost=Cost(header="W", max=2))), replace(PLAIN, capacity=LIMITED)),
    (Kind.TOO_COSTLY, replace(PLAIN, capacity=replace(LIMITED, cost=Cost(constant=2))), replace(PLAIN, capacity=Capacity(cost=Cost(constant=2)))),
    (Kind.TENANT_LIMIT, replace(PLAIN, capacity=Capacity(per_tenant=Limits(rate=RATE))), replace(PLAIN, capacity=LIMITED)),
    (Kind.TENANT_LIMIT, replace(PLAIN, capacity=Capacity(tenants={"a": Limits()})), replace(PLAIN, overflow=Overflow.ALERT, capacity=Capacity(tenants={"a": Limits()}))),
    (Kind.TENANT_LIMIT, replace(PLAIN, capacity=Capacity(per_tenant=Limits())), replace(PLAIN, capacity=Capacity(per_tenant=Limits(), mode=Mode.SHADOW))),
    (Kind.DEGRADED, replace(PLAIN, capacity=LIMITED), PLAIN),
    (Kind.OUTCOME_UNKNOWN, operation(match="DELETE /a"), operation(match="GET /a")),
    (Kind.TENANT_LIMIT, queued(tenant_jobs_max=5), queued()),
    (Kind.TENANT_LIMIT, replace(PLAIN, slow_down=SlowDown.TENANT), PLAIN),
    (Kind.CIRCUIT_OPEN, replace(queued(), circuit=CircuitPolicy(mode=CircuitMode.SHADOW)), replace(PLAIN, circuit=CircuitPolicy(mode=CircuitMode.OFF))),
    (Kind.TENANT_LIMIT, queued(tenant_bytes_max=5), PLAIN),
    (Kind.TENANT_LIMIT, replace(queued(), capacity=Capacity(per_tenant=Limits())), replace(queued(), capacity=LIMITED)),
    (Kind.QUEUE_FULL, queued(), PLAIN),
    (Kind.IN_PROGRESS, queued(), PLAIN),
    (Kind.IDEMPOTENCY_KEY_REUSED, queued(), PLAIN),
    (Kind.IDEMPOTENCY_KEY_MISSING, replace(queued(), idempotency=Idempotency(is_required=True)), queued()),
    (Kind.DURABILITY_NOT_MET, queued(), queued(durability=Durability.MEMORY)),
    (Kind.RESULT_EXPIRED, queued(), PLAIN),
    (Kind.PAUSED, replace(PLAIN, capacity=LIMITED), queued()),
    (Kind.DRAINING, queued(), PLAIN),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "does", "does_not"), GIVES)
def test_an_operation_lists_the_problems_that_it_can_give(
    kind: Kind, does: Operation, does_not: Operation
) -> None:
    """A caller's developer handles what is listed, so neither too little nor too much stands there."""
    assert kind in kinds_of(does, is_open=True)
    assert kind not in kinds_of(does_not, is_open=True)
    responses = document(config(does))["paths"][f"/billing{does.match.template}"][does.match.method.lower()][
        "responses"
    ]
    assert f"`{kind}`" in responses[str(PROBLEMS[kind].status)]["description"]


def test_only_a_gateway_with_callers_asks_for_a_key() -> None:
    """An open gateway that documents a key sends developers looking for one."""
    for callers, is_open in ((None, True), ((CALLER,), False)):
        described = document(config(PLAIN, callers=callers))
        responses = described["paths"]["/billing/charges"]["post"]["responses"]
        assert ("401" in responses, "403" in responses) == (not is_open, not is_open)
        assert (described["security"] == []) is is_open
        assert described["paths"]["/livez"]["get"]["security"] == []
        for path in ("/v1/jobs/{job}", "/v1/operations"):
            get = described["paths"][path]["get"]
            assert "security" not in get, "who asks for it is asked for its key"
            assert ("401" in get["responses"]) is not is_open


def test_our_refusals_are_what_the_document_says() -> None:
    """A client that was generated from the document can read every problem."""
    capacity = replace(LIMITED, per_tenant=Limits(), cost=Cost(constant=2))
    throttled = operation(match="POST /a/{id}", contract={}, capacity=capacity)
    one = replace(
        throttled, name="billing.b", match=Match(method="POST", template="/b/{id}"), overflow=Overflow.QUEUE,
        queue=QUEUE, idempotency=Idempotency(is_required=True),
    )  # fmt: skip
    described = json.loads(json.dumps(document(config(throttled, one, callers=(CALLER,)))))
    paths, seen = described["paths"], set()
    for path, method, kinds in (
        ("/billing/a/{id}", "post", kinds_of(throttled, is_open=False)),
        ("/billing/b/{id}", "post", kinds_of(one, is_open=False)),
        ("/v1/jobs/{job}", "get", [Kind.UNAUTHENTICATED, Kind.JOB_NOT_FOUND, Kind.DEGRADED]),
        ("/v1/jobs/{job}", "delete", [Kind.UNAUTHENTICATED, Kind.JOB_NOT_FOUND, Kind.NOT_CANCELLABLE, Kind.DEGRADED]),
        ("/v1/jobs/{job}/result", "get", [Kind.UNAUTHENTICATED, Kind.JOB_NOT_FOUND, Kind.RESULT_EXPIRED, Kind.OUTCOME_UNKNOWN, Kind.DEGRADED]),
        ("/v1/operations", "get", [Kind.UNAUTHENTICATED]),
    ):  # fmt: skip
        for kind in kinds:
            extra = {
                "violations": [{"pointer": "/a", "detail": "b"}],
                "job": "x",
                "state": "dead",
                "status_of_downstream": 200,
            }
            status, lines, body = problem(Refusal(kind=kind, detail="why", extra=extra))
            assert b"application/problem+json" in lines
            told = paths[path][method]["responses"][str(status)]
            media = told["content"]["application/problem+json"]["schema"]
            assert validator(described, media).is_valid(json.loads(body)), (path, kind)
            assert set(json.loads(body)) <= set(described["components"]["schemas"]["Problem"]["properties"])
            assert ("*/*" in told["content"]) is (path.startswith("/billing") or path.endswith("/result"))
        seen |= set(kinds)
    assert set(Kind) - seen == {Kind.METHOD_NOT_ALLOWED}


def test_a_problem_of_the_downstream_is_valid_and_one_of_ours_in_the_wrong_place_is_not() -> None:
    described = document(config(replace(PLAIN, contract={})))
    media = described["paths"]["/billing/charges"]["post"]["responses"]["422"]["content"][
        "application/problem+json"
    ]
    schema = validator(described, media["schema"])
    ours = {"type": type_uri(Kind.CONTRACT), "title": "t", "status": 422, "detail": "d"}
    assert schema.is_valid(ours)
    assert schema.is_valid({"type": "https://billing.example/paid", "anything": 1})
    assert schema.is_valid({})
    assert not schema.is_valid({**ours, "type": type_uri(Kind.DEADLINE)})
    assert not schema.is_valid({**ours, "status": 500})
    assert not schema.is_valid({"type": type_uri(Kind.CONTRACT)})


def test_head_is_where_get_is_and_nowhere_else() -> None:
    """HEAD works on every GET, so a document without it would be wrong."""
    described = document(
        config(operation("a.b", "GET /x"), operation("a.c", "POST /y"), operation("a.d", "HEAD /z"))
    )
    methods = {path: set(item) - {"parameters"} for path, item in described["paths"].items()}
    assert methods["/a/x"] == {"get", "head"}
    assert methods["/a/y"] == {"post"}
    assert methods["/a/z"] == {"head"}


def test_paths_that_differ_in_the_name_of_a_parameter_are_one_path() -> None:
    """OpenAPI calls them identical, and generators drop one of the two."""
    described = document(config(operation("a.b", "GET /x/{id}/y"), operation("a.c", "PUT /x/{other}/y")))
    (path,) = [path for path in described["paths"] if path.startswith("/a/")]
    assert path == "/a/x/{id}/y"
    assert set(described["paths"][path]) == {"parameters", "get", "head", "put"}


def test_a_header_that_is_named_twice_is_one_parameter() -> None:
    """Header names have no case, and two parameters of one name are no valid document."""
    cost = Capacity(limits=Limits(rate=RATE), cost=Cost(header="x-tenant", max=4))
    one = operation(capacity=cost, tenant=TenantSource(header="X-Tenant"))
    described = document(config(one, replace(one, name="billing.z", match=Match(method="PUT", template="/z"),
                                             tenant=TenantSource(header="x-request-id"))))  # fmt: skip
    for path, method, count in (("/billing/charges", "post", 4), ("/billing/z", "put", 4)):
        assert len(described["paths"][path][method]["parameters"]) == count
