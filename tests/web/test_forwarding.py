"""What reaches the downstream, and what comes back: unchanged, but for what must change."""

import pytest

from tests.gateway.gateway_process import Start
from tests.gateway.raw_downstream import Peer, answering, raw_downstream
from tests.web.forwarding_scene import HI, METHODS, Seen, gateway_to, pipeline
from tests.web.raw_caller import ask, get, raw_caller, request


@pytest.mark.parametrize("method", [*METHODS, "HEAD"])
async def test_every_method_passes_with_its_body_and_answer(start_gateway: Start, method: str) -> None:
    """A caller changes its base URL and nothing else."""
    seen = Seen()
    body = None if method in ("GET", "HEAD", "OPTIONS") else b"\x00\xffbytes\r\n\r\n"
    is_head = method == "HEAD"
    answer_bytes = HI[:-2] if is_head else HI
    async with gateway_to(start_gateway, seen.answering(answer_bytes)) as served:
        answer = await ask(served.port, request(method, "/desk/thing", body=body), is_head=is_head)
        assert (answer.status, answer.reason, answer.body) == (200, "OK", b"" if is_head else b"hi")
        assert answer.one("Content-Length") == "2"
        assert answer.one("Breaker-Outcome") == "forwarded"
        assert seen.line == f"{method} /thing HTTP/1.1"
        assert seen.last.body == (body or b"")


async def test_a_get_with_a_body_keeps_it(start_gateway: Start) -> None:
    """Some search APIs are asked so."""
    seen = Seen()
    async with gateway_to(start_gateway, seen.answering(HI)) as served:
        await ask(served.port, request("GET", "/desk/search", body=b"{}"))
        assert seen.last.body == b"{}"


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb",
        "/a%20b",
        "/%E2%82%AC",
        "/a+b;v=1,2:3@!$&'()*~-_.",
        "/%zz",
        "/a?x=1&x=2",
        "/a?&&",
        "/a?a;b;=c",
        "/a?q=%00%0d%0a",
        "/a?u=http://x/y?z",
        "/a?x=/../..",
        "/a?x='\"<>[]{}|\\^`",
        "/a?",
    ],
)
async def test_path_and_query_pass_byte_for_byte(start_gateway: Start, target: str) -> None:
    """Signatures of requests are made over these very bytes."""
    seen = Seen()
    async with gateway_to(start_gateway, seen.answering(HI)) as served:
        assert (await ask(served.port, get(f"/desk{target}"))).status == 200
        sent = f"GET {target} HTTP/1.1".encode("utf-8", "surrogateescape")
        assert seen.line.encode("latin-1") == sent


@pytest.mark.parametrize(
    "target", ["/desk/../etc", "/desk/%2e%2E", "/desk/a%2f..%2fb", "/desk/.", "/desk/%00"]
)
async def test_a_path_that_climbs_belongs_to_no_operation(start_gateway: Start, target: str) -> None:
    """What the downstream would make of it we cannot know, so that it could reach what nobody allowed."""
    seen = Seen()
    async with gateway_to(start_gateway, seen.answering(HI)) as served:
        answer = await ask(served.port, get(target))
        assert (answer.status, answer.kind) == (404, "unknown-operation")
        assert seen.requests == []


async def test_repeated_headers_keep_their_order_both_ways(start_gateway: Start) -> None:
    """`Link`, `Via` and the like may stand many times, and the order means something."""
    seen = Seen()
    many = (
        b"HTTP/1.1 200 OK\r\nLink: </1>\r\nVary: a\r\nLink: </2>\r\nlink: </3>\r\nContent-Length: 0\r\n\r\n"
    )
    async with gateway_to(start_gateway, seen.answering(many)) as served:
        answer = await ask(served.port, get("/desk/x", "X-Tag: one", "Accept: a", "x-tag: two", "X-TAG: "))
        assert seen.headers("x-tag") == ["one", "two", ""]
        assert answer.all("link") == ["</1>", "</2>", "</3>"]
        assert [name for name, _ in answer.headers][:4] == ["Link", "Vary", "Link", "link"]


