"""Several jobs in one request: what is sent, what each item's end is, and how a bad item is found."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from breaker.core.events import Result
from breaker.core.job_policy import Batch
from breaker.core.jobs import LeasedJob
from breaker.core.model import Credential
from breaker.core.retry import Failed, FailureClass
from breaker.demo.downstreams.billing import BillingApi
from breaker.gateway import batches
from breaker.gateway.attempt import Attempted
from breaker.gateway.batches import send_batch
from breaker.gateway.job_payload import Payload
from breaker.gateway.work import Work
from tests.gateway.leased import NAME, NOW, leased, work_with
from tests.gateway.raw_downstream import Peer, Received, Script, answering, pool_to, raw_downstream

BATCH = Batch(path="/invoices/charge-batch")
Job = tuple[LeasedJob, Payload]


def charge(number: int, body: bytes = b"{}", target: bytes | None = None) -> Job:
    """A leased job that charges `in-<number>` under the key `k<number>`."""
    target = target or b"/invoices/in-%d/charge" % number
    return leased(f"J{number}", key=f"k{number}"), Payload(method="POST", target=target, body=body)


def charges(count: int) -> list[Job]:
    return [charge(number) for number in range(count)]


def reply(status: int, value: Any, headers: bytes = b"") -> bytes:
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)


def paid(keys: list[str]) -> bytes:
    """What was agreed on: every item is paid, and says whose it is."""
    return reply(200, {"results": [{"status": 200, "body": {"paid": key}} for key in keys]})


class Biller:
    """A downstream that answers each batch by its keys; it keeps the keys of every request."""

    def __init__(self, answer: Callable[[list[str]], bytes]) -> None:
        self.asked: list[list[str]] = []
        self._answer = answer

    async def __call__(self, peer: Peer) -> None:
        while True:
            items = orjson.loads((await peer.request()).body)["items"]
            keys = [item["idempotency_key"] for item in items]
            self.asked.append(keys)
            await peer.send(self._answer(keys))


def refusing(*bad: str) -> Callable[[list[str]], bytes]:
    """Refuses every batch in which one of these keys is."""
    return lambda keys: reply(422, {"error": "bad"}) if set(bad) & set(keys) else paid(keys)


@asynccontextmanager
async def serving(
    script: Script, *, timeout_ms: int = 5_000, credential: Credential | None = None, path: str | None = None
) -> AsyncIterator[Work]:
    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        yield work_with(pool, timeout_ms=timeout_ms, credential=credential, path=path)


async def ends_of(script: Script, jobs: list[Job], *, most: int = 1_000) -> list[Attempted]:
    """How the jobs end; all of them must."""
    async with serving(script) as work:
        ends = await send_batch(work, BATCH, jobs, now_us=NOW, most=most)
    assert None not in ends
    return [end for end in ends if end]


def classes(ends: list[Attempted]) -> list[FailureClass | None]:
    return [end.failure for end in ends]


async def test_a_batch_is_one_request_with_every_body_as_it_was_sent() -> None:
    """Amounts are not re-encoded: 1.10 stays 1.10, and a number beyond 64 bits keeps its digits."""
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(paid(["a", "b", "c"]))

    jobs = [
        charge(
            1,
            b'{"amount": 1.10,\n "n": 123456789012345678901234567890}',
            b"/invoices/in%201%2F%C3%A9/charge?x=1",
        ),
        (leased("J2"), Payload(method="POST", target=b"/invoices/%ff/charge")),
        charge(3, b'"\xc3\xa9 \\" ]"'),
    ]
    async with serving(script, credential=Credential(header="Authorization", value="b")) as work:
        ends = await send_batch(work, BATCH, jobs, now_us=NOW, most=100)
    assert [end and end.failure for end in ends] == [None, None, None]
    assert len(seen) == 1
    assert seen[0].body == (
        b'{"items":[{"idempotency_key":"k1","params":{"invoice_id":"in 1/\xc3\xa9"},'
        b'"body":{"amount": 1.10,\n "n": 123456789012345678901234567890}},'
        b'{"idempotency_key":"' + NAME.encode() + b'~J2","params":{"invoice_id":"%FF"},"body":null},'
        b'{"idempotency_key":"k3","params":{"invoice_id":"in-3"},"body":"\xc3\xa9 \\" ]"}]}'
    )
    lines = seen[0].head.split(b"\r\n")
    assert lines[0] == b"POST /invoices/charge-batch HTTP/1.1"
    assert lines[2:5] == [
        b"Content-Type: application/json", b"Authorization: b", b"X-Request-Id: REPLICA1.00000001.0-3"
    ]  # fmt: skip


async def test_parameters_are_read_by_the_path_that_jobs_take_downstream() -> None:
    """An operation whose downstream has other paths than its callers."""
    biller = Biller(paid)
    async with serving(biller, path="/v2/{invoice_id}") as work:
        jobs = [charge(1, target=b"/v2/in-1"), charge(2)]
        ends = await send_batch(work, BATCH, jobs, now_us=NOW, most=100)
    assert [end and end.failure for end in ends] == [None, FailureClass.CALLER]
    assert biller.asked == [["k1"]]


@pytest.mark.parametrize(
    "bad",
    [
        charge(1, b'1},{"idempotency_key":"other","params":{},"body":2'),
        charge(1, b"amount=1"),
        charge(1, b"\x1f\x8b\x08"),
        charge(1, b'{"a": NaN}'),
        charge(1, target=b"/invoices/in-1/refund"),
        charge(1, target=b"/invoices//charge"),
        charge(1, target=b"/invoices/in-1/charge/2"),
    ],
)
async def test_a_job_that_is_no_item_fails_alone_and_is_not_sent(bad: Job) -> None:
    """Nobody can smuggle a charge of somebody else into a batch, or spoil it."""
    biller = Biller(paid)
    ends = await ends_of(biller, [charge(0), bad, charge(2)])
    assert classes(ends) == [None, FailureClass.CALLER, None]
    assert (ends[1].was_sent, ends[1].failed) == (False, Failed.UNSENDABLE)
    assert ends[1].detail.startswith(("it cannot go into a batch: ", "its target "))
    assert biller.asked == [["k0", "k2"]]


async def test_without_an_item_nothing_is_sent() -> None:
    """A batch of nothing but bad items costs the downstream no request."""
    biller = Biller(paid)
    ends = await ends_of(biller, [charge(1, b"no json")])
    assert classes(ends) == [FailureClass.CALLER]
    assert biller.asked == []


async def test_each_item_has_the_end_that_its_own_result_says() -> None:
    """One declined card is one dead job; a downstream that is busy for one customer delays only that one."""
    results = [
        {"status": 201, "body": {"id": "ch-1"}}, {"status": 402, "body": "declined"}, {"status": 429, "body": None},
        {"status": 500}, {"status": 504, "body": 1}, {"status": 200, "body": [1.5, "é"], "more": 1},
    ]  # fmt: skip
    ends = await ends_of(answering(reply(207, {"results": results})), charges(6))
    assert classes(ends) == [
        None, FailureClass.CALLER, FailureClass.SLOW_DOWN, FailureClass.DOWNSTREAM, FailureClass.AMBIGUOUS, None,
    ]  # fmt: skip
    assert [end.status for end in ends] == [201, 402, 429, 500, 504, 200]
    assert [end.body for end in ends] == [
        b'{"id":"ch-1"}', b'"declined"', b"null", b"", b"1", '[1.5,"é"]'.encode()
    ]  # fmt: skip
    assert ends[0].headers == ((b"Content-Type", b"application/json"),)
    assert [end.result for end in ends[:4]] == [
        Result.OK, Result.CLIENT_ERROR, Result.SLOW_DOWN, Result.SERVER_ERROR
    ]  # fmt: skip


def test_the_time_of_a_batch_is_shared_by_its_items() -> None:
    """Ten items in one slot of a second are ten a second: estimates of the wait rest on it."""
    for body in (b"", orjson.dumps({"results": [{"status": 200}] * 10})):
        whole = Attempted(status=200, body=body, service_us=1_001, result=Result.OK)
        assert [end.service_us for end in batches._ends(whole, 10)] == [101] * 10
    failed = Attempted(status=500, service_us=1_001, result=Result.SERVER_ERROR)
    assert [end.service_us for end in batches._ends(failed, 10)] == [101] * 10


@pytest.mark.parametrize(
    "result",
    [7, None, {}, {"body": 1}, {"status": "200"}, {"status": True}, {"status": 199}, {"status": 600},
     {"status": 200.0}, {"status": [200]}],
)  # fmt: skip
async def test_a_result_without_a_status_leaves_that_item_open(result: Any) -> None:
    """What an item's answer does not say is not guessed, and the others are not doubted."""
    ends = await ends_of(answering(reply(200, {"results": [{"status": 200}, result]})), charges(2))
    assert classes(ends) == [None, FailureClass.AMBIGUOUS]
    assert (ends[0].status, ends[1].status) == (200, None)


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b""), reply(200, b"<html>"), reply(200, [1]), reply(200, {}), reply(200, {"results": {}}),
        reply(200, {"results": [{"status": 200}]}), reply(200, {"results": [{"status": 200}] * 3}),
        reply(204, b""), reply(200, {"results": [{"status": 200}] * 2, "more": "x" * 20_000}),
    ],
)  # fmt: skip
async def test_an_answer_that_was_not_agreed_on_leaves_every_item_open(answer: bytes) -> None:
    """A 200 of a login page has charged nobody, or everybody: nobody knows."""
    ends = await ends_of(answering(answer), charges(2), most=1_000)
    assert classes(ends) == [FailureClass.AMBIGUOUS] * 2
    assert "2 results" in ends[0].detail


