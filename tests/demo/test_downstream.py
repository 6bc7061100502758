"""The demo downstreams as processes: capacity, what they do beyond it, faults, and what they tell."""

import asyncio
import os
import select
import sys
import time
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from breaker.demo.downstreams.record import Record
from tests.demo.served import ENVIRONMENT, Downstream, called, read_url, spawn, statuses


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """One process of each for all tests of this file; `called` makes each test begin anew."""
    processes = {name: spawn(name) for name in ("support", "billing", "onboarding")}
    yield {name: read_url(process, name) for name, process in processes.items()}
    for process in processes.values():
        process.terminate()
    for process in processes.values():
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")


@pytest.fixture
async def support(urls: dict[str, str]) -> AsyncIterator[Downstream]:
    async with called(urls["support"]) as downstream:
        yield downstream


@pytest.fixture
async def billing(urls: dict[str, str]) -> AsyncIterator[Downstream]:
    async with called(urls["billing"]) as downstream:
        yield downstream


@pytest.fixture
async def onboarding(urls: dict[str, str]) -> AsyncIterator[Downstream]:
    async with called(urls["onboarding"]) as downstream:
        yield downstream


# Support


async def test_support_opens_a_ticket_that_can_be_read(support: Downstream) -> None:
    """A caller that changes only its base URL wants the desk's own answers."""
    opened = await support.call("POST", "/tickets", {"subject": "no login", "plan": "enterprise"})
    read = await support.call("GET", opened.headers["Location"])

    assert opened.status == 201
    assert opened.content == {"ticketId": "T-1001", "priority": "high", "queue": "general"}
    assert read.content == {**opened.content, "status": "open", "subject": "no login"}
    assert (await support.call("GET", "/tickets/T-1")).status == 404


async def test_support_opens_one_ticket_for_a_reference(support: Downstream) -> None:
    """A gateway that repeats a call must be found out by the downstream's data."""
    first = await support.call("POST", "/tickets", {"reference": "R1"})
    again = await support.call("POST", "/tickets", {"reference": "R1"})

    assert again.status == 409
    assert again.content["ticketId"] == first.content["ticketId"]
    assert (await support.stats())["effects"] == 1


async def test_support_opens_one_ticket_for_a_key(support: Downstream) -> None:
    """A job that is sent again after a lost answer must end with its ticket, not with somebody else's 409."""
    ticket = {"reference": "R1", "subject": "no login"}
    await support.fault("slow", seconds=0.4, calls=1)
    first = asyncio.create_task(support.call("POST", "/tickets", ticket, Idempotency_Key="k"))
    await support.until(lambda stats: stats["in_flight"] == 1)
    meanwhile = await support.call("POST", "/tickets", ticket, Idempotency_Key="k")
    opened = await first
    again = await support.call("POST", "/tickets", ticket, Idempotency_Key="k")
    other = await support.call("POST", "/tickets", {"subject": "billing"}, Idempotency_Key="k")

    assert (meanwhile.status, meanwhile.headers["Retry-After"]) == (409, "1")
    assert (again.status, again.content) == (201, opened.content)
    assert again.headers["Location"] == opened.headers["Location"]
    assert other.status == 422
    assert (await support.stats("?keys=1"))["effects_by_key"] == {"k": 1}


async def test_support_takes_a_backlog_and_then_fails(support: Downstream) -> None:
    """Three people and a line of twelve: 400 ms each, slower with the line, and the sixteenth is turned away."""
    began = time.perf_counter()
    codes = await statuses([support.call("POST", "/tickets", {}) for _ in range(20)])
    took_s = time.perf_counter() - began
    stats = await support.stats()

    assert codes == {201: 15, 503: 5}
    assert 15 / 3 * 0.4 * 0.6 < took_s < 15 / 3 * 0.4 * 2.5
    assert stats["in_flight_max"] == 15
    assert stats["refused"] == 5
    assert stats["finished_by_status"] == {"201": 15, "503": 5}
    assert stats["slow"] > 0


