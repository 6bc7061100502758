"""One request of a job: how it looks to the downstream, and what each end of it means."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from breaker.core.events import Result
from breaker.core.job_policy import Effects
from breaker.core.model import Credential
from breaker.core.retry import Failed, FailureClass
from breaker.gateway.attempt import Attempted, attempt, probe
from breaker.gateway.job_payload import Payload
from breaker.gateway.work import Work
from tests.gateway.leased import NAME, NOW, leased, work_with
from tests.gateway.raw_downstream import Peer, Received, Script, answering, pool_to, raw_downstream, until

HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHARGE = Payload(method="POST", target=b"/invoices/in-1/charge?dry=1", body=b"{}", request_id="req-1")


@asynccontextmanager
async def serving(
    script: Script,
    *,
    timeout_ms: int = 5_000,
    credential: Credential | None = None,
    effects: Effects = Effects.KEYED,
    probe: str | None = None,
    response_max: int | None = None,
) -> AsyncIterator[Work]:
    """An operation whose downstream plays this script."""
    async with (
        raw_downstream(script) as downstream,
        pool_to(downstream.url + "/api", response_max=response_max) as pool,
    ):
        yield work_with(pool, timeout_ms=timeout_ms, credential=credential, effects=effects, probe=probe)


async def end_of(script: Script, *, most: int = 1_000, response_max: int | None = None) -> Attempted:
    """How one attempt ends when the downstream plays this script."""
    async with serving(script, response_max=response_max) as work:
        return await attempt(work, leased(), CHARGE, now_us=NOW, most=most)


async def test_the_downstream_sees_the_call_its_key_and_the_attempt() -> None:
    """The owner of a downstream deduplicates by the key, and can tell a repetition from the first try."""
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.send(HI)

    payload = Payload(
        method="POST", target=CHARGE.target, headers=((b"Content-Type", b"a/b"), (b"Authorization", b"old")),
        body=b"{ }", request_id="req-1",
    )  # fmt: skip
    credential = Credential(header="Authorization", value="Bearer new")
    async with serving(script, credential=credential) as work:
        await attempt(work, leased("01J", key="inv 1", attempt=1), payload, now_us=NOW, most=0)
        await attempt(work, leased("01J", attempt=2), payload, now_us=NOW, most=0)
        await attempt(work, leased("01J", attempt=3), payload, now_us=NOW, most=0)
    heads = [received.head.split(b"\r\n") for received in seen]
    assert heads[0][0] == b"POST /api/invoices/in-1/charge?dry=1 HTTP/1.1"
    assert heads[0][2:] == [
        b"Content-Type: a/b", b"Authorization: Bearer new", b"Idempotency-Key: inv 1",
        b"Breaker-Job: billing.charge-invoice~01J", b"Breaker-Attempt: 1", b"X-Request-Id: req-1",
        b"Content-Length: 3",
    ]  # fmt: skip
    own_key = b"Idempotency-Key: " + NAME.encode() + b"~01J"
    assert [head[4] for head in heads[1:]] == [own_key, own_key]
    assert [head[6] for head in heads] == [b"Breaker-Attempt: %d" % n for n in (1, 2, 3)]
    assert {received.body for received in seen} == {b"{ }"}


async def test_a_whole_answer_is_handed_on() -> None:
    """The dispatcher gets everything that a result is made of."""
    done = await end_of(answering(HI))
    assert (done.status, done.headers, done.body) == (200, [(b"Content-Length", b"2")], b"hi")
    assert (done.failure, done.failed, done.result) == (None, None, Result.OK)
    assert (done.is_cut, done.says_never, done.detail) == (False, False, "")
    assert done.service_us > 0


@pytest.mark.parametrize(("most", "is_cut"), [(300_000, False), (299_999, True), (0, True)])
async def test_a_long_answer_is_read_to_its_end_and_kept_as_far_as_wanted(most: int, is_cut: bool) -> None:
    """The store is not filled by one answer, and the connection serves the next job."""
    chunk = b"186a0\r\n" + b"x" * 100_000 + b"\r\n"
    script = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk, chunk, chunk, b"0\r\n\r\n"
    )
    async with serving(script) as work:
        done = await attempt(work, leased(), CHARGE, now_us=NOW, most=most)
        await attempt(work, leased(), CHARGE, now_us=NOW, most=most)
        assert work.pool.opened == 1
    assert (done.status, len(done.body), done.is_cut, done.failure) == (200, most, is_cut, None)


async def test_a_short_answer_is_cut_as_well() -> None:
    """An operation that keeps one byte keeps one byte."""
    done = await end_of(answering(HI), most=1)
    assert (done.body, done.is_cut) == (b"h", True)


@pytest.mark.parametrize(
    ("answer", "failure", "result"),
    [
        (b"422 No", FailureClass.CALLER, Result.CLIENT_ERROR),
        (b"302 Found\r\nLocation: /x", FailureClass.CALLER, Result.OK),
        (b"500 No", FailureClass.DOWNSTREAM, Result.SERVER_ERROR),
        (b"503 No", FailureClass.DOWNSTREAM, Result.SERVER_ERROR),
        (b"503 No\r\nretry-after: 7", FailureClass.SLOW_DOWN, Result.SLOW_DOWN),
        (b"429 No", FailureClass.SLOW_DOWN, Result.SLOW_DOWN),
        (b"504 No", FailureClass.AMBIGUOUS, Result.SERVER_ERROR),
    ],
)
async def test_an_answer_is_of_the_class_that_the_table_says(
    answer: bytes, failure: FailureClass, result: Result
) -> None:
    """From the bytes on the wire to the class: nothing is lost between."""
    done = await end_of(answering(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 2\r\n\r\nno"))
    assert (done.failure, done.result, done.body) == (failure, result, b"no")
    assert done.retry_after_us == (7_000_000 if b"retry-after" in answer else None)


@pytest.mark.parametrize(("value", "is_never"), [(b"never", True), (b" Never ", True), (b"later", False)])
async def test_a_downstream_can_say_never(value: bytes, is_never: bool) -> None:
    """`Breaker-Retry: never` is heard, and nothing else is taken for it."""
    head = b"HTTP/1.1 500 No\r\nbreaker-retry: " + value + b"\r\nContent-Length: 0\r\n\r\n"
    assert (await end_of(answering(head))).says_never is is_never


async def test_a_refused_connection_is_safe_to_repeat() -> None:
    """A downstream that is being restarted costs nothing but time, also with `effects: once`."""
    async with raw_downstream(answering(HI)) as downstream:
        url = downstream.url
    async with pool_to(url) as pool:
        done = await attempt(work_with(pool), leased(), CHARGE, now_us=NOW, most=0)
    assert (done.status, done.failed, done.was_sent) == (None, Failed.CONNECT, False)
    assert (done.failure, done.result, done.service_us) == (FailureClass.DOWNSTREAM, Result.CONNECT_ERROR, 0)
    assert NAME in done.detail


@pytest.mark.parametrize(
    ("pieces", "failed"),
    [
        ((), Failed.BROKEN),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",), Failed.BROKEN),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", b"x" * 80_000), Failed.BROKEN),
        ((b"ICY 200 OK\r\n\r\n",), Failed.BROKEN),
    ],
)
async def test_an_answer_that_breaks_off_leaves_the_outcome_open(
    pieces: tuple[bytes, ...], failed: Failed
) -> None:
    """The head of a success is no success: the downstream may have died over the work."""
    done = await end_of(answering(*pieces, keep=False))
    assert (done.status, done.failed, done.was_sent) == (None, failed, True)
    assert (done.failure, done.result) == (FailureClass.AMBIGUOUS, Result.SERVER_ERROR)


async def test_an_answer_that_is_larger_than_allowed_is_not_asked_for_again() -> None:
    """`downstream.max_response` bounds a job's answer as it bounds a caller's."""
    done = await end_of(answering(HI), response_max=1)
    assert (done.failed, done.failure) == (Failed.TOO_LARGE, FailureClass.UNREADABLE)


@pytest.mark.parametrize("pieces", [(), (b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", b"x" * 80_000)])
async def test_an_attempt_ends_with_the_downstreams_timeout(pieces: tuple[bytes, ...]) -> None:
    """A downstream that hangs, before its answer or within, does not keep a slot for ever."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        await peer.gone()

    async with serving(script, timeout_ms=50) as work:
        done = await attempt(work, leased(), CHARGE, now_us=NOW, most=0)
    assert (done.failed, done.was_sent) == (Failed.TIMEOUT, True)
    assert (done.failure, done.result) == (FailureClass.AMBIGUOUS, Result.TIMEOUT)


