"""What a caller is told when there is no capacity, or when it may not call at all."""

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest

from tests.gateway.gateway_process import Served, Start
from tests.gateway.raw_downstream import Peer, answering, raw_downstream
from tests.web.raw_caller import Answer, ask, chunked, get, raw_caller, request

HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
NAME = '"([ !#-\\[\\]-~]*)"'  # an sf-string without escapes
ITEM = re.compile(rf"{NAME}((?:;[a-z*][a-z0-9_.*-]*=(?:-?\d{{1,15}}|{NAME}))*)")
CONTRACT = {
    "type": "object", "required": ["id"], "additionalProperties": False,
    "properties": {"id": {"type": "string"}, "lines": {"type": "array", "items": {"type": "integer"}}, "a/b": {"type": "null"}},
}  # fmt: skip


def sf_list(text: str) -> dict[str, dict[str, int | str]]:
    """An RFC 9651 list of strings with parameters, or a failure."""
    found: dict[str, dict[str, int | str]] = {}
    at = 0
    while True:
        item = ITEM.match(text, at)
        assert item, f"not a structured field at {at}: {text}"
        parts = [part.split("=") for part in item[2].split(";") if part]
        found[item[1]] = {key: value.strip('"') if '"' in value else int(value) for key, value in parts}
        at = item.end()
        if at == len(text):
            return found
        assert text.startswith(", ", at), f"not a structured field at {at}: {text}"
        at += 2


@contextlib.asynccontextmanager
async def one(
    start: Start, *, match: str = "GET /x", fields: dict[str, Any] | None = None, **gateway: Any
) -> AsyncIterator[Served]:
    """A gateway with the operation `desk.one`."""
    async with raw_downstream(answering(HI)) as downstream:
        operation = {"match": match, "max_wait": "0s", **(fields or {})}
        if "overflow" in operation:
            del operation["max_wait"]
        pipeline = {"team": "t", "downstream": {"url": downstream.url}, "operations": {"one": operation}}
        async with start({"desk": pipeline}, **gateway) as served:
            yield served


def limited(**capacity: Any) -> dict[str, Any]:
    return {"capacity": capacity}


def refused(answer: Answer, status: int, kind: str, policy: str) -> None:
    """A refusal for want of capacity has all members, and the header says the same."""
    members = answer.problem
    assert (answer.status, answer.kind, members["policy"]) == (status, kind, policy)
    assert members["operation"] == "desk.one"
    assert members["reason"] == policy
    assert members["title"]
    assert members["detail"]
    assert members["limit"]
    assert members["decision"] == answer.one("Breaker-Decision")
    assert members["request_id"] == answer.one("X-Request-Id")
    seconds = answer.one("Retry-After")
    assert re.fullmatch(r"[1-9]\d*", seconds)
    assert 0 < members["retry_after_ms"] <= int(seconds) * 1_000 < members["retry_after_ms"] + 1_000
    assert answer.one("Breaker-Outcome") == "refused"
    if answer.has("RateLimit"):
        assert all(int(seconds) >= int(room["t"]) for room in sf_list(answer.one("RateLimit")).values())


async def test_a_shared_rate_that_is_used_up_is_503(start_gateway: Start) -> None:
    """429 would tell the caller that it is its own fault."""
    async with one(start_gateway, fields=limited(rate="2/min", burst=2)) as served:
        first = await ask(served.port, get("/desk/x"))
        assert sf_list(first.one("RateLimit-Policy")) == {"rate": {"q": 2, "w": 60}}
        room = sf_list(first.one("RateLimit"))
        assert room["rate"]["r"] == 1
        assert 1 <= int(room["rate"]["t"]) <= 30
        await ask(served.port, get("/desk/x"))
        answer = await ask(served.port, get("/desk/x"))
        refused(answer, 503, "over-capacity", "rate")
        assert answer.problem["limit"] == "2 per 60 s, burst 2"
        assert 28 <= int(answer.one("Retry-After")) <= 33
        later = await ask(served.port, get("/desk/x"))
        assert int(later.one("Retry-After")) > int(answer.one("Retry-After"))
        await served.until_outcomes("desk.one", {"forwarded": 2, "refused:rate": 2})