# Billing


async def test_billing_refuses_the_ninth_charge_and_says_when_to_come_back(billing: Downstream) -> None:
    """A downstream that knows its limits: the gateway must obey its Retry-After."""
    answers = await asyncio.gather(*(billing.charge(number) for number in range(10)))
    refused = [answer for answer in answers if answer.status == 503]

    assert [answer.headers["Retry-After"] for answer in refused] == ["1", "1"]
    assert (await billing.stats())["in_flight_max"] == 8


async def test_billing_reads_invoices_while_all_workers_charge(billing: Downstream) -> None:
    """Reads have no limit of concurrency in the shipped configuration: they must not need one here."""
    await billing.fault("slow", seconds=0.5, calls=8)
    charges = asyncio.gather(*(billing.charge(number) for number in range(8)))
    await billing.until(lambda stats: stats["in_flight"] == 8)
    codes = await statuses([billing.call("GET", "/invoices/inv-1") for _ in range(5)])
    stats = await billing.stats()

    assert codes == {200: 5}
    assert stats["in_flight_max"] == 8
    assert {answer.status for answer in await charges} == {200}


async def test_billing_takes_two_charges_of_a_customer_at_once(billing: Downstream) -> None:
    """A customer's own limit is 429, not 503."""
    codes = await statuses([billing.charge(number, "acme") for number in range(3)])

    assert codes == {200: 2, 429: 1}
    assert (await billing.charge(9, "acme")).status == 200


async def test_billing_charges_a_key_once(billing: Downstream) -> None:
    """Retries with the same key must not take money twice; another charge under it is a mistake."""
    first = await billing.charge(1, Idempotency_Key="k")
    again = await billing.charge(1, Idempotency_Key="k")
    other = await billing.charge(2, Idempotency_Key="k")

    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    assert other.status == 422
    assert (await billing.stats())["effects"] == 1


async def test_billing_charges_an_invoice_once(billing: Downstream) -> None:
    """Without a key, and at the same moment too."""
    codes = await statuses([billing.charge(1, f"c{number}") for number in range(3)])

    assert codes == {200: 1, 409: 2}
    assert (await billing.charge(1, Idempotency_Key="new")).status == 409
    assert (await billing.call("GET", "/invoices/inv-1")).content["status"] == "paid"


async def test_billing_declines_some_cards(billing: Downstream) -> None:
    """402 is the caller's business: it is no failure of the downstream."""
    declined = await billing.charge(402, Idempotency_Key="k")

    assert declined.status == 402
    assert (await billing.charge(402, Idempotency_Key="k")).status == 402
    assert (await billing.call("GET", "/invoices/inv-402")).content["status"] == "open"
    assert (await billing.call("GET", "/invoices/none")).status == 404
    assert (await billing.call("POST", "/invoices/none/charge", {})).status == 404


async def test_billing_lets_a_failed_key_be_tried_again(billing: Downstream) -> None:
    """A 500 without any charge must not be remembered as the answer."""
    await billing.fault("errors", calls=1)

    assert (await billing.charge(1, Idempotency_Key="k")).status == 500
    assert (await billing.charge(1, Idempotency_Key="k")).status == 200


async def test_a_body_that_is_no_json_object_is_the_callers_mistake(billing: Downstream) -> None:
    """Never a 500 for what the caller sent."""
    async with billing.session.post(f"{billing.url}/invoices/inv-1/charge", data=b"{") as response:
        assert response.status == 400
    assert (await billing.call("POST", "/invoices/inv-1/charge", [])).status == 400


# Onboarding


