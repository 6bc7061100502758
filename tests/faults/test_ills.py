"""Ills: what a downstream does wrong is done as it is said, and counted."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from tests.faults.ills import Ill
from tests.faults.judge import Settings
from tests.faults.judging import judge
from tests.faults.test_tools import send, until_in_flight


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def test_the_judge_notes_when_each_call_came(session: aiohttp.ClientSession) -> None:
    """A ramp is judged by the starts that the downstream saw, not by what the gateway says of itself."""
    async with judge(Settings(service_ms=0)) as judged:
        before = time.monotonic()
        for number in range(3):
            assert await send(session, f"{judged.url}/keyed", f"o{number}") == 200
        starts = (await judged.report())["keyed"].starts

    noted = [before, *starts, time.monotonic()]
    assert noted == sorted(noted)
    assert len(starts) == 3


async def answer_of(session: aiohttp.ClientSession, url: str, *, most: int = 100_000) -> tuple[str, int]:
    """How a call of the judge ended, and how much of its answer came; at most so much is read."""
    size = 0
    try:
        timeout = aiohttp.ClientTimeout(total=0.5)
        async with session.post(url, json={}, headers={"Idempotency-Key": "k"}, timeout=timeout) as answer:
            async for piece in answer.content.iter_any():
                size += len(piece)
                if size > most:
                    return "too much", size
            return str(answer.status), size
    except TimeoutError:
        return "late", size
    except aiohttp.ClientPayloadError:
        return "cut", size


@pytest.mark.parametrize(
    ("ill", "ended", "effects", "failures"),
    [
        (Ill.FAILS, "500", 0, 1),
        (Ill.HANGS, "late", 0, 0),
        (Ill.DRIPS, "late", 0, 0),
        (Ill.CUT, "cut", 1, 0),
        (Ill.HUGE, "too much", 1, 0),
        (Ill.BUSY, "503", 0, 1),
    ],
)
async def test_an_ill_operation_is_counted_as_it_is(
    session: aiohttp.ClientSession, ill: Ill, ended: str, effects: int, failures: int
) -> None:
    """Only what its caller heard in full is known not to have been done; and the others are well meanwhile."""
    async with judge(Settings(service_ms=0)) as judged:
        await judged.ill("keyed", ill)
        how, size = await answer_of(session, f"{judged.url}/keyed/a")
        assert await send(session, f"{judged.url}/once", "b") == 200
        await until_in_flight(judged, "keyed", 0)
        seen = (await judged.report())["keyed"].orders["a"]
        await judged.ill("keyed", Ill.NONE)
        assert await send(session, f"{judged.url}/keyed", "c") == 200

    assert (how, seen.effects, seen.failures) == (ended, effects, failures)
    assert {Ill.DRIPS: 1 <= size <= 20, Ill.CUT: size <= 500}.get(ill, True)


@pytest.mark.parametrize(("status", "is_date"), [(429, False), (503, True)])
async def test_a_busy_operation_says_when_to_come_back(
    session: aiohttp.ClientSession, status: int, is_date: bool
) -> None:
    """In seconds or as a date: both are in use."""
    async with judge(Settings(service_ms=0)) as judged:
        await judged.ill("keyed", Ill.BUSY, busy_status=status, retry_after_s=30, retry_after_is_date=is_date)
        async with session.post(f"{judged.url}/keyed/a", json={}) as answer:
            said = answer.headers["Retry-After"]
            assert answer.status == status

    if is_date:
        left = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        assert 29 <= left <= 32
    else:
        assert said == "30"