async def test_slots_that_are_in_use_are_503(start_gateway: Start) -> None:
    """The limit stands in the answer, so that the caller's developer need not ask."""
    go_on = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.request()
        await go_on.wait()
        await peer.send(HI)

    async with raw_downstream(slow) as downstream:
        operation = {"match": "GET /x", "max_wait": "0s", **limited(concurrency=1)}
        pipeline = {"team": "t", "downstream": {"url": downstream.url}, "operations": {"one": operation}}
        async with start_gateway({"desk": pipeline}) as served, raw_caller(served.port) as first:
            await first.send(get("/desk/x"))
            await served.until_slots("desk.one", 1)
            answer = await ask(served.port, get("/desk/x"))
            refused(answer, 503, "over-capacity", "slots")
            assert answer.problem["limit"] == "1 at once"
            assert sf_list(answer.one("RateLimit-Policy")) == {"slots": {"q": 1, "qu": "concurrent-requests"}}
            go_on.set()
            assert sf_list((await first.answer()).one("RateLimit"))["slots"]["r"] == 0
            await served.until_slots("desk.one", 0)


async def test_a_tenants_own_rate_is_429_and_stops_nobody_else(start_gateway: Start) -> None:
    """One customer's month-end is not everybody's."""
    fields = {
        "tenant": {"header": "Breaker-Tenant"},
        **limited(rate="100/s", burst=100, per_tenant={"rate": "1/min"}),
    }
    async with one(start_gateway, fields=fields) as served:
        acme, globex = get("/desk/x", "Breaker-Tenant: acme"), get("/desk/x", "Breaker-Tenant: globex")
        first = await ask(served.port, acme)
        assert sf_list(first.one("RateLimit-Policy")) == {
            "rate": {"q": 100, "w": 1},
            "tenant": {"q": 1, "w": 60},
        }
        assert list(sf_list(first.one("RateLimit"))) == ["tenant"]
        answer = await ask(served.port, acme)
        refused(answer, 429, "tenant-limit", "tenant")
        assert "acme" in answer.problem["detail"]
        assert (await ask(served.port, globex)).status == 200
        await served.until_outcomes("desk.one", {"forwarded": 2, "refused:tenant": 1})


async def test_a_closed_operation_says_so(start_gateway: Start) -> None:
    """`rate: 0/s` is a person's decision, not a jam."""
    async with one(start_gateway, fields=limited(rate="0/s")) as served:
        refused_answer = await ask(served.port, get("/desk/x"))
        assert (refused_answer.status, refused_answer.problem["policy"]) == (503, "closed")
        assert int(refused_answer.one("Retry-After")) >= 1


async def test_a_call_that_waited_is_marked(start_gateway: Start) -> None:
    """A slow answer has a reason, and the caller can see it."""
    async with one(start_gateway, fields={"max_wait": "5s", **limited(rate="10/s")}) as served:
        outcomes = [(await ask(served.port, get("/desk/x"))).one("Breaker-Outcome") for _ in range(2)]
        assert outcomes == ["forwarded", "delayed"]
        await served.until_outcomes("desk.one", {"forwarded": 1, "delayed": 1})
        name = "breaker_over_capacity_total{action=delayed,operation=desk.one}"
        assert (await served.metrics())[name] == 1


async def test_an_operation_that_alerts_lets_through_and_marks(start_gateway: Start) -> None:
    """A welcome mail must never wait, and on-call must hear of it."""
    async with one(start_gateway, fields={"overflow": "alert", **limited(rate="1/min")}) as served:
        outcomes = [(await ask(served.port, get("/desk/x"))).one("Breaker-Outcome") for _ in range(2)]
        assert outcomes == ["forwarded", "over_capacity"]
        await served.until_outcomes("desk.one", {"forwarded": 1, "over_capacity:rate": 1})


async def test_a_limit_in_shadow_only_counts(start_gateway: Start) -> None:
    """New limits are rehearsed before they hold anybody up."""
    async with one(start_gateway, fields=limited(rate="1/min", mode="shadow")) as served:
        outcomes = [(await ask(served.port, get("/desk/x"))).one("Breaker-Outcome") for _ in range(3)]
        assert outcomes == ["forwarded"] * 3
        await served.until_outcomes("desk.one", {"forwarded": 3})
        assert (await served.metrics())["breaker_shadow_refusals_total{limit=rate,operation=desk.one}"] == 2


async def test_a_call_counts_as_much_as_it_says(start_gateway: Start) -> None:
    """A batch of ten is ten."""
    cost = {"constant": 1, "header": "X-Items", "max": 10}
    async with one(start_gateway, fields=limited(rate="10/min", burst=10, cost=cost)) as served:
        answer = await ask(served.port, get("/desk/x", "X-Items: 9"))
        assert sf_list(answer.one("RateLimit"))["rate"]["r"] == 1
        refused(await ask(served.port, get("/desk/x", "X-Items: 2")), 503, "over-capacity", "rate")
        assert (await ask(served.port, get("/desk/x"))).status == 200
        for wrong in ("0", "11", "-1", "1.5", "many", ""):
            answer = await ask(served.port, get("/desk/x", f"X-Items: {wrong}"))
            assert (answer.status, answer.kind) == (400, "bad-request")