async def test_onboarding_makes_an_account_once(onboarding: Downstream) -> None:
    """Location leads to the account; the second call for a customer is told where it is."""
    both = await asyncio.gather(
        *(onboarding.call("POST", "/accounts", {"customerId": "acme"}) for _ in range(2))
    )
    made = min(both, key=lambda answer: answer.status)
    path = made.headers["Location"]

    assert sorted(answer.status for answer in both) == [201, 409]
    assert {answer.headers["Location"] for answer in both} == {path}
    assert (await onboarding.call("GET", path)).content["customerId"] == "acme"
    assert [(await onboarding.call("POST", f"{path}/welcome")).status for _ in range(2)] == [202, 202]
    assert (await onboarding.stats())["effects"] == 2
    assert (await onboarding.call("POST", "/accounts/acc-0/welcome")).status == 404
    assert (await onboarding.call("POST", "/accounts", {})).status == 422


async def test_onboarding_gets_slower_with_every_call(onboarding: Downstream) -> None:
    """Contention: fifteen at once take five times as long together; alone, none takes over a second or so."""

    async def timed(number: int) -> float:
        began = time.perf_counter()
        answer = await onboarding.call("POST", "/accounts", {"customerId": f"c{number}"})
        assert answer.status == 201
        return time.perf_counter() - began

    took = await asyncio.gather(*(timed(number) for number in range(15)))

    assert 15 / 3 * 0.5 * 0.68 < max(took) < 15 / 3 * 0.5 * 2


async def test_onboarding_gives_up_when_badly_overloaded(onboarding: Downstream) -> None:
    """60 accounts share three workers: ten seconds of work, of which four are given."""
    codes = await statuses(
        [onboarding.call("POST", "/accounts", {"customerId": f"c{number}"}) for number in range(60)]
    )

    assert set(codes) == {201, 504}
    assert codes[504] > 5
    assert (await onboarding.stats())["effects"] == codes[201]


# Faults


async def test_errors_hit_their_share(billing: Downstream) -> None:
    """Half of the calls fail, and which ones is repeated with the same seed."""
    await billing.fault("errors", share=0.5, status=502)
    codes = [(await billing.charge(number)).status for number in range(20)]

    assert codes.count(502) == (await billing.call("GET", "/_control/faults")).content["hits"]
    assert 4 <= codes.count(502) <= 16
    assert (await billing.stats())["effects"] == codes.count(200)


async def test_retry_after_refuses_without_work(support: Downstream) -> None:
    """What the gateway must read as "slow down", not as a failure."""
    await support.fault("retry_after", seconds=7, status=429)
    answer = await support.call("POST", "/tickets", {})

    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    stats = await support.stats()
    assert (stats["refused"], stats["effects"], stats["in_flight_max"]) == (1, 0, 0)


async def test_slow_adds_to_the_service_time(billing: Downstream) -> None:
    """It is late, but done."""
    await billing.fault("slow", seconds=0.7)
    began = time.perf_counter()

    assert (await billing.charge(1)).status == 200
    assert time.perf_counter() - began > 0.7
    assert (await billing.stats())["slow"] == 1


async def test_hang_holds_the_worker_until_the_fault_is_over(billing: Downstream) -> None:
    """The charge was made, the answer never comes: the outcome is unknown to the caller."""
    await billing.fault("hang")
    hung = asyncio.create_task(billing.charge(1))
    await billing.until(lambda stats: stats["effects"] == 1)

    assert not hung.done()
    assert (await billing.stats())["in_flight"] == 1

    await billing.fault("none")
    with pytest.raises(aiohttp.ClientError):
        await hung
    assert (await billing.stats())["finished_by_status"] == {"no answer": 1}


async def test_hang_ends_by_itself(billing: Downstream) -> None:
    """Everything has a bound."""
    await billing.fault("hang", seconds=0.1)

    with pytest.raises(aiohttp.ClientError):
        await billing.charge(1)


async def test_drip_sends_its_body_byte_by_byte(billing: Downstream) -> None:
    """A timeout between bytes never fires: only a deadline for the whole helps."""
    await billing.fault("drip", seconds=0.6)
    began = time.perf_counter()
    chunks = 0
    async with billing.session.get(f"{billing.url}/invoices/inv-1") as response:
        headed_s = time.perf_counter() - began
        async for _ in response.content.iter_any():
            chunks += 1

    assert chunks > 20
    assert time.perf_counter() - began > headed_s + 0.4