async def test_what_could_be_misread_is_the_callers_and_is_not_sent() -> None:
    """A job that would smuggle a second request ends as dead, with the reason, and reaches nobody."""
    payload = Payload(method="POST", target=b"/a\r\nX: 1")
    async with serving(answering(HI)) as work:
        done = await attempt(work, leased(), payload, now_us=NOW, most=0)
        assert work.pool.opened == 0
    assert (done.failed, done.failure, done.was_sent) == (Failed.UNSENDABLE, FailureClass.CALLER, False)
    assert "misread" in done.detail


async def test_an_attempt_that_is_given_up_closes_its_connection() -> None:
    """A gateway that stops leaves no request behind that nobody waits for."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()
        gone.set()

    async with serving(script) as work:
        task = asyncio.create_task(attempt(work, leased(), CHARGE, now_us=NOW, most=0))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()


@pytest.mark.parametrize(("effects", "requests"), [(Effects.ONCE, 2), (Effects.KEYED, 3)])
@pytest.mark.parametrize(("method", "body"), [("PUT", b"{}"), ("DELETE", b"")])
async def test_with_effects_once_not_even_the_pool_sends_twice(
    effects: Effects, requests: int, method: str, body: bytes
) -> None:
    """A PUT that meets a closing connection is repeated by HTTP's rules, but not where once means once."""
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(HI)
        if len(seen) == 1:
            seen.append(await peer.request())  # and hangs up without a word
        else:
            await peer.gone()

    payload = Payload(method=method, target=b"/a", body=body)
    async with serving(script, effects=effects) as work:
        first = await attempt(work, leased(), payload, now_us=NOW, most=0)
        await until(lambda: work.pool.idle == 1)
        second = await attempt(work, leased(), payload, now_us=NOW, most=0)
    assert (first.failure, len(seen)) == (None, requests)
    assert {received.body for received in seen} == {body}
    assert second.failure is (FailureClass.AMBIGUOUS if effects is Effects.ONCE else None)