async def test_a_body_that_is_nested_too_deep_costs_only_the_body() -> None:
    """The item was charged; that it is a strange answer does not change it."""
    deep = b"[" * 500 + b"]" * 500
    ends = await ends_of(answering(reply(200, b'{"results":[{"status":200,"body":%b}]}' % deep)), charges(1))
    assert (ends[0].failure, ends[0].body, ends[0].is_cut) == (None, b"", True)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (reply(500, b""), FailureClass.DOWNSTREAM),
        (reply(503, b"", b"Retry-After: 3\r\n"), FailureClass.SLOW_DOWN),
        (reply(429, b"", b"Retry-After: 3\r\n"), FailureClass.SLOW_DOWN),
        (reply(504, b""), FailureClass.AMBIGUOUS),
        (reply(408, b""), FailureClass.AMBIGUOUS),
        (reply(307, b"", b"Location: /x\r\n"), FailureClass.CALLER),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", FailureClass.AMBIGUOUS),
    ],
)
async def test_what_befalls_a_whole_batch_befalls_each_item_and_is_asked_once(
    answer: bytes, expected: FailureClass
) -> None:
    """A failing downstream is not asked n times for n items; each item goes on by its class."""
    asked = 0

    async def script(peer: Peer) -> None:
        nonlocal asked
        await peer.request()
        asked += 1
        await peer.send(answer)

    ends = await ends_of(script, charges(4))
    assert (classes(ends), asked) == ([expected] * 4, 1)
    retry_after = 3_000_000 if expected is FailureClass.SLOW_DOWN else None
    assert {end.retry_after_us for end in ends} == {retry_after}