async def test_header_bytes_beyond_ascii_pass(start_gateway: Start) -> None:
    """Old systems send Latin-1, new ones UTF-8; neither is ours to mend."""
    seen = Seen()
    async with gateway_to(
        start_gateway, seen.answering(HI.replace(b"\r\n\r\n", b"\r\nX-B: \xe4\xc3\xa4\r\n\r\n"))
    ) as served:
        raw = get("/desk/x", "X-A: @").replace(b"@", b"\xfc\xc3\xbc")
        answer = await ask(served.port, raw)
        assert seen.headers("x-a") == ["\xfc\xc3\xbc"]
        assert answer.one("x-b") == "\xe4\xc3\xa4"


@pytest.mark.parametrize("allowed", [False, True])
async def test_cookies_pass_only_if_allowed(start_gateway: Start, *, allowed: bool) -> None:
    """A session of one caller must not leak into a shared connection unless somebody wants that."""
    seen = Seen()
    crumbs = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\nSet-Cookie: b=2\r\n\r\n"
    async with gateway_to(start_gateway, seen.answering(crumbs), cookies=allowed) as served:
        answer = await ask(served.port, get("/desk/x", "Cookie: c=3"))
        assert seen.headers("cookie") == (["c=3"] if allowed else [])
        assert answer.all("set-cookie") == (["a=1", "b=2"] if allowed else [])


@pytest.mark.parametrize(
    ("status", "reason"),
    [(201, "Made"), (204, "No Content"), (207, "Multi-Status"), (304, "Not Modified"), (302, ""), (404, "Gone Fishing"),
     (418, "I'm a teapot"), (429, "Slow"), (503, "Busy"), (599, "Odd")],
)  # fmt: skip
async def test_status_and_reason_are_the_downstreams(start_gateway: Start, status: int, reason: str) -> None:
    """A refusal of the downstream is its answer, not our failure."""
    body = b"" if status in (204, 304) else b"why"
    length = b"" if status in (204, 304) else b"Content-Length: 3\r\n"
    said = b"HTTP/1.1 %d %b\r\nETag: x\r\n%b\r\n%b" % (status, reason.encode(), length, body)
    async with gateway_to(start_gateway, answering(said)) as served, raw_caller(served.port) as caller:
        for _ in range(2):  # the connection is still in step
            answer = await caller.ask(get("/desk/x"))
            assert (answer.status, answer.reason, answer.body) == (status, reason, body)
            assert answer.one("Breaker-Outcome") == "forwarded"
            assert answer.one("ETag") == "x"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_body_has_no_framing_that_promises_one(
    start_gateway: Start, status: int
) -> None:
    """A caller would wait for bytes that never come. A 304 may say how long its 200 would have been."""
    said = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, 0 if status == 204 else 7)
    async with gateway_to(start_gateway, answering(said)) as served, raw_caller(served.port) as caller:
        for _ in range(2):
            answer = await caller.ask(get("/desk/x"))
            assert answer.all("content-length") == (["7"] if status == 304 else [])
            assert not answer.has("transfer-encoding")


async def test_interim_answers_and_trailers_stay_behind(start_gateway: Start) -> None:
    """Callers that never asked for them would take them for the answer."""
    said = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n"
    )
    async with gateway_to(start_gateway, answering(said)) as served, raw_caller(served.port) as caller:
        for _ in range(2):
            answer = await caller.ask(get("/desk/x"))
            assert (answer.status, answer.body) == (200, b"hi")
            assert not answer.has("Link")
            assert not answer.has("Trailer")
            assert not answer.has("X-Sum")


async def test_hop_by_hop_headers_and_those_that_connection_names_stay_behind(start_gateway: Start) -> None:
    """They are about one connection, and each side has its own."""
    seen = Seen()
    said = (
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Upgrade: h2c\r\nProxy-Authenticate: Basic\r\nX-Stays: 1\r\nContent-Length: 2\r\n\r\nhi"
    )
    sent = (
        "Connection: x-mine , X-Other", "X-Mine: 1", "X-Other: 2", "Keep-Alive: timeout=9", "TE: trailers",
        "Trailer: X", "Proxy-Authorization: Basic x", "Proxy-Connection: keep-alive", "X-Stays: 2",
    )  # fmt: skip
    async with gateway_to(start_gateway, seen.answering(said)) as served:
        answer = await ask(served.port, get("/desk/x", *sent))
        for line in sent[:-1]:
            assert seen.headers(line.partition(":")[0]) == []
        assert seen.headers("x-stays") == ["2"]
        for name in ("x-hop", "keep-alive", "upgrade", "proxy-authenticate"):
            assert not answer.has(name)
        assert answer.one("x-stays") == "1"


