"""Billing in batches: one call, many charges, and each of them by the rules of a charge."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import jsonschema_rs
import pytest

from breaker.demo.downstreams.charge import ITEMS_MAX
from tests.demo.served import ROOT, Answer, Downstream, called, read_url, spawn, statuses

CONTRACT = ROOT / "config" / "contracts" / "charge-invoice.schema.json"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """One process for all tests of this file; `called` makes each test begin anew."""
    process = spawn("billing")
    yield read_url(process, "billing")
    process.terminate()
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")


@pytest.fixture
async def billing(url: str) -> AsyncIterator[Downstream]:
    async with called(url) as downstream:
        yield downstream


def item(invoice_id: str, key: str = "", **body: object) -> dict[str, Any]:
    return {
        "idempotency_key": key or f"k-{invoice_id}",
        "params": {"invoice_id": invoice_id},
        "body": {"amount": 100, "currency": "EUR", **body},
    }


async def charge_all(billing: Downstream, *items: object) -> Answer:
    return await billing.call("POST", "/invoices/charge-batch", {"items": items})


def codes(answer: Answer) -> list[int]:
    assert answer.status == 200, answer.content
    return [result["status"] for result in answer.content["results"]]


async def test_a_batch_is_answered_item_by_item_in_its_order(billing: Downstream) -> None:
    """The gateway ends each job with its own item's answer: a mix-up would charge A and tell B."""
    answer = await charge_all(billing, *(item(f"inv-{number}") for number in (3, 1, 2)))
    singly = await billing.call("GET", "/invoices/inv-3")

    assert codes(answer) == [200, 200, 200]
    bodies = [result["body"] for result in answer.content["results"]]
    assert bodies[0] == {"chargeId": singly.content["chargeId"], "status": "paid"}
    assert len({body["chargeId"] for body in bodies}) == 3
    assert (await billing.stats())["effects"] == 3


async def test_one_bad_invoice_of_a_batch_fails_alone(billing: Downstream) -> None:
    """Month-end has one closed account among thousands: nobody else may wait for it."""
    closed = item("inv-2", customerId="acme-closed")
    answer = await charge_all(billing, item("inv-1"), closed, item("inv-402"), item("none"), item("inv-3"))

    assert codes(answer) == [200, 422, 402, 404, 200]
    assert answer.content["results"][1]["body"] == {"error": "the account acme-closed is closed"}
    assert (await billing.stats())["effects"] == 2
    jsonschema_rs.validator_for(json.loads(CONTRACT.read_text())).validate(closed["body"])


async def test_a_closed_account_refuses_a_single_charge_too(billing: Downstream) -> None:
    """A batch must not change what a charge means."""
    closed = await billing.charge(1, "acme-closed")

    assert (closed.status, closed.content) == (422, {"error": "the account acme-closed is closed"})
    assert (await billing.charge(1, "acme")).status == 200


async def test_a_key_is_charged_once_whether_alone_or_in_batches(billing: Downstream) -> None:
    """A batch whose answer was lost is sent again, perhaps in other company, perhaps bisected to one."""
    first = await charge_all(billing, item("inv-1"), item("inv-2"))
    again = await charge_all(billing, item("inv-3"), item("inv-2"))
    body = item("inv-1")["body"]
    alone = await billing.call("POST", "/invoices/inv-1/charge", body, Idempotency_Key="k-inv-1")
    stats = await billing.stats("?keys=1")

    assert codes(again) == [200, 200]
    assert again.content["results"][1] == first.content["results"][1]
    assert (alone.status, alone.content) == (200, first.content["results"][0]["body"])
    assert alone.headers["Idempotent-Replayed"] == "true"
    assert stats["effects_by_key"] == {"k-inv-1": 1, "k-inv-2": 1, "k-inv-3": 1}
    assert (stats["effects"], stats["effects_repeated"]) == (3, 0)


