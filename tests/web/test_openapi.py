"""The document, the page and the manual say what the gateway does."""

import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from breaker.core.job_policy import Band, Batch, Callback, Durability, Effects, Idempotency, Queue
from breaker.core.jobs import JobState, Reason
from breaker.core.model import (
    Caller,
    Capacity,
    Config,
    Cost,
    Credential,
    Downstream,
    Gateway,
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
from breaker.core.promise import Eta
from breaker.gateway.call import Kind, Receipt, Refusal
from breaker.policy.load import load
from breaker.web.contract_schema import inlined
from breaker.web.docs_page import curl, page
from breaker.web.job_documents import accepted
from breaker.web.openapi import document, kinds_of
from breaker.web.openapi_parts import OUTCOMES
from breaker.web.problem_types import PROBLEMS, type_uri
from breaker.web.problems import problem
from breaker.web.promise import sentences
from breaker.web.wishes import READ

ROOT = Path(__file__).parents[2]
SECOND = 1_000_000
RATE = Rate(limit=5, period_us=SECOND, burst=5)
LIMITED = Capacity(limits=Limits(rate=RATE))
CALLER = Caller(id="crm", key_hashes=("ab" * 32,), operations=("*",))


def operation(name: str = "billing.charge", match: str = "POST /charges", **fields: Any) -> Operation:
    method, _, template = match.partition(" ")
    return Operation(
        name=name, pipeline=name.partition(".")[0], team="finance", match=Match(method=method, template=template),
        **{"downstream": Downstream(url="http://10.9.8.7:9102"), **fields},
    )  # fmt: skip


def config(*operations: Operation, callers: tuple[Caller, ...] | None = None) -> Config:
    return Config(
        version="0123456789ab", folder="config", gateway=Gateway(callers=callers),
        operations={one.name: one for one in operations},
    )  # fmt: skip


def shipped() -> Config:
    return load(ROOT / "config", {})


def validator(described: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """A schema of the document, with the rest of the document where its references look for it."""
    return jsonschema_rs.Draft202012Validator({**schema, "components": described["components"]})


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


QUEUE = Queue(start_within_ms=60_000, jobs_max=10)
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


CONTRACTS: list[dict[str, Any]] = [
    {"$ref": "#/$defs/amount", "$defs": {"amount": {"type": "integer"}}},
    {
        "$id": "urn:x:1",
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "urn:x:1#/$defs/b"}, "b": {"type": "integer"}},
    },
    {
        "$id": "https://a.example/c",
        "$ref": "d#whole",
        "$defs": {"d": {"$id": "d", "$anchor": "whole", "type": "integer"}},
    },
    {
        "$ref": "urn:x:2",
        "$defs": {
            "q": {"type": "string"},
            "inner": {"$id": "urn:x:2", "$ref": "#/$defs/q", "$defs": {"q": {"type": "integer"}}},
        },
    },
    {"$ref": "#whole", "$defs": {"a/b ~c": {"$anchor": "whole", "type": "integer"}}},
    {"anyOf": [{"type": "integer"}, {"type": "array", "minItems": 1, "items": {"$ref": "#"}}]},
    {
        "$dynamicAnchor": "node",
        "anyOf": [{"type": "integer"}, {"type": "array", "minItems": 1, "items": {"$dynamicRef": "#node"}}],
    },
    {"type": "object", "properties": {"$ref": {"type": "integer"}, "enum": {"$ref": "#/properties/$ref"}}},
    {
        "$id": "urn:x:1",
        "allOf": [{"$ref": "#/$defs/z", "$defs": {}}],
        "$defs": {"z": {"const": {"$ref": "#/$defs/z"}}},
    },
]
VALUES: list[Any] = [1, "1", [], [1], [[1]], ["1"], [["1"]], {"$ref": 1}, {"$ref": "1"}, {"enum": 1}, {"enum": "1"},
                     {"$ref": "#/$defs/z"}]  # fmt: skip


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_contract_accepts_the_same_inside_the_document(contract: dict[str, Any]) -> None:
    """A client that checks its bodies against the document is never surprised by a 422."""
    described = document(
        config(operation(contract=contract), operation("billing.z", "POST /z", contract={"$defs": {}}))
    )
    inside = validator(described, {"$ref": "#/components/schemas/billing.charge"})
    outside = jsonschema_rs.Draft202012Validator(contract)
    assert [inside.is_valid(value) for value in VALUES] == [outside.is_valid(value) for value in VALUES]
    assert len({outside.is_valid(value) for value in VALUES}) == 2, "the values do not tell contracts apart"