async def probed(status: bytes, *, keep: bool = True) -> bool | None:
    head = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n" if status else b""
    async with serving(answering(head, keep=keep), probe="/charges/{idempotency_key}") as work:
        return await probe(work, "k", now_us=NOW)


@pytest.mark.parametrize(
    ("status", "happened"),
    [(b"200 OK", True), (b"204 No Content", True), (b"404 Not Found", False), (b"409 No", None), (b"500 No", None),
     (b"302 Found", None), (b"429 No", None)],
)  # fmt: skip
async def test_a_probe_says_yes_no_or_nothing(status: bytes, happened: bool | None) -> None:
    """A job whose outcome is not known is settled only by an answer that says so."""
    assert await probed(status) is happened


async def test_a_probe_that_gets_no_answer_says_nothing() -> None:
    """A downstream that is down has not said that the charge did not happen."""
    assert await probed(b"", keep=False) is None


async def test_a_probe_asks_for_the_key_with_the_downstreams_credential() -> None:
    """A key is data: it cannot lead the probe to another path."""
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(HI)

    credential = Credential(header="Authorization", value="Bearer new")
    async with serving(script, credential=credential, probe="/charges/{idempotency_key}") as work:
        assert await probe(work, "../a b?c/é~1", now_us=NOW)
    lines = seen[0].head.split(b"\r\n")
    assert lines[0] == b"GET /api/charges/..%2Fa%20b%3Fc%2F%C3%A9~1 HTTP/1.1"
    assert lines[2:] == [b"Authorization: Bearer new"]


async def test_an_operation_without_a_probe_is_not_asked() -> None:
    """Then a person decides."""
    async with serving(answering(HI)) as work:
        assert await probe(work, "k", now_us=NOW) is None
        assert work.pool.opened == 0