async def test_a_downstream_that_is_down_is_asked_once() -> None:
    """Nothing was sent, so all of it may be repeated."""
    async with raw_downstream(answering()) as downstream:
        url = downstream.url
    async with pool_to(url) as pool:
        ends = await send_batch(work_with(pool), BATCH, charges(3), now_us=NOW, most=1)
    assert [(end.failure, end.was_sent) for end in ends if end] == [(FailureClass.DOWNSTREAM, False)] * 3


async def test_a_refused_batch_is_halved_until_the_bad_item_stands_alone() -> None:
    """One bad invoice of eight: seven are charged, each once, and the bad one is found in log2 steps."""
    biller = Biller(refusing("k5"))
    ends = await ends_of(biller, charges(8))
    assert classes(ends) == [FailureClass.CALLER if n == 5 else None for n in range(8)]
    assert (ends[5].status, ends[5].body) == (422, b'{"error":"bad"}')
    assert [end.body for end in ends[:2]] == [b'{"paid":"k0"}', b'{"paid":"k1"}']
    assert [len(keys) for keys in biller.asked] == [8, 4, 4, 2, 1, 1, 2]
    assert biller.asked[1] == ["k0", "k1", "k2", "k3"]


@settings(max_examples=30)
@given(count=st.integers(1, 17), data=st.data())
async def test_whatever_is_bad_every_good_item_runs_once(count: int, data: st.DataObject) -> None:
    """A billing team: neither a lost nor a double charge, in at most twice as many requests as items."""
    bad = data.draw(st.sets(st.integers(0, count - 1)))
    biller = Biller(refusing(*(f"k{number}" for number in bad)))
    ends = await ends_of(biller, charges(count))
    assert classes(ends) == [FailureClass.CALLER if number in bad else None for number in range(count)]
    assert len(biller.asked) <= 2 * count - 1
    ran = [key for keys in biller.asked if not {f"k{number}" for number in bad} & set(keys) for key in keys]
    assert sorted(ran) == sorted(f"k{number}" for number in range(count) if number not in bad)