async def test_who_called_is_said_by_us_alone(start_gateway: Start) -> None:
    """Downstreams grant rights by these headers, so that a caller must not write them."""
    seen = Seen()
    forged = (
        "Forwarded: for=10.0.0.1", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https",
        "Breaker-Key: secret",
    )  # fmt: skip
    async with gateway_to(start_gateway, seen.answering(HI)) as served:
        await ask(served.port, get("/desk/x", *forged))
        assert seen.headers("forwarded") == ['for=127.0.0.1;host="gateway.test";proto=http']
        assert seen.headers("x-forwarded-for") == ["127.0.0.1"]
        assert seen.headers("x-forwarded-host") == ["gateway.test"]
        assert seen.headers("x-forwarded-proto") == ["http"]
        assert seen.headers("breaker-key") == []
        (host,) = seen.headers("host")
        assert host.startswith("127.0.0.1:")


async def test_no_other_field_of_the_family_passes(start_gateway: Start) -> None:
    """Frameworks make links, and some grant rights, by these too."""
    seen = Seen()
    async with gateway_to(start_gateway, seen.answering(HI)) as served:
        forged = ("X-Forwarded-Port: 1", "X-Forwarded-Prefix: /admin", "x-forwarded-user: root")
        await ask(served.port, get("/desk/x", *forged))
        assert [seen.headers(line.partition(":")[0]) for line in forged] == [[], [], []]


@pytest.mark.parametrize(
    "host", ['a";for="10.0.0.1', "a, for=10.0.0.1", "a b", "user@host", "a/b", "a\\", "[::1"]
)
async def test_a_host_that_is_none_is_refused(start_gateway: Start, host: str) -> None:
    """It stands in `Forwarded`, where a quote would let a caller write the rest of the line."""
    seen = Seen()
    async with gateway_to(start_gateway, seen.answering(HI)) as served, raw_caller(served.port) as caller:
        answer = await caller.ask(get("/desk/x").replace(b"gateway.test", host.encode()))
        assert (answer.status, answer.kind) == (400, "bad-request")
        assert await caller.ended() == b""
        assert seen.requests == []


@pytest.mark.parametrize("host", ["a", "A-1.example:8080", "[::1]:80", "10.0.0.1", "a_b", "xn--bcher-kva"])
async def test_a_proper_host_is_told_to_the_downstream(start_gateway: Start, host: str) -> None:
    """It makes absolute links from it."""
    seen = Seen()
    async with gateway_to(start_gateway, seen.answering(HI)) as served:
        await ask(served.port, get("/desk/x").replace(b"gateway.test", host.encode()))
        assert seen.headers("x-forwarded-host") == [host]


async def test_authorization_passes_unless_the_downstream_has_credentials(start_gateway: Start) -> None:
    """It is between caller and downstream; or the gateway's own, and then nobody else's goes beside it."""
    seen = Seen()
    own = {
        "match": "GET /own/{name}",
        "downstream": {"credentials": {"header": "Authorization", "file": "../secrets/desk"}},
    }
    async with (
        raw_downstream(seen.answering(HI)) as downstream,
        start_gateway(pipeline(downstream, own=own), secrets={"desk": "Bearer ours\n"}) as served,
    ):
        await ask(served.port, get("/desk/x", "Authorization: Bearer theirs"))
        assert seen.headers("authorization") == ["Bearer theirs"]
        await ask(served.port, get("/desk/own/x", "authorization: Bearer theirs", "AUTHORIZATION: x"))
        assert seen.headers("authorization") == ["Bearer ours"]


async def test_a_redirect_leads_back_through_the_gateway(start_gateway: Start) -> None:
    """A caller that follows it must not go around the limits, nor end at a path that is not there."""
    places: dict[bytes, bytes] = {}

    async def script(peer: Peer) -> None:
        while True:
            name = (await peer.request()).head.split(b" ")[1].strip(b"/")
            await peer.send(b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % places[name])

    async with raw_downstream(script) as downstream, start_gateway(pipeline(downstream)) as served:
        url = downstream.url.encode()
        cases = {
            b"/t/1?a=b": "/desk/t/1?a=b", url + b"/t/2": "/desk/t/2", b"/": "/desk/",
            b"https://elsewhere/t/3": "https://elsewhere/t/3", b"//elsewhere/t": "//elsewhere/t", b"t/4": "t/4",
            url + b"0/t": f"{downstream.url}0/t",
        }  # fmt: skip
        for number, (given, wanted) in enumerate(cases.items()):
            places[b"%d" % number] = given
            answer = await ask(served.port, get(f"/desk/{number}"))
            assert (answer.status, answer.one("Location")) == (302, wanted)