async def test_a_body_that_breaks_the_contract_spends_nothing(start_gateway: Start) -> None:
    """The caller's mistake must not use up what others need, and each mistake is named by its place."""
    contract = {"contract": CONTRACT, **limited(rate="1/h")}
    async with one(start_gateway, match="POST /x", fields=contract) as served:
        body = json.dumps({"lines": [1, "two"], "a/b": 1}).encode()
        for _ in range(3):
            answer = await ask(served.port, request("POST", "/desk/x", body=body))
            assert (answer.status, answer.kind) == (422, "contract")
            pointers = sorted(found["pointer"] for found in answer.problem["violations"])
            assert pointers == ["", "/a~1b", "/lines/1"]
        for broken in (b"", b"{", b"nope", b"\xff", b'{"id": "a"} x', b"[1"):
            answer = await ask(served.port, request("POST", "/desk/x", body=broken))
            assert (answer.status, answer.kind) == (400, "bad-request")
        assert (await ask(served.port, request("POST", "/desk/x", body=b'{"id": "a"}'))).status == 200
        await served.until_outcomes(
            "desk.one", {"refused:contract": 3, "refused:bad-request": 6, "forwarded": 1}
        )


async def test_only_known_callers_call_what_they_may(start_gateway: Start) -> None:
    """401 says: say who you are; 403 says: it does not help."""
    crm, other = "crm-key", "other-key"
    callers = [
        {"id": "crm", "key_sha256": [sha256(crm.encode()).hexdigest()], "operations": ["desk.*"]},
        {"id": "other", "key_sha256": [sha256(other.encode()).hexdigest()], "operations": ["desk.two"]},
    ]
    async with raw_downstream(answering(HI)) as downstream:
        operations = {"one": {"match": "GET /x"}, "two": {"match": "GET /y"}}
        pipeline = {"team": "t", "downstream": {"url": downstream.url}, "operations": operations}
        async with start_gateway({"desk": pipeline}, callers=callers) as served:
            await only_known(served, crm, other)


async def only_known(served: Served, crm: str, other: str) -> None:
    assert (await ask(served.port, get("/desk/x", f"Breaker-Key: {crm}"))).status == 200
    for lines in ((), ("Breaker-Key: wrong",), ("Breaker-Key: ",), (f"Authorization: Bearer {crm}",)):
        answer = await ask(served.port, get("/desk/x", *lines))
        assert (answer.status, answer.kind) == (401, "unauthenticated")
        assert answer.has("WWW-Authenticate")
    answer = await ask(served.port, get("/desk/x", f"Breaker-Key: {other}"))
    assert (answer.status, answer.kind) == (403, "forbidden")
    # An unknown caller must not learn which paths there are.
    assert (await ask(served.port, get("/nothing"))).status == 401


async def test_a_tenant_counts_only_if_the_caller_may_name_it(start_gateway: Start) -> None:
    """Else a caller would escape its own limit by inventing customers."""
    keys = {name: sha256(name.encode()).hexdigest() for name in ("trusted", "plain")}
    callers = [
        {"id": "trusted", "key_sha256": [keys["trusted"]], "operations": ["*"], "may_name": ["tenant"], "max_tenants": 2},
        {"id": "plain", "key_sha256": [keys["plain"]], "operations": ["*"]},
    ]  # fmt: skip
    fields = {"tenant": {"header": "Breaker-Tenant"}, **limited(per_tenant={"rate": "1/h"})}
    async with one(start_gateway, fields=fields, callers=callers) as served:

        async def status(key: str, tenant: str) -> int:
            return (
                await ask(served.port, get("/desk/x", f"Breaker-Key: {key}", f"Breaker-Tenant: {tenant}"))
            ).status

        assert [await status("plain", name) for name in ("a", "b")] == [200, 429]
        assert [await status("trusted", name) for name in ("a", "b")] == [200, 200]
        # Two are the most; all further ones share one limit.
        assert [await status("trusted", name) for name in ("c", "d", "e")] == [200, 429, 429]