def test_a_reference_to_the_dialect_itself_is_left_alone() -> None:
    dialect = "https://json-schema.org/draft/2020-12/schema"
    assert inlined({"$schema": dialect, "$ref": dialect}, "#/c") == {"$ref": dialect}


PLAIN = operation()


def queued(**fields: Any) -> Operation:
    """`PLAIN` with a queue; `fields` are of that."""
    return replace(PLAIN, overflow=Overflow.QUEUE, queue=replace(QUEUE, **fields))


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


def test_the_promise_of_a_queue_says_how_long_and_how_safe() -> None:
    """A developer decides by it whether a 202 is good enough."""
    said = " ".join(sentences(queued()))
    assert "becomes a job (202), which should start within 1m." in said
    assert "10 jobs may wait" in said
    assert "open hours" not in said
    assert "expires" not in said
    assert "tried again for 1h, always with the same key" in said
    assert "Idempotency-Key is welcome, and remembered for 1d" in said
    assert "Over capacity: the call waits" not in said
    full = replace(
        queued(expire_after_ms=120_000, keep_result_ms=60_000), effects=Effects.ONCE,
        idempotency=Idempotency(is_required=True, window_ms=1_000), callback=Callback(allow=("a.example",), secrets=()),
        batch=Batch(path="/b", max_items=9),
    )  # fmt: skip
    said = " ".join(sentences(full))
    for words in (
        "did not start within 2m expires", "never repeated by a machine", "Idempotency-Key is required, and remembered for 1s",
        "kept for 1m", "Breaker-Callback tells", "9 at most",
    ):  # fmt: skip
        assert words in said


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


def test_neither_document_nor_page_tells_a_secret() -> None:
    """Callers read these: they must not learn where a downstream is, its password, or who else is a tenant."""
    one = operation(
        downstream=Downstream(
            url="http://10.9.8.7:9102", credential=Credential(header="Authorization", value="hunter2")
        ),
        capacity=Capacity(tenants={"wonka": Limits(concurrency=1)}),
        contract_file="contracts/hidden.json",
    )
    described = document(config(one, callers=(CALLER,)))
    for text in (json.dumps(described), page(described)):
        for secret in ("10.9.8.7", "hunter2", "wonka", "hidden.json", "abab"):
            assert secret not in text


def test_the_promise_says_what_happens_over_capacity() -> None:
    """A developer sets the client's timeout by it."""

    def over(one: Operation) -> list[str]:
        return [sentence for sentence in sentences(one) if sentence.startswith("Over capacity")]

    limited = replace(PLAIN, capacity=LIMITED, max_wait_ms=1_500)
    assert "waits its turn for 1500ms at most" in over(limited)[0]
    assert "refused at once" in over(replace(limited, max_wait_ms=0))[0]
    assert "refused at once" in over(replace(limited, waiting_max=0))[0]
    assert "goes through" in over(replace(limited, overflow=Overflow.ALERT))[0]
    assert over(replace(limited, capacity=replace(LIMITED, mode=Mode.SHADOW))) == []
    assert over(PLAIN) == []
    assert "Capacity: no limit." in sentences(PLAIN)
    assert "5 starts per second (5 at once)" in sentences(limited)[0]
    closed = Capacity(limits=Limits(rate=Rate(limit=0, period_us=SECOND)))
    assert sentences(replace(PLAIN, capacity=closed))[0].endswith("together: closed.")