@pytest.mark.parametrize("at", ["start", "body"])
async def test_reset_breaks_the_connection_after_the_work(billing: Downstream, at: str) -> None:
    """The caller sees a TCP reset, not an orderly end, and has been charged."""
    await billing.fault("reset", at=at)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(billing.url.rsplit(":", 1)[1]))
    writer.write(b"POST /invoices/inv-1/charge HTTP/1.1\r\nHost: billing\r\n\r\n")
    seen = b""

    async def read_to_the_end() -> None:
        nonlocal seen
        while part := await reader.read(1000):
            seen += part

    with pytest.raises(ConnectionResetError):
        await read_to_the_end()
    writer.close()

    assert seen.startswith(b"HTTP/1.1 200") == (at == "body")
    assert (await billing.stats())["effects"] == 1


async def test_huge_sends_as_many_bytes_as_asked(billing: Downstream) -> None:
    """A gateway that reads all of an answer into memory dies of it."""
    await billing.fault("huge", bytes=3_000_001)
    async with billing.session.get(f"{billing.url}/invoices/inv-1") as response:
        assert response.status == 200
        assert len(await response.read()) == 3_000_001


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mode": "bogus"}, "'bogus'"),
        ({}, "mode is missing"),
        ([], "not a JSON object"),
        ({"mode": "errors", "share": 1.01}, "share: "),
        ({"mode": "errors", "share": -0.01}, "share: "),
        ({"mode": "errors", "seconds": 1}, "seconds: "),
        ({"mode": "slow", "seconds": 3601}, "seconds: "),
        ({"mode": "errors", "status": 200}, "status: "),
        ({"mode": "huge", "bytes": 0}, "bytes: "),
    ],
)
async def test_a_wrong_fault_is_told_in_one_line_and_changes_nothing(
    billing: Downstream, wrong: object, says: str
) -> None:
    """A drill whose fault was never switched on proves nothing."""
    answer = await billing.call("POST", "/_control/faults", wrong)

    assert answer.status == 400
    assert says in answer.content["error"]
    assert "\n" not in answer.content["error"]
    assert (await billing.call("GET", "/_control/faults")).content == {"mode": "none", "hits": 0}


# What it tells


async def test_work_goes_on_when_the_caller_hangs_up(billing: Downstream) -> None:
    """Real systems do not stop: that is why the gateway keeps the slot of an abandoned call."""
    await billing.fault("slow", seconds=0.8)
    charge = asyncio.create_task(billing.charge(1))
    await billing.until(lambda stats: stats["in_flight"] == 1)
    charge.cancel()

    abandoned = await billing.until(lambda stats: stats["abandoned"] == 1)
    assert (abandoned["in_flight"], abandoned["effects"]) == (1, 0)

    done = await billing.until(lambda stats: stats["in_flight"] == 0)
    assert done["effects"] == 1
    assert done["finished_by_status"] == {"200": 1}


async def test_starts_and_request_ids_are_kept(billing: Downstream) -> None:
    """A checker compares what callers saw with what arrived."""
    before = time.time()
    for request_id in ("a", "b", "a"):
        await billing.call("GET", "/invoices/inv-1", X_Request_Id=request_id)
    stats = await billing.stats("?starts=1&ids=1")

    assert stats["started"] == 3
    assert stats["request_ids"] == {"b": 1, "a": 2}
    assert before <= stats["starts"][0] == stats["first_start"]
    assert stats["starts"] == sorted(stats["starts"])
    assert stats["starts"][-1] == stats["last_start"] <= time.time()
    assert "starts" not in await billing.stats()


