"""
Drill: three gateways, a store, a judge and callers, and what holds for them.

    keyed      the downstream honours keys: sent until it succeeds
    once       it does not: an attempt whose outcome is not known ends as `unknown`
    batched    as keyed, and several jobs share a call

An order is a job; all names are made from the seed, so that a run can be repeated.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from tests.faults import offers
from tests.faults.callers import Callers, Wanted, follow
from tests.faults.checker import Story, Terms, Violation, check, summary
from tests.faults.fleet import Fleet, fleet
from tests.faults.judge import Settings
from tests.faults.judging import Judge, judge
from tests.gateway.gateway_process import write_config
from tests.store.replicas import Server

GATEWAYS = 3
PATIENCE_S = 90.0  # a gateway that starts again may take long on a busy machine
LEDGER_S = 20.0
KEYED, ONCE, BATCHED = 24, 12, 4  # the most calls in flight
_SHARES = {"keyed": 5, "once": 3, "batched": 4}
_QUEUE = {"start_within": "60s", "expire_after": "10m", "max_jobs": 100_000, "durability": "fsync"}
_RETRY = {"for": "10m", "base": "100ms", "cap": "1s"}

TERMS: Mapping[str, Terms] = {
    "keyed": Terms(limit=KEYED),
    "once": Terms(limit=ONCE, is_once=True, honours_keys=False),
    "batched": Terms(limit=BATCHED),
}
# An attempt of `once` whose outcome was lost stays unknown: nobody is asked, and nobody guesses.
LOSSY_TERMS: Mapping[str, Terms] = {
    **TERMS,
    "once": Terms(
        limit=ONCE, is_once=True, honours_keys=False, ends=frozenset({"succeeded", "unknown"})
    ),
}  # fmt: skip


def _operation(name: str, concurrency: int, **more: Any) -> dict[str, Any]:
    return {
        "match": f"POST /{name}/{{order}}",
        "capacity": {"concurrency": concurrency},
        "overflow": "queue",
        "queue": _QUEUE,
        "idempotency": {"key": "required"},
        "retry": _RETRY,
        **more,
    }


def write_drill(folder: Path, *, judge_url: str, store_url: str) -> Path:
    """The configuration of all drills; its pipeline is `offers.PIPELINE`."""
    batch = {"max_items": 20, "window": "200ms", "path": f"POST /batched/{offers.BATCH}"}
    operations = {
        "keyed": _operation("keyed", KEYED, effects="keyed"),
        "once": _operation("once", ONCE, effects="once"),
        "batched": _operation("batched", BATCHED, effects="keyed", batch=batch),
    }
    pipeline = {
        "team": "drills", "downstream": {"url": judge_url, "timeout": "2s"}, "operations": operations,
    }  # fmt: skip
    gateway = {
        "cluster": "drill", "store": {"url": store_url, "timeout": "500ms"}, "log": {"sample": 0},
        "drain": {"timeout": "10s"},
    }  # fmt: skip
    write_config(folder, {offers.PIPELINE: pipeline}, gateway, {})
    return folder


def orders(seed: int, count: int) -> list[Wanted]:
    """What the callers want, mixed over all operations."""
    dice = Random(seed)
    names = dice.choices(list(_SHARES), weights=list(_SHARES.values()), k=count)
    return [Wanted(operation=name, order=f"{name}-{seed}-{number}") for number, name in enumerate(names)]


@dataclass(slots=True, kw_only=True)
class Drill:
    """
    A drill that runs.

    Attributes:
        kills: When a gateway was killed, monotonic seconds.
        guilty: See `checker.Story`.

    """

    seed: int
    server: Server
    judge: Judge
    fleet: Fleet
    session: aiohttp.ClientSession
    callers: Callers
    kills: list[float] = field(default_factory=list)
    guilty: dict[str, str] = field(default_factory=dict)

    def load(self, wanted: Sequence[Wanted], *, per_second: float) -> "asyncio.Task[None]":
        """Callers who hand in these orders, while something happens."""
        drive = self.callers.drive(wanted, per_second=per_second, patience_s=PATIENCE_S)
        return asyncio.get_running_loop().create_task(drive)

    async def kill(self, number: int) -> None:
        """SIGKILL a gateway, and start it again at once."""
        replica = self.fleet.replicas[number % len(self.fleet.replicas)]
        self.kills.append(await replica.kill())
        replica.start()

    async def story(self, *, seconds: float) -> Story:
        """Wait until all jobs have ended, at most so long, and read what everybody saw."""
        notes = self.callers.notes
        await asyncio.gather(*(replica.ready() for replica in self.fleet.replicas))
        accepted = list({each.job: None for each in notes.accepted})
        jobs = await follow(self.session, self.fleet.urls, accepted, seconds=seconds)
        replicas = self.fleet.replicas
        ledgers = await asyncio.gather(
            *(offers.read_settled_ledger(self.session, each.admin_url, LEDGER_S) for each in replicas)
        )
        return Story(
            accepted=notes.accepted, answered=notes.answered, jobs=jobs, judged=await self.judge.report(),
            ledgers={each.name: told for each, told in zip(replicas, ledgers, strict=True)},
            kills=self.kills, guilty=self.guilty,
        )  # fmt: skip

    async def verdict(self, terms: Mapping[str, Terms], *, seconds: float) -> list[Violation]:
        """What was not kept; says in a line what was seen, and all that is needed to run it again."""
        story = await self.story(seconds=seconds)
        ends: dict[str, int] = {}
        for job in story.jobs.values():
            state = job.state if job else "lost"
            ends[state] = ends.get(state, 0) + 1
        notes = self.callers.notes
        most = {name: seen.in_flight_max for name, seen in story.judged.items()}
        print(
            f"seed {self.seed}: {len(notes.accepted)} accepted, {len(notes.gave_up)} gave up, "
            f"came back after {dict(notes.refusals)}; {len(self.kills)} kills; ended {ends}; in flight {most}"
        )
        violations = check(story, terms)
        print(summary(violations))
        return violations


@asynccontextmanager
async def drill(folder: Path, server: Server, *, seed: int, **settings: Any) -> AsyncIterator[Drill]:
    """
    Everything is up while the block runs, and no gateway has logged a mistake of its own when it ends.

    Args:
        folder: For configuration and logs.
        server: The store; only of this drill.
        seed: Of the orders and of the judge.
        settings: Of the judge, by their names in `judge.Settings`.

    """
    limits = {name: terms.limit for name, terms in TERMS.items()}
    forgetful = [name for name, terms in TERMS.items() if not terms.honours_keys]
    judged = Settings(limits=limits, forgetful=forgetful, seed=seed, **settings)
    async with (
        judge(judged) as the_judge,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        config = write_drill(folder / "config", judge_url=the_judge.url, store_url=server.url)
        async with fleet(config, folder, GATEWAYS) as gateways:
            yield Drill(
                seed=seed, server=server, judge=the_judge, fleet=gateways, session=session,
                callers=Callers(gateways.urls, session),
            )  # fmt: skip
        assert gateways.bugs() == []