class Anchors(HTMLParser):
    """The ids of a page, where its links lead, and whatever it would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name in ("src", "style", "onclick"):
                self.sources.append(value or "")


def test_every_problem_type_leads_to_its_section_of_the_page() -> None:
    """Whoever follows `type` at three in the morning arrives at the explanation."""
    described = document(shipped())
    anchors = Anchors(page(described))
    assert len(anchors.ids) == len(set(anchors.ids))
    for kind in Kind:
        path, _, fragment = type_uri(kind).partition("#")
        assert fragment in anchors.ids
        assert path in described["paths"]
    own = {*described["paths"], *(f"#{id_}" for id_ in anchors.ids)}
    assert set(anchors.links) <= own
    assert not anchors.sources
    assert not anchors.tags & {"script", "link", "img", "iframe"}


def test_the_page_shows_markup_as_text() -> None:
    """A title in a contract is text, whatever it looks like."""
    evil = "</style><script>alert(1)</script>`<b>`"
    text = page(
        document(config(operation(contract={"title": evil, "description": evil, "examples": [evil]})))
    )
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text


def test_the_curl_examples_send_what_the_contract_takes() -> None:
    """What is copied from the page works, also with quotes in the example."""
    example = {"say": 'it\'s $HOME `now` "quoted"'}
    described = document(
        config(operation(match="PUT /a/{the_id}", contract={"examples": [example]}), callers=(CALLER,))
    )
    command = curl("/billing/a/{the_id}", "put", described["paths"]["/billing/a/{the_id}"]["put"], described)
    words = shlex.split(command.replace("\\\n", ""))
    assert words[:5] == ["curl", "-i", "-X", "PUT", "$GATEWAY/billing/a/${THE_ID}"]
    assert json.loads(words[words.index("-d") + 1]) == example
    assert "Breaker-Key: $KEY" in words


def test_table_manual_and_kinds_name_the_same_problems() -> None:
    """A problem that is not in the manual leaves a caller alone with it."""
    manual = (ROOT / "docs" / "problems.md").read_text()
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", manual, re.DOTALL | re.MULTILINE))
    assert list(sections) == [str(kind) for kind in Kind] == [str(kind) for kind in PROBLEMS]
    schema = validator(document(shipped()), {"$ref": "#/components/schemas/Problem"})
    for kind in Kind:
        known, section = PROBLEMS[kind], sections[kind]
        found = re.search(r"```json\n(.*?)```", section, re.DOTALL)
        assert found, kind
        example = json.loads(found[1])
        assert (example["type"], example["title"], example["status"]) == (
            type_uri(kind),
            known.title,
            known.status,
        )
        assert schema.is_valid(example), kind
        assert f"**{known.status} {known.title}.**" in section
        for words in (known.meaning, known.advice):
            assert " ".join(words.split()) in " ".join(section.split()).replace("`", ""), kind


def test_the_manual_names_the_headers_and_outcomes_that_there_are() -> None:
    """Who writes a client reads docs/http.md: all of it is true, and nothing is missing."""
    manual = (ROOT / "docs" / "http.md").read_text()
    one = replace(PLAIN, tenant=TenantSource(header="Breaker-Tenant"))
    described = document(config(one, callers=(CALLER,)))
    stated = {parameter["name"] for parameter in described["components"]["parameters"].values()}
    ours = {
        *described["components"]["headers"],
        *stated,
        *READ,
        "If-None-Match",
        "Breaker-Key",
        "Breaker-Tenant",
    }
    rows = set(re.findall(r"^\| `([A-Za-z_-]+)` \|", manual, re.MULTILINE))
    outcomes = {str(outcome) for outcome in OUTCOMES}
    assert ours | outcomes <= rows
    assert set(re.findall(r"\bBreaker-[A-Z][A-Za-z-]+", manual)) <= ours
    assert {row for row in rows if row.islower()} <= outcomes | {"traceparent"}
    for path, item in described["paths"].items():
        for method in {"get", "delete"} & set(item):
            assert path.startswith("/billing") or f"`{method.upper()} {path}`" in manual