def test_an_effect_that_happens_again_under_its_key_is_counted() -> None:
    """These downstreams never do that; a record that could not show it would prove nothing."""
    record = Record(slow_after_s=1.0)
    for key in ("a", "b", None, "a", None, "a"):
        record.on_effect(key)

    assert record.effects_by_key() == {"b": 1, "a": 3}
    assert (record.stats()["effects"], record.stats()["effects_repeated"]) == (6, 2)
    assert record.renewed().effects_by_key() == {}


async def test_reset_forgets_everything_but_work_in_flight(billing: Downstream) -> None:
    """Otherwise the balance of the next drill is off by the calls of the last one."""
    await billing.charge(1)
    await billing.fault("slow", seconds=0.8)
    under_way = asyncio.create_task(billing.charge(2))
    await billing.until(lambda stats: stats["in_flight"] == 1)
    await billing.call("POST", "/_control/reset")
    stats = await billing.stats()

    assert (stats["started"], stats["in_flight"], stats["in_flight_max"]) == (1, 1, 1)
    assert stats["finished_by_status"] == {}
    assert (await billing.call("GET", "/_control/faults")).content["mode"] == "none"
    assert (await under_way).status == 200

    stats = await billing.stats()
    assert (stats["started"], stats["finished_by_status"]) == (1, {"200": 1})
    assert (await billing.charge(1)).status == 200


async def test_every_start_is_finished_or_in_flight(billing: Downstream) -> None:
    """The downstream's own ledger must balance before it can be held against the gateway's."""
    await billing.fault("errors", share=0.3)
    charges = asyncio.gather(*(billing.charge(number % 40, f"c{number % 7}") for number in range(60)))
    reads = asyncio.gather(*(billing.call("GET", "/invoices/inv-1") for _ in range(20)))
    balances = []
    while not (charges.done() and reads.done()):
        stats = await billing.stats()
        in_flight = stats["in_flight"] + stats["in_flight_beside"]
        balances.append(stats["started"] - sum(stats["finished_by_status"].values()) - in_flight)
    stats = await billing.stats()

    assert set(balances) == {0}
    assert stats["started"] == 80 == sum(stats["finished_by_status"].values())
    assert len(stats["finished_by_status"]) >= 3


# The process


async def test_the_stated_capacity_is_what_the_configuration_says(
    support: Downstream, billing: Downstream, onboarding: Downstream
) -> None:
    """The shipped limits are these workers; a change here must be a change there."""
    told = [await downstream.stats() for downstream in (support, billing, onboarding)]

    assert [(stats["name"], stats["workers"], stats["service_ms"]) for stats in told] == [
        ("support", 3, 400),
        ("billing", 8, 120),
        ("onboarding", 3, 500),
    ]


async def test_a_taken_port_is_told_in_one_line(billing: Downstream) -> None:
    """The most common mistake of a second `make run`."""
    port = billing.url.rsplit(":", 1)[1]
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "breaker.demo.downstream", "support", "--port", port),
        env=ENVIRONMENT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await second.communicate()

    assert second.returncode == 1
    assert said == b""
    assert errors.decode() == (
        f"support cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port\n"
    )


async def test_sigterm_ends_it_cleanly_with_work_in_flight() -> None:
    """Stopping a demo must not take a minute, nor print a traceback."""
    process = spawn("billing")
    async with aiohttp.ClientSession() as session:
        billing = Downstream(read_url(process, "billing"), session)
        await billing.fault("hang")
        hung = asyncio.create_task(billing.charge(1))
        await billing.until(lambda stats: stats["effects"] == 1)
        process.terminate()
        with pytest.raises(aiohttp.ClientError):
            await hung
    _, errors = process.communicate(timeout=5)

    assert (process.returncode, errors) == (0, "")


async def test_it_ends_with_its_parent() -> None:
    """A killed demo must not keep its ports."""
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'breaker.demo.downstream', 'billing', '--port', '0'],\n"
        "                         stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = os.pidfd_open(int(await parent.stdout.readline()))
    parent.kill()
    await parent.wait()

    ended, _, _ = select.select([child], [], [], 1.0)
    os.close(child)

    assert ended
