"""What is stored of calls and answers: nothing is changed on the way, and nothing that must not be is kept."""

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from breaker.gateway.job_payload import (
    BEGINNING,
    HEADERS_MAX,
    BrokenPayloadError,
    JobResult,
    Kept,
    Payload,
    batch_line,
    fingerprint,
    job_result,
    kept_headers,
)

HEADERS = st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4).map(tuple)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ANY_BYTE = bytes(range(256))


@given(method=TEXTS, target=st.binary(max_size=20), headers=HEADERS, body=st.binary(max_size=20), id_=TEXTS)
@example(method="POST", target=ANY_BYTE, headers=((ANY_BYTE, ANY_BYTE),), body=b"\n" + ANY_BYTE, id_="\n")
def test_a_payload_comes_back_byte_for_byte(
    method: str, target: bytes, headers: tuple[tuple[bytes, bytes], ...], body: bytes, id_: str
) -> None:
    """The downstream gets what the caller sent, a day later too."""
    payload = Payload(method=method, target=target, headers=headers, body=body, request_id=id_)
    assert Payload.decode(payload.encode()) == payload


@given(
    status=st.integers(0, 599),
    headers=HEADERS,
    body=st.binary(max_size=20),
    kept=st.sampled_from(Kept),
    text=TEXTS,
)
def test_a_result_comes_back_byte_for_byte(
    status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes, kept: Kept, text: str
) -> None:
    """A caller that fetches a result gets the downstream's own answer."""
    result = JobResult(status=status, headers=headers, body=body, kept=kept, reason=text, detail=text)
    assert JobResult.decode(result.encode()) == result


def test_a_stored_call_is_hardly_larger_than_its_parts() -> None:
    """The owner of the store: a million jobs waiting must fit into memory."""
    headers = ((b"Content-Type", b"application/json"), (b"traceparent", b"0" * 55))
    payload = Payload(
        method="POST", target=b"/invoices/in-1/charge", headers=headers, body=b"x" * 200, request_id="r" * 26
    )
    parts = 4 + 21 + 12 + 16 + 11 + 55 + 200 + 26
    assert len(payload.encode()) <= parts + 40