async def test_one_key_or_one_invoice_twice_in_a_batch_is_charged_once(billing: Downstream) -> None:
    """A batch is one call, and still cannot take money twice."""
    same, other_invoice = item("inv-1", "a"), item("inv-2", "a")
    answer = await charge_all(billing, same, same, other_invoice, item("inv-1", "b"))

    assert codes(answer) == [200, 200, 422, 409]
    assert (await billing.stats())["effects"] == 1


async def test_a_batch_and_a_charge_of_one_invoice_at_once_charge_it_once(billing: Downstream) -> None:
    """A gateway that died left its call at work; the next one comes with the same key before it is done."""
    await billing.fault("slow", seconds=0.5, calls=1)
    batch = asyncio.create_task(charge_all(billing, item("inv-1"), item("inv-2")))
    await billing.until(lambda stats: stats["in_flight"] == 1)
    body = item("inv-1")["body"]
    busy = await billing.call("POST", "/invoices/inv-1/charge", body, Idempotency_Key="k-inv-1")
    probe = await billing.call("GET", "/charges/k-inv-1")

    assert (busy.status, busy.headers["Retry-After"]) == (409, "1")
    assert (probe.status, probe.headers["Retry-After"]) == (409, "1"), "not 404: it may still happen"
    assert codes(await batch) == [200, 200]
    assert (await billing.stats())["effects"] == 2


async def test_an_item_that_somebody_else_charges_meanwhile_is_not_charged_again(billing: Downstream) -> None:
    """The other way round: the single charge came first, the batch finds it done at its end."""
    await billing.fault("slow", seconds=0.4, calls=2)
    body = item("inv-1")["body"]
    alone = asyncio.create_task(
        billing.call("POST", "/invoices/inv-1/charge", body, Idempotency_Key="k-inv-1")
    )
    await billing.until(lambda stats: stats["in_flight"] == 1)
    batch = await charge_all(billing, item("inv-1"), item("inv-2"))

    assert (await alone).status == 200
    assert codes(batch) in ([200, 200], [409, 200])  # as they end: by then it is charged, or being charged
    assert (await billing.stats("?keys=1"))["effects_by_key"] == {"k-inv-1": 1, "k-inv-2": 1}


async def test_a_batch_is_one_call_in_flight_and_quicker_than_its_items(billing: Downstream) -> None:
    """What the batch is for: a hundred charges on one connection, in the time of eleven."""
    batch = asyncio.create_task(
        charge_all(billing, *(item(f"inv-{number}", customerId="acme") for number in range(ITEMS_MAX)))
    )
    began = time.perf_counter()
    await billing.until(lambda stats: stats["in_flight"] == 1)

    assert codes(await batch) == [200] * ITEMS_MAX, "a customer's limit does not hold inside of a batch"
    took_s = time.perf_counter() - began
    stats = await billing.stats()
    assert 10.9 * 0.12 * 0.1 < took_s < 10.9 * 0.12 * 5.5
    assert (stats["in_flight_max"], stats["effects"]) == (1, 100)


async def test_a_batch_finds_the_capacity_full_like_any_call(billing: Downstream) -> None:
    """Batches must not be a way around the limit."""
    await billing.fault("slow", seconds=0.4, calls=8)
    charges = asyncio.gather(*(billing.charge(number) for number in range(8)))
    await billing.until(lambda stats: stats["in_flight"] == 8)
    refused = await charge_all(billing, item("inv-9"))

    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert {answer.status for answer in await charges} == {200}


async def test_faults_hit_batches(billing: Downstream) -> None:
    """A drill with a failing downstream must fail its batches, or it proves nothing."""
    await billing.fault("errors", calls=1)
    assert (await charge_all(billing, item("inv-1"))).status == 500
    assert codes(await charge_all(billing, item("inv-1"))) == [200], "nothing was done, the key is free"


