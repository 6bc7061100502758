"""Limits that a person sets, as the gate goes by them: also where the file states none."""

import pytest

from breaker.core.model import Limits
from breaker.core.override import Change
from breaker.core.verdict import Admitted, Refused
from tests.gateway.gate_scene import gate_replica
from tests.store.replicas import an_operation


@pytest.mark.parametrize("limits", [Limits(), Limits(concurrency=9)])
async def test_calls_ask_as_long_as_a_person_has_set_limits(
    store_url: str, cluster: str, limits: Limits
) -> None:
    """An operation that nobody ever limited costs no round trip, until it is the one that has to be limited."""
    is_unlimited = limits == Limits()
    async with gate_replica(store_url, cluster, an_operation(limits=limits)) as one:
        operation = one.work.operation.name
        assert one.gate.is_free(one.work) is is_unlimited
        until_us = one.store.clock.now_us() + 3_600_000_000
        await one.store.overrides.set(operation, Change(concurrency=1), until_us, "ann", "x")
        assert not one.gate.is_free(one.work)
        held = await one.hold()
        assert isinstance(await one.ask(), Refused)
        one.end(held)
        assert isinstance(await one.ask(wait_s=2.0), Admitted)
        await one.store.overrides.end(operation, "ann", "over")
        assert one.gate.is_free(one.work) is is_unlimited
        assert isinstance(await one.ask(), Admitted)
