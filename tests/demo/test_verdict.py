"""
The demonstration's verdict: that it notices what it is there to notice.

For who trusts "all checks agree".
"""

from dataclasses import replace

import pytest

from breaker.core.circuit_policy import WhenStoreDown
from breaker.core.model import Rate
from breaker.demo.callers import NO_ANSWER
from breaker.demo.told import Told
from breaker.demo.verdict import checks, not_shown, tightest_window
from breaker.demo.view import Seen
from tests.demo.story import READ, differing, story

RATE = Rate(limit=10, period_us=1_000_000, burst=3)


@pytest.fixture
async def told() -> Told:
    """Of the queues nothing: they are test_ledger.py's."""
    whole = await story()
    whole.callers.jobs.clear()
    for name, tally in whole.callers.tallies.items():
        if name != READ:
            tally.sent = 0
            tally.outcomes.clear()
    seen = whole.seen["billing"]
    reads = replace(
        seen, started=3, starts=seen.starts[:3], request_ids=dict(list(seen.request_ids.items())[:3]),
        effects_by_key={},
    )  # fmt: skip
    return replace(
        whole, after={READ: whole.after[READ]}, queues_before={}, queues={}, seen={"billing": reads}
    )


async def test_the_same_story_agrees(told: Told) -> None:
    assert differing(told) == []


async def test_a_call_without_an_answer_differs(told: Told) -> None:
    told.callers.tallies[READ].sent += 1
    told.callers.tallies[READ].outcomes[NO_ANSWER] += 1
    assert differing(told) == ["one answer each"]


async def test_a_call_that_the_gateway_did_not_count_differs(told: Told) -> None:
    told.after[READ].outcomes["forwarded"] -= 1
    assert differing(told) == ["forwarded"]


async def test_a_refusal_for_another_reason_differs(told: Told) -> None:
    told.after[READ].refusals.clear()
    told.after[READ].refusals["tenant"] = 1
    assert differing(told) == ["refused: rate", "refused: tenant"]


async def test_a_call_over_capacity_that_no_alert_can_see_differs(told: Told) -> None:
    told.after[READ].actions.clear()
    assert differing(told) == ["over capacity"]


@pytest.mark.parametrize(("others", "differs"), [(False, ["forwarded"]), (True, [])])
async def test_calls_of_others_are_not_held_against_a_run_that_stays_up(
    told: Told, others: bool, differs: list[str]
) -> None:
    told.after[READ].outcomes["forwarded"] += 1
    assert differing(replace(told, others_may_call=others)) == differs


async def test_a_forwarded_call_that_never_arrived_differs(told: Told) -> None:
    seen = told.seen["billing"]
    ids = dict(list(seen.request_ids.items())[:2])
    lost = replace(seen, started=2, starts=seen.starts[:2], request_ids=ids)
    assert differing(replace(told, seen={"billing": lost})) == ["forwarded, and arrived"]


async def test_a_refused_call_that_arrived_all_the_same_differs(told: Told) -> None:
    seen = told.seen["billing"]
    ids = {**seen.request_ids, "demo1-2-000009": 1}
    leaked = replace(seen, started=4, starts=(*seen.starts, 5.3), request_ids=ids)
    assert differing(replace(told, seen={"billing": leaked})) == ["forwarded, and arrived"]


async def test_a_call_that_arrived_twice_differs(told: Told) -> None:
    seen = told.seen["billing"]
    ids = {**seen.request_ids, "demo1-2-000000": 2}
    twice = replace(seen, started=4, starts=(*seen.starts, 5.3), request_ids=ids)
    assert "no call arrived twice" in differing(replace(told, seen={"billing": twice}))


async def test_one_more_in_flight_than_stated_differs(told: Told) -> None:
    over = replace(told.seen["billing"], in_flight_max=9)
    assert differing(replace(told, seen={"billing": over})) == ["most in flight"]


async def test_more_starts_than_the_rate_allows_differ(told: Told) -> None:
    """50/s with a burst of 20: a hundred within 0.2 s are not what was stated."""
    tally, count = told.callers.tallies[READ], 100
    tally.sent, tally.outcomes["forwarded"] = count + 1, count
    told.after[READ].outcomes["forwarded"] = count
    fast = Seen(
        in_flight_max=1,
        started=count,
        starts=tuple(5 + number / 500 for number in range(count)),
        request_ids={f"demo1-2-{number:06}": 1 for number in range(count)},
    )
    ran = replace(told, seen={"billing": fast})
    assert differing(ran) == ["starts in the tightest window"]
    # Reads go on without the store, all of them; where an operation shares out its capacity then, it is judged.
    assert differing(replace(ran, store_errors=1)) == []
    shares = replace(told.operations[READ], when_store_down=WhenStoreDown.LOCAL_SHARE)
    ran = replace(ran, store_errors=1, operations={**told.operations, READ: shares})
    assert differing(ran) == ["starts in the tightest window"]


async def test_calls_past_the_gateway_are_said_instead_of_held_against_it(told: Told) -> None:
    past = replace(told.seen["billing"], started=5, in_flight_max=10)
    found = checks(replace(told, seen={"billing": past}))
    assert [check.left for check in found if not check.agrees] == ["downstream 2"]
    assert not any(check.what == "most in flight" for check in found)


async def test_calls_that_were_in_flight_when_the_counting_began_did_not_come_past_the_gateway(
    told: Told,
) -> None:
    """Jobs that an earlier run left behind start before anybody looks."""
    early = replace(told.seen["billing"], started=5)
    assert differing(replace(told, seen={"billing": early}, carried={"billing": 2})) == []
    assert len(differing(replace(told, seen={"billing": early}, carried={"billing": 1}))) == 1


def test_a_window_is_as_long_as_its_debt() -> None:
    """3 at once and then every 100 ms is the rate; a burst after a pause begins a window of its own."""
    even = [(at_s, 1) for at_s in (5.0, 5.0, 5.0, 5.1, 5.2, 5.3)]
    assert tightest_window(even, RATE)[0] == pytest.approx(RATE.burst + 10 * tightest_window(even, RATE)[1])
    count, window_s = tightest_window([(at_s, 1) for at_s in (5.0, 5.0, 9.0, 9.0, 9.0, 9.0)], RATE)
    assert (count, window_s) == (4, 0.0)
    assert tightest_window([(5.0, 1)], RATE) == (1, 0.0)


def test_a_batch_starts_when_a_call_could_and_is_debt_for_the_next() -> None:
    """A batch of ten at 10/s is a second of the rate: what comes before that second is over is too early."""
    assert tightest_window([(5.0, 10)], RATE) == (1, 0.0)
    count, window_s = tightest_window([(5.0, 10), (5.5, 1)], RATE)
    assert (count, window_s) == (11, 0.5)
    assert count > RATE.burst + 10 * window_s
    count, window_s = tightest_window([(5.0, 10), (5.9, 1)], RATE)
    assert count <= RATE.burst + 10 * window_s
    assert tightest_window([(5.0, 10), (6.1, 10)], RATE) == (1, 0.0)
    assert tightest_window([(5.0, 1), (5.0, 1), (9.0, 10)], RATE) == (2, 0.0)  # of a batch the first counts


async def test_what_was_not_shown_is_named(told: Told) -> None:
    missing = not_shown(told.callers)
    assert "a call that was delayed" in missing
    assert "a call that was forwarded" not in missing
    assert "a call that was refused by shared capacity (503)" not in missing
    assert "a call that was queued (202)" in missing
    assert "a job that is dead" in missing
    assert len(missing) == 7
