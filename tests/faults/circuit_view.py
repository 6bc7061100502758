"""
Circuit view: what gateways export of their circuits, and what a ramp allows.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.call_drill import CallDrill

LOOK_S = 0.05  # between two looks: a page of metrics is work for a gateway that is under load


async def samples(session: aiohttp.ClientSession, admin_url: str, name: str) -> dict[tuple[str, str], float]:
    """A metric of one gateway: (operation or nothing, state or nothing) -> value."""
    async with session.get(f"{admin_url}/metrics") as answer:
        page = await answer.text()
    return {
        (sample.labels.get("operation", "").rpartition(".")[2], sample.labels.get("state", "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    }


async def total(scene: CallDrill, name: str, operation: str, state: str = "") -> float:
    """A counter, summed over the gateways."""
    pages = await asyncio.gather(
        *(samples(scene.session, each.admin_url, name) for each in scene.fleet.replicas)
    )
    return sum(page.get((operation, state), 0) for page in pages)


async def moves(scene: CallDrill, operation: str) -> Counter[str]:
    """How often the circuit went into each state; each move is told by the gateway that made it."""
    found: Counter[str] = Counter()
    for replica in scene.fleet.replicas:
        told = await samples(scene.session, replica.admin_url, "breaker_circuit_transitions_total")
        found.update({state: int(value) for (name, state), value in told.items() if name == operation})
    return found


async def states(scene: CallDrill, operation: str) -> list[str]:
    """In which state each gateway holds the circuit to be."""
    found = []
    for replica in scene.fleet.replicas:
        told = await samples(scene.session, replica.admin_url, "breaker_circuit_state")
        found += [state for (name, state), value in told.items() if value and name == operation]
    return found


async def lone(scene: CallDrill, operation: str) -> list[float]:
    """Which gateways say that they are alone with what they see."""
    return [
        (await samples(scene.session, replica.admin_url, "breaker_circuit_lone"))[operation, ""]
        for replica in scene.fleet.replicas
    ]


async def seen(is_so: Callable[[], Awaitable[bool]], *, seconds: float) -> float:
    """Look until it is so; when that was, in monotonic seconds."""
    end = time.monotonic() + seconds
    while not await is_so():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(LOOK_S)
    return time.monotonic()


def allowed(passed_s: float, *, rate: float, ramp_s: float) -> float:
    """How many may have started so long after closing: a tenth of the rate at first, the whole after the ramp."""
    rising_s = min(passed_s, ramp_s)
    return rate * (0.1 * rising_s + 0.9 * rising_s**2 / (2 * ramp_s) + max(0.0, passed_s - ramp_s))


def beyond_the_ramp(
    starts: Sequence[float], closed: float, *, rate: float, spare: float, ramp_s: float
) -> float:
    """By how many calls the worst moment of the ramp was above it, as the downstream saw them; 0 or less: none."""
    within = [at for at in sorted(starts) if closed <= at <= closed + ramp_s]
    return max(
        (
            number - spare - allowed(at - closed, rate=rate, ramp_s=ramp_s)
            for number, at in enumerate(within, 1)
        ),
        default=0,
    )