async def test_a_hung_batch_was_charged_and_says_so_to_a_probe(billing: Downstream) -> None:
    """The outcome of each item is unknown to the gateway, and must be found out one by one."""
    await billing.fault("hang", seconds=0.1, calls=1)
    with pytest.raises(aiohttp.ClientError):
        await charge_all(billing, item("inv-1"), item("inv-402"))

    charged = await billing.call("GET", "/charges/k-inv-1")
    assert charged.content == {
        "idempotencyKey": "k-inv-1",
        "invoiceId": "inv-1",
        "chargeId": charged.content["chargeId"],
        "status": "paid",
    }
    assert charged.status == 200
    assert (await billing.call("GET", "/charges/k-inv-402")).status == 404, "a declined card is no charge"


async def test_a_single_charge_can_be_asked_for_by_its_key(billing: Downstream) -> None:
    """Keys are callers' own and may hold anything visible; one that never came is 404."""
    key, path = "may/7?a=b%2F", "/charges/may%2F7%3Fa%3Db%252F"
    before = await billing.call("GET", path)
    await billing.charge(1, Idempotency_Key=key)

    assert before.status == 404
    assert (await billing.call("GET", path)).content["idempotencyKey"] == key


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        ({}, 400, "items is not a list"),
        ({"items": {}}, 400, "items is not a list"),
        ({"items": []}, 400, "items is not a list"),
        ([], 400, "not a JSON object"),
        ({"items": [item("inv-1"), 7]}, 400, "items/1 "),
        ({"items": [item("inv-1") | {"idempotency_key": ""}]}, 400, "items/0 "),
        ({"items": [item("inv-1") | {"params": {}}]}, 400, "items/0 "),
        ({"items": [item("inv-1") | {"body": None}]}, 400, "items/0 "),
        ({"items": [item(f"inv-{number}") for number in range(ITEMS_MAX + 1)]}, 413, "at most 100"),
    ],
)
async def test_a_batch_that_cannot_be_read_is_refused_as_a_whole(
    billing: Downstream, content: object, status: int, says: str
) -> None:
    """A complete refusal: the gateway bisects, and must be able to trust that nothing was charged."""
    answer = await billing.call("POST", "/invoices/charge-batch", content)

    assert answer.status == status
    assert says in answer.content["error"]
    assert (await billing.stats())["effects"] == 0


async def test_a_batch_without_any_work_takes_no_worker(billing: Downstream) -> None:
    """A repeat is answered from memory, as a single one is: also when all workers are busy."""
    await charge_all(billing, item("inv-1"))
    await billing.fault("slow", seconds=0.4, calls=8)
    charges = asyncio.gather(*(billing.charge(number) for number in range(2, 10)))
    await billing.until(lambda stats: stats["in_flight"] == 8)

    assert codes(await charge_all(billing, item("inv-1"), item("none"))) == [200, 404]
    assert {answer.status for answer in await charges} == {200}
    assert (await billing.stats())["effects"] == 9


async def test_a_batch_is_not_slow_for_being_large(billing: Downstream) -> None:
    """`slow` is how one sees that a downstream is in trouble: a large batch is none."""

    def batch(number: int) -> list[dict[str, Any]]:
        return [item(f"inv-{number}-{index}") for index in range(40)]

    await asyncio.gather(*(charge_all(billing, *batch(number)) for number in range(8)))

    # Each takes five times as long as a charge. By chance one in 25 is slow, for its size.
    assert (await billing.stats())["slow"] <= 3


async def test_many_charges_at_once_with_one_key_are_one_effect(billing: Downstream) -> None:
    """Twenty attempts of one job, as a broken gateway would make them: alone and in batches."""
    body = item("inv-1")["body"]
    alone = [
        billing.call("POST", "/invoices/inv-1/charge", body, Idempotency_Key="k-inv-1") for _ in range(10)
    ]
    await statuses([*alone, *(charge_all(billing, item("inv-1")) for _ in range(10))])
    stats = await billing.stats("?keys=1")

    assert stats["effects_by_key"] == {"k-inv-1": 1}
    assert stats["effects_repeated"] == 0