@pytest.mark.parametrize(
    "stored",
    [
        b"", b"[1]", b"no json\n", b"{}\n", b'[2,"POST","/","",[]]\nbody', b'[1,"POST","/",""]\nbody',
        b'[1,"POST","/","",[]]',
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_so(stored: bytes) -> None:
    """A job that a newer version wrote ends visibly, instead of being sent half understood."""
    with pytest.raises(BrokenPayloadError):
        Payload.decode(stored)
    with pytest.raises(BrokenPayloadError):
        JobResult.decode(stored)


def test_a_job_keeps_the_headers_that_explain_its_body_and_its_trace() -> None:
    """A downstream reads the body as the caller meant it, and the trace goes on."""
    usual = (
        (b"Content-Type", b"application/json"), (b"content-encoding", b"gzip"), (b"Accept", b"a/b"),
        (b"accept-language", b"de"), (b"TraceParent", b"00-1"), (b"tracestate", b"a=1"), (b"tracestate", b"b=2"),
    )  # fmt: skip
    others = ((b"User-Agent", b"curl"), (b"Accept-Encoding", b"gzip"), (b"X-Own", b"1"), (b"X-Own", b"2"))
    assert kept_headers(usual + others, ()) == usual
    assert kept_headers(usual + others, ("x-own",)) == usual + others[2:]


def test_a_job_keeps_no_secret_that_it_was_not_told_to_keep() -> None:
    """A caller: its key to us is never stored, its key to the downstream only where the operation says so."""
    sent = (
        (b"Breaker-Key", b"s"), (b"BREAKER-KEY", b"s"), (b"Breaker-Tenant", b"t"), (b"Cookie", b"c"),
        (b"Authorization", b"a"), (b"Connection", b"X-Own, close"), (b"X-Own", b"o"), (b"Keep-Alive", b"1"),
        (b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"3"), (b"Host", b"h"),
        (b"Idempotency-Key", b"i"), (b"X-Request-Id", b"r"),
    )  # fmt: skip
    assert kept_headers(sent, ()) == ()
    assert kept_headers(sent, ("Authorization",)) == ((b"Authorization", b"a"),)
    greedy = [name.decode() for name, _ in sent]
    assert kept_headers(sent, greedy) == ((b"Cookie", b"c"), (b"Authorization", b"a"))


def test_a_result_keeps_what_describes_the_answer() -> None:
    """A caller that fetches a result gets no cookie and no framing of a connection that is long gone."""
    headers = [
        (b"Content-Type", b"text/plain"), (b"Set-Cookie", b"c"), (b"Content-Length", b"2"), (b"Location", b"/x"),
        (b"Connection", b"X-Hop"), (b"X-Hop", b"1"), (b"Transfer-Encoding", b"chunked"), (b"ETag", b"e"),
    ]  # fmt: skip
    result = job_result(status=201, headers=headers, body=b"hi", most=2)
    assert result.headers == ((b"Content-Type", b"text/plain"), (b"Location", b"/x"), (b"ETag", b"e"))
    assert (result.status, result.body, result.kept) == (201, b"hi", Kept.WHOLE)


def test_headers_of_a_result_are_bounded() -> None:
    """The owner of the store: a downstream that answers with 60 KB of headers does not fill it."""
    large = (b"X-Large", b"x" * (HEADERS_MAX - 7 - 6))
    result = job_result(status=200, headers=[large, (b"A", b"12345"), (b"B", b"1")], most=0)
    assert result.headers == (large, (b"A", b"12345"))
    result = job_result(status=200, headers=[large, (b"A", b"123456"), (b"B", b"1")], most=0)
    assert result.headers == (large, (b"B", b"1"))


@pytest.mark.parametrize(
    ("size", "is_cut", "kept", "left"),
    [
        (9_000, False, Kept.WHOLE, 9_000),
        (9_001, False, Kept.CUT, BEGINNING),
        (9_000, True, Kept.CUT, BEGINNING),
        (3, True, Kept.CUT, 3),
    ],
)
def test_an_answer_is_kept_whole_or_only_its_beginning(
    size: int, is_cut: bool, kept: Kept, left: int
) -> None:
    """Half an answer must not look like one; its beginning is for the person who finds out why."""
    result = job_result(status=200, body=b"x" * size, is_cut=is_cut, most=9_000)
    assert (result.kept, len(result.body)) == (kept, left)


def test_a_result_without_its_body_still_says_how_it_ended() -> None:
    """A store that is short of memory costs a caller the body, not the end of its job."""
    result = job_result(status=422, body=b"no", most=100, reason="caller", detail="closed")
    short = result.without_body()
    assert (short.body, short.kept) == (b"", Kept.DROPPED)
    assert (short.status, short.reason, short.detail) == (422, "caller", "closed")


def test_a_message_that_is_no_text_can_be_stored() -> None:
    """A strange byte in an error does not keep a job from its end."""
    result = job_result(status=None, most=0, detail="\udcff" * 600)
    assert JobResult.decode(result.encode()) == result
    assert result.status == 0
    assert result.detail == "\\udcff" * 500


def test_a_fingerprint_tells_requests_apart_and_nothing_else() -> None:
    """A caller that uses a key twice for two things is told; one that repeats itself gets the same job."""
    same = fingerprint("POST", b"/a", b"b")
    others = {
        fingerprint(*parts)
        for parts in [
            ("PUT", b"/a", b"b"), ("POST", b"/ab", b""), ("POST", b"/", b"ab"), ("POST", b"/a", b"B"),
            ("POST", b"/a", b""), ("POST/", b"a", b"b"), ("POST", b"/a1:b", b""),
        ]
    }  # fmt: skip
    assert same == fingerprint("POST", b"/a", b"b")
    assert len(others | {same}) == 8
    assert len(same) == 32
    assert int(same, 16) >= 0


def test_jobs_share_a_line_when_tenant_and_value_are_the_same() -> None:
    """Billing: euros are not charged together with dollars, whatever order a caller writes its members in."""
    values = ["EUR", "USD", 1, "1", 1.5, True, None, [], {}, {"a": 1, "b": 2}, {"a": 1}]
    lines = [batch_line("acme", value) for value in values]
    assert len(set(lines)) == len(lines)
    assert batch_line("acme", {"b": 2, "a": 1}) == batch_line("acme", {"a": 1, "b": 2})
    assert batch_line("acme", "EUR") != batch_line("globex", "EUR")
    tenant, _, digest = batch_line("acme", "EUR").partition("~")
    assert (tenant, len(digest), set(digest) <= set("0123456789abcdef")) == ("acme", 12, True)


def test_a_value_that_is_nested_too_deep_counts_as_none() -> None:
    """A caller cannot break the acceptance of jobs with a strange body."""
    deep = orjson.loads(b"[" * 1_000 + b"]" * 1_000)
    assert batch_line("acme", deep) == batch_line("acme", None)
