"""The tools of the drills: a judge that counts, callers who come back, gateways that die and return."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.faults import offers
from tests.faults.callers import Callers, Wanted, follow
from tests.faults.checker import Kind, Story, Violation, check
from tests.faults.drill import LOSSY_TERMS, orders
from tests.faults.fleet import fleet
from tests.faults.judge import Settings
from tests.faults.judging import Alarm, Judge, judge
from tests.faults.stand_in import Lie, stand_in
from tests.gateway.gateway_process import write_config
from tests.store.replicas import Server

LIMITS = {name: terms.limit for name, terms in LOSSY_TERMS.items()}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def send(
    session: aiohttp.ClientSession,
    url: str,
    order: str,
    key: str = "k",
    do: str = "work",
    *,
    patience_s: float = 5,
) -> int:
    """One call to a judge, as a gateway makes it; 0 when the caller went before an answer came."""
    try:
        async with session.post(
            url + f"/{order}",
            json={"order": order, "do": do},
            headers={"Idempotency-Key": key},
            timeout=aiohttp.ClientTimeout(total=patience_s),
        ) as answer:
            return answer.status
    except TimeoutError:
        return 0


async def until_in_flight(judged: Judge, operation: str, number: int) -> None:
    """The test's own timeout ends it otherwise."""
    while (seen := (await judged.report()).get(operation)) is None or seen.in_flight != number:
        await asyncio.sleep(0.01)


async def test_the_judge_counts_requests_and_effects_by_order(session: aiohttp.ClientSession) -> None:
    """One key is one effect where keys are honoured; elsewhere each request is one."""
    async with judge(Settings(forgetful=["once"], service_ms=0)) as judged:
        for operation in ("keyed", "once"):
            for order, key in (("a", "k1"), ("a", "k1"), ("b", "k2"), ("a", "k3")):
                assert await send(session, f"{judged.url}/{operation}", order, key) == 200
        told = await judged.report()

    keyed, once = told["keyed"].orders, told["once"].orders
    assert (keyed["a"].requests, keyed["a"].effects, keyed["a"].keys) == (3, 2, ("k1", "k3"))
    assert (keyed["b"].requests, keyed["b"].effects) == (1, 1)
    assert (once["a"].requests, once["a"].effects) == (3, 3)


async def test_the_judge_takes_batches_item_by_item(session: aiohttp.ClientSession) -> None:
    """One call in flight, an answer for each, and a bad one fails alone."""
    async with judge(Settings(limits={"batched": 1}, service_ms=1)) as judged:
        items = [
            {"idempotency_key": f"k{number}", "params": {"order": f"o{number}"}, "body": {"do": do}}
            for number, do in enumerate(("work", "refuse", "work"))
        ]
        async with session.post(f"{judged.url}/batched/{offers.BATCH}", json={"items": items}) as answer:
            results = (await answer.json())["results"]
        told = (await judged.report())["batched"]

    assert [result["status"] for result in results] == [200, 422, 200]
    assert (told.batches, told.in_flight_max, told.over) == (1, 1, ())
    assert [told.orders[f"o{number}"].effects for number in range(3)] == [1, 0, 1]


async def test_the_judge_notes_each_start_above_the_limit(session: aiohttp.ClientSession) -> None:
    """Also of work that nobody waits for any more: the downstream is still at it."""
    async with judge(Settings(limits={"keyed": 2}, service_ms=400)) as judged:
        url = f"{judged.url}/keyed"
        before = time.monotonic()
        gone = asyncio.create_task(send(session, url, "gone", patience_s=0.1))
        assert await gone == 0
        await until_in_flight(judged, "keyed", 1)
        assert set(await asyncio.gather(*(send(session, url, f"o{number}") for number in range(2)))) == {200}
        await until_in_flight(judged, "keyed", 0)
        told = (await judged.report())["keyed"]

    ((at, in_flight, abandoned),) = told.over
    assert before < at < time.monotonic()
    assert (in_flight, abandoned, told.in_flight_max) == (3, 1, 3)
    assert told.orders["gone"].effects == 1, "it was done all the same"


async def test_the_judge_fails_and_hangs_its_shares_the_same_in_each_run(
    session: aiohttp.ClientSession,
) -> None:
    """A seed that finds a mistake must find it again."""

    async def run(seed: int) -> list[int]:
        async with judge(Settings(fail_share=0.2, hang_share=0.1, service_ms=0, seed=seed)) as judged:
            url = f"{judged.url}/keyed"
            got = await asyncio.gather(
                *(send(session, url, f"o{number}", f"k{number}", patience_s=0.7) for number in range(200))
            )
            await until_in_flight(judged, "keyed", 0)
            told = (await judged.report())["keyed"].orders
        for number, status in enumerate(got):
            seen = told[f"o{number}"]
            assert (seen.effects, seen.failures) == ((0, 1) if status == 500 else (1, 0)), "who hangs is done"
        return list(got)

    first = await run(7)
    assert await run(7) == first
    assert await run(8) != first
    assert 20 <= first.count(500) <= 60
    assert 8 <= first.count(0) <= 35


async def test_a_failure_that_nobody_heard_is_not_counted_as_known(session: aiohttp.ClientSession) -> None:
    """A gateway that was killed meanwhile cannot know that it failed, and must not send again."""
    async with judge(Settings(fail_share=1, service_ms=300)) as judged:
        assert await send(session, f"{judged.url}/once", "gone", patience_s=0.1) == 0
        await until_in_flight(judged, "once", 0)
        assert await send(session, f"{judged.url}/once", "heard") == 500
        told = (await judged.report())["once"].orders

    assert (told["gone"].requests, told["gone"].failures) == (1, 0)
    assert (told["heard"].requests, told["heard"].failures) == (1, 1)


