"""Whatever happens to a call, it is counted once, and spends nothing that it cannot use."""

import asyncio
from pathlib import Path

import pytest

from breaker.core.config import Gateway
from breaker.core.errors import ConfigError, StartError
from breaker.gateway.downstream import Pool
from breaker.policy.restart import NEEDS_RESTART, refuse_what_needs_a_restart
from breaker.web.listener import bind
from tests.gateway.gateway_process import Start, free_ports
from tests.gateway.raw_downstream import Peer, answering, raw_downstream
from tests.web.raw_caller import ask, get, raw_caller

LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000


class Counting:
    """Answers at length, and counts what it was asked."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.count += 1
            await peer.send(LONG)


async def test_a_caller_that_leaves_without_reading_is_counted_once(start_gateway: Start) -> None:
    """Its answer was given to the connection, and whether it read that changes the count no more."""
    seen = Counting()
    async with raw_downstream(seen) as downstream:
        pipeline = {
            "team": "t",
            "downstream": {"url": downstream.url},
            "operations": {"one": {"match": "GET /x"}},
        }
        async with start_gateway({"desk": pipeline}) as served:
            async with raw_caller(served.port) as caller:
                await caller.send(get("/desk/x") * 100)
                async with asyncio.timeout(10):
                    while sum((await served.outcomes("desk.one")).values()) < 20:
                        await asyncio.sleep(0.02)
            async with asyncio.timeout(10):
                while sum((await served.outcomes("desk.one")).values()) < seen.count:
                    await asyncio.sleep(0.02)
            assert sum((await served.outcomes("desk.one")).values()) == seen.count


async def test_a_deadline_that_has_passed_spends_nothing(start_gateway: Start) -> None:
    """`Request-Timeout: 0` asks for nothing that could be done; the next caller needs the token."""
    hi = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    async with raw_downstream(answering(hi)) as downstream:
        one = {"match": "GET /x", "capacity": {"rate": "1/h"}, "max_wait": "0s"}
        pipeline = {"team": "t", "downstream": {"url": downstream.url}, "operations": {"one": one}}
        async with start_gateway({"desk": pipeline}) as served:
            late = await ask(served.port, get("/desk/x", "Request-Timeout: 0"))
            assert (late.status, late.kind, late.one("Breaker-Outcome")) == (504, "deadline", "refused")
            assert (await ask(served.port, get("/desk/x"))).status == 200


@pytest.mark.parametrize("name", NEEDS_RESTART)
def test_a_setting_that_needs_a_restart_is_not_taken_for_reloaded(name: str) -> None:
    """Else the file says one thing, and the process does another, and nobody is told."""
    old = Gateway()
    value = getattr(old, name)
    changed = {name: not value if isinstance(value, bool) else f"{value}x" if isinstance(value, str) else 7}
    new = Gateway(**changed)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=name):
        refuse_what_needs_a_restart(old, new, Path("config"))
    refuse_what_needs_a_restart(old, old, Path("config"))


def test_a_port_that_another_gateway_shares_is_taken() -> None:
    """Two gateways on one port would share callers, and nobody would notice."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    shared = bind(address, "listen", shared=True)
    with pytest.raises(StartError, match=f"listen {address}"):
        bind(address, "listen")
    shared.close()


async def test_a_mistake_of_ours_is_counted_and_gives_the_slot_back(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly when something is wrong with us, SREs must see that it is."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    hi = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    async with raw_downstream(answering(hi)) as downstream:
        one = {"match": "GET /x", "capacity": {"concurrency": 1}}
        pipeline = {"team": "t", "downstream": {"url": downstream.url}, "operations": {"one": one}}
        seen: list[object] = []
        # No gateway of a test may log a mistake; that this one did is the point.
        with pytest.raises(AssertionError):  # noqa: PT012 - the fixture raises when the gateway ends
            async with start_gateway({"desk": pipeline}) as served:
                monkeypatch.setattr(Pool, "send", broken)
                seen.append((await ask(served.port, get("/desk/x"))).status)
                await served.until_slots("desk.one", 0)
                seen.append(await served.outcomes("desk.one"))
        assert seen == [500, {"unknown:bug": 1}]