async def test_a_tenant_in_the_body_is_found(start_gateway: Start) -> None:
    """A caller that sends the customer's number anyway need not say it twice; the header goes first."""
    fields = {
        "tenant": {"header": "Breaker-Tenant", "pointer": "/customer/id"},
        **limited(per_tenant={"rate": "1/h"}),
    }
    async with one(start_gateway, match="POST /x", fields=fields) as served:

        async def status(body: Any, *lines: str) -> int:
            return (
                await ask(served.port, request("POST", "/desk/x", *lines, body=json.dumps(body).encode()))
            ).status

        acme = {"customer": {"id": "acme"}}
        assert [await status(acme), await status(acme), await status({"customer": {"id": 7}})] == [
            200,
            429,
            200,
        ]
        assert await status(acme, "Breaker-Tenant: globex") == 200
        assert [await status({}), await status([]), await status({"customer": 1})] == [200, 429, 429]


async def test_names_of_tenants_cannot_become_keys_of_ours(start_gateway: Start) -> None:
    """What a caller writes ends up in key names, and in lines of the log."""
    fields = {"tenant": {"header": "Breaker-Tenant"}, **limited(per_tenant={"rate": "1/h"})}
    strange = ("a b", "x" * 3_000, "}:{", "_other", "../..", "a:b", "\u00fc")
    async with one(start_gateway, fields=fields) as served:
        for name in strange:
            raw = get("/desk/x", f"Breaker-Tenant: {name}")
            assert [(await ask(served.port, raw)).status for _ in range(2)] == [200, 429]
        found = served.store.keys(f"brk:{served.cluster}:*rate:*")
        assert isinstance(found, list)
        keys = {key.decode() for key in found if isinstance(key, bytes)}
        assert len(keys) == len(strange)
        pattern = rf"brk:{served.cluster}:{{desk\.one}}:rate:([A-Za-z0-9._-]+)"
        assert all(re.fullmatch(pattern, key) and len(key) < 120 for key in keys)


async def test_a_body_over_its_limit_is_413(start_gateway: Start) -> None:
    """Also when its length was not told."""
    async with one(
        start_gateway, match="POST /x", fields={"contract": CONTRACT, "max_body": "1KB"}
    ) as served:
        body = b'{"id": "%b"}' % (b"x" * 2_000)
        for raw in (
            request("POST", "/desk/x", body=body),
            chunked("POST", "/desk/x", body[:900], body[900:]),
        ):
            answer = await ask(served.port, raw)
            assert (answer.status, answer.kind) == (413, "payload-too-large")
            assert answer.one("Connection") == "close"


@pytest.mark.parametrize("size", [0, 1_000])
async def test_a_body_at_its_limit_passes(start_gateway: Start, size: int) -> None:
    """The limit is the largest that is taken."""
    async with one(start_gateway, match="POST /x", fields={"max_body": "1KB"}) as served:
        assert (await ask(served.port, request("POST", "/desk/x", body=b"x" * size))).status == 200


@pytest.mark.parametrize("how", ["length", "chunked"])
async def test_a_streamed_body_over_its_limit_is_413(start_gateway: Start, how: str) -> None:
    """Nobody looks into it, but its size was stated."""
    async with one(start_gateway, match="POST /x", fields={"max_body": "1KB"}) as served:
        body = b"x" * 1_001
        raw = request("POST", "/desk/x", body=body) if how == "length" else chunked("POST", "/desk/x", body)
        answer = await ask(served.port, raw)
        assert (answer.status, answer.kind) == (413, "payload-too-large")


async def test_a_body_that_says_that_it_is_too_large_spends_nothing(start_gateway: Start) -> None:
    """It can be refused by its head."""
    fields = {"max_body": "1KB", **limited(rate="1/h")}
    async with one(start_gateway, match="POST /x", fields=fields) as served:
        async with raw_caller(served.port) as caller:
            await caller.send(request("POST", "/desk/x", "Content-Length: 100000"))
            answer = await caller.answer()
            assert (answer.status, answer.one("Breaker-Outcome")) == (413, "refused")
        assert (await ask(served.port, request("POST", "/desk/x", body=b"x"))).status == 200


async def test_a_gateway_that_drains_ends_connections_with_their_answers(start_gateway_child: Start) -> None:
    """Callers that keep connections must come to another replica without a failed call."""
    drain = {"delay": "1s", "timeout": "5s"}
    async with (
        one(start_gateway_child, drain=drain) as served,
        raw_caller(served.port) as caller,
        raw_caller(served.port) as idle,
    ):
        assert not (await caller.ask(get("/desk/x"))).has("Connection")
        await idle.ask(get("/desk/x"))
        os.kill(served.pid, signal.SIGTERM)
        async with asyncio.timeout(5):
            while (await ask(served.port, get("/readyz"))).status == 200:
                await asyncio.sleep(0.005)
        answer = await caller.ask(get("/desk/x"))
        assert (answer.status, answer.one("Connection")) == (200, "close")
        assert await caller.ended() == b""
        assert await idle.ended() == b""