async def test_the_judge_raises_an_alarm_and_hangs(session: aiohttp.ClientSession) -> None:
    """So that the test can kill the gateway while the order is on its hands."""
    async with judge(Settings(service_ms=0)) as judged:
        asked = asyncio.create_task(judged.alarms(0))
        poison = asyncio.create_task(
            send(session, f"{judged.url}/keyed", "poison", do="alarm", patience_s=0.5)
        )
        (alarm,) = await asked
        assert not poison.done()
        assert await poison == 0
        await until_in_flight(judged, "keyed", 0)
        assert (await judged.report())["keyed"].orders["poison"].effects == 0
    assert alarm == Alarm(order="poison", port=alarm.port)


async def run_against(
    lie: Lie, session: aiohttp.ClientSession, **settings: Any
) -> tuple[Callers, list[Violation]]:
    """A whole drill without anything that dies, against a stand-in that tells this lie."""
    forgetful = ["once"]
    async with (
        judge(Settings(limits=LIMITS, forgetful=forgetful, service_ms=20, seed=3, **settings)) as judged,
        stand_in(judged.url, LIMITS, lie) as gateway,
    ):
        callers = Callers([gateway.url], session)
        await callers.drive(orders(3, 120), per_second=2_000, patience_s=5)
        jobs = await follow(session, [gateway.url], [each.job for each in callers.notes.accepted], seconds=2)
        story = Story(
            accepted=callers.notes.accepted,
            answered=callers.notes.answered,
            jobs=jobs,
            judged=await judged.report(),
            ledgers={"stand-in": await offers.read_ledger(session, gateway.url)},
        )
    return callers, check(story, LOSSY_TERMS)


async def test_a_drill_finds_nothing_when_all_is_well(session: aiohttp.ClientSession) -> None:
    """Callers who are refused come back with the same key, and each order is accepted once."""
    callers, violations = await run_against(Lie.NONE, session, fail_share=0.2, hang_share=0.02)

    assert violations == []
    assert len(callers.notes.accepted) == 120
    assert callers.notes.refusals["503"] >= 24
    assert callers.notes.gave_up == []
    assert len({each.job for each in callers.notes.accepted}) == 120


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        (Lie.FORGETS, {Kind.LOST}),
        (Lie.NEW_KEY, {Kind.OTHER_KEY}),
        (Lie.AGAIN, {Kind.SENT_AGAIN}),
        (Lie.CROWDS, {Kind.OVER_LIMIT}),
        (Lie.UNBALANCED, {Kind.LEDGER}),
    ],
)
async def test_a_drill_finds_each_lie(session: aiohttp.ClientSession, lie: Lie, found: set[Kind]) -> None:
    """From the callers' orders to the verdict: nothing on the way may swallow it."""
    _, violations = await run_against(lie, session)
    assert {violation.kind for violation in violations} == found


async def test_a_caller_gives_up_and_says_so(session: aiohttp.ClientSession) -> None:
    """Nobody is there at all: no order may be counted as accepted, none may be forgotten."""
    callers = Callers(["http://127.0.0.1:9"], session)
    await callers.drive([Wanted(operation="keyed", order="o1")], per_second=100, patience_s=0)

    assert callers.notes.accepted == []
    assert [wanted.order for wanted in callers.notes.gave_up] == ["o1"]
    assert callers.notes.refusals == {"ClientConnectorError": 1}


async def test_gateways_die_and_return_on_their_addresses(
    server: Server, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """The fleet itself, with real gateways: killed, stopped, frozen, and found by a port of theirs."""
    async with judge(Settings(service_ms=0)) as judged:
        pipeline = {
            "team": "drills",
            "downstream": {"url": judged.url, "timeout": "5s"},
            "operations": {"keyed": {"match": "POST /keyed/{order}", "capacity": {"concurrency": 5}}},
        }
        gateway = {"cluster": "drill", "store": {"url": server.url, "timeout": "1s"}}
        write_config(tmp_path / "config", {offers.PIPELINE: pipeline}, gateway, {})
        async with fleet(tmp_path / "config", tmp_path, 2) as gateways:
            first, second = gateways.replicas

            async def is_served(url: str, order: str, do: str = "work") -> bool:
                return await send(session, f"{url}/{offers.PIPELINE}/keyed", order, do=do) == 200

            poison = asyncio.create_task(is_served(second.url, "poison", "alarm"))
            (alarm,) = await judged.alarms(0)
            assert gateways.with_port(alarm.port) is second
            before = time.monotonic()
            assert before <= await second.kill() <= time.monotonic()
            with pytest.raises(aiohttp.ClientError):
                await poison
            assert gateways.with_port(alarm.port) is None

            second.start()
            await second.ready()
            assert await is_served(second.url, "a")
            assert await first.stop() == 0
            first.start()
            await first.ready()
            first.freeze()
            slow = asyncio.create_task(is_served(first.url, "b"))
            assert await is_served(second.url, "c")
            answered, _ = await asyncio.wait([slow], timeout=0.3)
            assert not answered
            first.thaw()
            assert await slow
            assert gateways.bugs() == []
            pids = [replica.process.pid for replica in gateways.replicas]
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