async def test_a_redirect_below_the_path_of_the_url_leads_back(start_gateway: Start) -> None:
    """`url: http://host/v2` puts /v2 before every path, so that it goes away again on the way back."""
    said = b"HTTP/1.1 201 Made\r\nLocation: /v2/t/1\r\nContent-Location: /t/1\r\nContent-Length: 0\r\n\r\n"
    seen = Seen()
    async with raw_downstream(seen.answering(said)) as downstream:
        config = pipeline(downstream)
        config["desk"]["downstream"]["url"] += "/v2"
        async with start_gateway(config) as served:
            answer = await ask(served.port, request("POST", "/desk/t", body=b""))
            assert seen.line == "POST /v2/t HTTP/1.1"
            assert answer.one("Location") == "/desk/t/1"
            assert answer.one("Content-Location") == "/t/1"  # not below the url: no path of ours leads there


async def test_what_is_left_of_the_deadline_is_passed_on(start_gateway: Start) -> None:
    """A downstream that knows it can give up in time."""
    seen = Seen()
    async with gateway_to(start_gateway, seen.answering(HI)) as served:
        for sent, passed in (("7", "6"), ("2.5", "2"), ("0.9", "1"), ("999", "10")):
            await ask(served.port, get("/desk/x", f"Request-Timeout: {sent}"))
            assert int(seen.headers("request-timeout")[0]) in (int(passed), int(passed) - 1 or 1)
        await ask(served.port, get("/desk/x"))
        assert seen.headers("request-timeout") == []


@pytest.mark.parametrize("value", ["soon", "-1", "1e3", "", "1234567", "1, 2"])
async def test_a_deadline_that_cannot_be_read_is_refused(start_gateway: Start, value: str) -> None:
    """To guess would be to break a promise."""
    async with gateway_to(start_gateway, answering(HI)) as served:
        answer = await ask(served.port, get("/desk/x", f"Request-Timeout: {value}"))
        assert (answer.status, answer.kind) == (400, "bad-request")


async def test_a_request_keeps_its_id_or_gets_one(start_gateway: Start) -> None:
    """One id in the caller's log, in ours and in the downstream's."""
    seen = Seen()
    async with gateway_to(start_gateway, seen.answering(HI)) as served:
        answer = await ask(served.port, get("/desk/x", "X-Request-Id: crm-00000001"))
        assert seen.headers("x-request-id") == answer.all("x-request-id") == ["crm-00000001"]
        made = set()
        for bad in ("short", "x" * 65, "has space in it", 'quote"quote"'):
            answer = await ask(served.port, get("/desk/x", f"X-Request-Id: {bad}"))
            assert seen.headers("x-request-id") == answer.all("x-request-id") != [bad]
            made.add(answer.one("x-request-id"))
        assert len(made) == 4


async def test_trace_context_passes_unchanged(start_gateway: Start) -> None:
    """We make no spans, so that the caller's is the downstream's parent."""
    seen = Seen()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with gateway_to(start_gateway, seen.answering(HI)) as served:
        await ask(served.port, get("/desk/x", f"traceparent: {trace}", "tracestate: a=b"))
        assert (seen.headers("traceparent"), seen.headers("tracestate")) == ([trace], ["a=b"])


async def test_a_template_decides_the_path_downstream(start_gateway: Start) -> None:
    """Callers keep their path when the downstream's moves; values go over as they were sent."""
    seen = Seen()
    move = {"match": "GET /t/{id}/of/{who}", "downstream": {"path": "/v2/{who}/tickets/{id}"}}
    async with gateway_to(start_gateway, seen.answering(HI), operations={"move": move}) as served:
        await ask(served.port, get("/desk/t/a%2Fb/of/%7Bid%7D?x=1"))
        assert seen.line == "GET /v2/%7Bid%7D/tickets/a%2Fb?x=1 HTTP/1.1"