async def test_asked_to_slow_down_between_halves_the_rest_waits_too() -> None:
    """A downstream that asks for time is not sent the other half."""
    slow = reply(429, b"", b"Retry-After: 9\r\n")
    biller = Biller(lambda keys: reply(422, b"") if len(keys) > 2 else slow)
    ends = await ends_of(biller, charges(4))
    assert classes(ends) == [FailureClass.SLOW_DOWN] * 4
    assert {end.retry_after_us for end in ends} == {9_000_000}
    assert biller.asked == [["k0", "k1", "k2", "k3"], ["k0", "k1"]]


async def test_a_half_that_fails_does_not_keep_the_other_from_running() -> None:
    """The items of one half may meet a 500: they are tried again, the others are charged now."""
    biller = Biller(
        lambda keys: reply(422, b"") if len(keys) > 2 else reply(500, b"") if "k0" in keys else paid(keys)
    )
    ends = await ends_of(biller, charges(4))
    assert classes(ends) == [FailureClass.DOWNSTREAM] * 2 + [None] * 2


def patient(rounds: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Requests may begin until the returned function was called `rounds` times; then time is up."""
    loop = asyncio.get_running_loop()
    passed = 0
    real = loop.time

    def end_round() -> None:
        nonlocal passed
        passed += 1

    clock = SimpleNamespace(time=lambda: real() + (1e6 if passed >= rounds else 0))
    monkeypatch.setattr(batches, "asyncio", SimpleNamespace(get_running_loop=lambda: clock))
    return end_round


async def end_in_time(rounds: int, bad: str, monkeypatch: pytest.MonkeyPatch) -> list[Attempted | None]:
    """The ends of four items when there is time for so many requests."""
    refuse = refusing(bad)

    def answer(keys: list[str]) -> bytes:
        end_round()
        return refuse(keys)

    async with serving(Biller(answer)) as work:
        end_round = patient(rounds, monkeypatch)
        return await send_batch(work, BATCH, charges(4), now_us=NOW, most=100)


async def test_what_is_left_when_time_is_up_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow search for a bad item ends in time; what was not executed is not charged an attempt."""
    ends = await end_in_time(2, "k3", monkeypatch)
    assert [end and end.status for end in ends] == [200, 200, None, None]
    assert ends[2:] == [None, None]


async def test_a_batch_of_which_nothing_came_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same jobs do not come round for ever without using up their budget."""
    ends = await end_in_time(2, "k0", monkeypatch)
    assert [end and end.failure for end in ends] == [FailureClass.DOWNSTREAM] * 4
    assert all(end and "no time" in end.detail for end in ends)


async def test_a_batch_that_is_given_up_closes_its_connection() -> None:
    """A gateway that stops leaves no batch behind that nobody waits for."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()
        gone.set()

    async with serving(script) as work:
        task = asyncio.create_task(send_batch(work, BATCH, charges(2), now_us=NOW, most=1))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()


async def test_the_demo_billing_api_takes_batches_as_they_are_sent() -> None:
    """`make run`: invoices go out together, one closed account and one declined card fail alone."""
    server = TestServer(BillingApi(seed=1).app())
    await server.start_server()
    try:
        async with pool_to(str(server.make_url("")).rstrip("/")) as pool:
            jobs = [
                charge(1), charge(2, b'{"customerId": "c-closed"}'), charge(3, target=b"/invoices/x402/charge"), charge(4)
            ]  # fmt: skip
            first = await send_batch(work_with(pool), BATCH, jobs, now_us=NOW, most=10_000)
            again = await send_batch(work_with(pool), BATCH, jobs, now_us=NOW, most=10_000)
    finally:
        await server.close()
    assert [end and end.status for end in first] == [200, 422, 402, 200]
    assert [end and (end.status, end.body) for end in again] == [
        end and (end.status, end.body) for end in first
    ]
