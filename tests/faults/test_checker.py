"""The checker itself: it must find each broken promise, and must not find one where there is none."""

from dataclasses import replace
from typing import Any

import pytest

from tests.faults.calls import Told, check_calls
from tests.faults.checker import AROUND_KILL_S, Accepted, Answered, Kind, Story, Terms, check, summary
from tests.faults.judging import OperationSeen, OrderSeen
from tests.faults.offers import Job

TERMS = {
    "keyed": Terms(limit=4),
    "once": Terms(limit=2, is_once=True, honours_keys=False, ends=frozenset({"succeeded", "unknown"})),
}
BALANCED = {
    metric: {"drill.keyed": 0.0, "drill.once": 0.0}
    for metric in ("breaker_jobs_unaccounted", "breaker_jobs_lost")
}
DONE = OrderSeen(requests=1, effects=1, keys=("k1",))


def accepted(operation: str = "keyed", number: int = 1, *, job: str = "") -> Accepted:
    return Accepted(
        operation=operation,
        order=f"o{number}",
        key=f"k{number}",
        job=job or f"drill.{operation}~{number}",
        at=1.0,
    )


def a_job(state: str = "succeeded", reason: str = "") -> Job:
    return Job(state=state, reason=reason, attempts=1)


def a_story(
    operation: str = "keyed", *, job: Job | None = None, seen: OrderSeen = DONE, **more: Any
) -> Story:
    """One order that was accepted as one job."""
    one = accepted(operation)
    story = Story(
        accepted=[one],
        jobs={one.job: job or a_job()},
        judged={operation: OperationSeen(orders={"o1": seen})},
        ledgers={"gateway-0": BALANCED},
    )
    return replace(story, **more)


def kinds(story: Story) -> list[Kind]:
    return [violation.kind for violation in check(story, TERMS)]


def test_nothing_is_found_where_all_is_well() -> None:
    """A checker that always finds something is switched off."""
    assert kinds(a_story()) == []
    assert kinds(a_story("once", job=a_job("unknown"))) == []
    assert summary([]) == ""


def test_a_202_without_a_job_is_found() -> None:
    """The worst of all: a caller believes that it will be done."""
    lost = a_story(jobs={"drill.keyed~1": None})
    assert kinds(lost) == [Kind.LOST]
    assert kinds(replace(lost, jobs={})) == [Kind.LOST], "nobody ever answered about it"


def test_two_jobs_for_one_key_are_found() -> None:
    """A caller who came back with the same key got another job."""
    other = "drill.keyed~2"
    story = a_story()
    both = replace(
        story, accepted=[*story.accepted, accepted(job=other)], jobs={**story.jobs, other: a_job()}
    )
    assert kinds(both) == [Kind.TWO_JOBS]
    assert kinds(replace(story, accepted=[*story.accepted, accepted()])) == [], "told twice is fine"


@pytest.mark.parametrize("state", ["queued", "scheduled", "held"])
def test_a_job_that_still_waits_is_found_unless_it_may(state: str) -> None:
    """`reached an end or is waiting` is the promise; a drill that drains wants the end."""
    story = a_story(job=a_job(state), seen=OrderSeen())
    assert kinds(story) == [Kind.NOT_ENDED]
    assert kinds(replace(story, may_wait=True)) == []


@pytest.mark.parametrize("state", ["running", "a word that nobody knows"])
def test_a_job_that_neither_ends_nor_waits_is_found(state: str) -> None:
    """Stuck for ever in the hands of a dead gateway."""
    assert kinds(a_story(job=a_job(state), may_wait=True)) == [Kind.NOT_ENDED]


@pytest.mark.parametrize("state", ["unknown", "dead", "expired", "cancelled", "discarded"])
def test_an_end_that_a_drill_does_not_allow_is_found(state: str) -> None:
    """The downstream would have done it, had it been asked once more."""
    assert kinds(a_story(job=a_job(state), seen=OrderSeen())) == [Kind.WRONG_END]


def test_an_order_that_took_effect_twice_is_found() -> None:
    """Money was taken twice."""
    twice = OrderSeen(requests=2, effects=2, keys=("k1",))
    assert kinds(a_story(seen=twice)) == [Kind.TWO_EFFECTS]


def test_an_order_under_another_key_is_found() -> None:
    """A gateway that invents a key per attempt defeats every downstream that honours them."""
    assert kinds(a_story(seen=replace(DONE, keys=("k1", "x")))) == [Kind.OTHER_KEY]
    assert kinds(a_story(seen=replace(DONE, keys=("x",)))) == [Kind.OTHER_KEY]
    gave_up = a_story(accepted=[], jobs={})
    assert kinds(gave_up) == [], "its caller gave up, and its key is not known here"
    two = OperationSeen(orders={"o1": replace(DONE, keys=("x", "y"))})
    assert kinds(replace(gave_up, judged={"keyed": two})) == [Kind.OTHER_KEY]


def test_an_order_of_effects_once_that_was_sent_again_is_found() -> None:
    """But not when the downstream had said that it failed: that outcome is known."""
    keys = ("k1",)
    again = OrderSeen(requests=2, effects=1, keys=keys)
    assert kinds(a_story("once", seen=again)) == [Kind.SENT_AGAIN]
    assert kinds(a_story("keyed", seen=again)) == []
    assert kinds(a_story("once", seen=replace(again, failures=1))) == []
    assert kinds(a_story("once", seen=replace(again, requests=3, failures=1))) == [Kind.SENT_AGAIN]


def test_a_success_without_an_effect_is_found() -> None:
    """The caller was told that it is done, as a job or directly."""
    assert kinds(a_story(seen=OrderSeen())) == [Kind.NO_EFFECT]
    assert kinds(a_story(judged={})) == [Kind.NO_EFFECT]
    direct = Answered(operation="keyed", order="o1", key="k1", status=200)
    assert kinds(a_story(accepted=[], jobs={}, answered=[direct])) == []
    assert kinds(a_story(accepted=[], jobs={}, answered=[direct], judged={})) == [Kind.NO_EFFECT]


def test_an_answer_that_no_order_should_get_is_found() -> None:
    """A 400 or 422 to a careful caller: it was right, and is not served."""
    wrong = Answered(operation="keyed", order="o1", key="k1", status=422)
    assert kinds(a_story(answered=[wrong])) == [Kind.REFUSED]


@pytest.mark.parametrize("state", ["expired", "cancelled"])
def test_an_end_before_the_start_of_an_order_that_was_sent_is_found(state: str) -> None:
    """Both say that nothing was done."""
    terms = {**TERMS, "keyed": Terms(limit=4, ends=frozenset({state}))}
    found = check(a_story(job=a_job(state)), terms)
    assert [violation.kind for violation in found] == [Kind.STARTED]
    assert check(a_story(job=a_job(state), judged={}), terms) == []


def test_more_in_flight_than_the_limit_is_found() -> None:
    """The one promise that the downstream's owner sees."""

    def judged(at: float, in_flight: int, abandoned: int) -> dict[str, OperationSeen]:
        return {"keyed": OperationSeen(orders={"o1": DONE}, over=((at, in_flight, abandoned),))}

    assert kinds(a_story(judged=judged(5.0, 5, 1))) == [Kind.OVER_LIMIT], "nobody was killed"
    assert kinds(a_story(judged=judged(5.0, 5, 1), kills=[6.0])) == [Kind.OVER_LIMIT], "not yet"
    assert kinds(a_story(judged=judged(5.0, 5, 1), kills=[5.0])) == []
    assert kinds(a_story(judged=judged(5.0, 6, 1), kills=[5.0])) == [Kind.OVER_LIMIT]
    late = 5.0 + AROUND_KILL_S
    assert kinds(a_story(judged=judged(late, 5, 1), kills=[1.0, 5.0])) == []
    assert kinds(a_story(judged=judged(late + 0.1, 5, 1), kills=[5.0])) == [Kind.OVER_LIMIT]


@pytest.mark.parametrize("metric", ["breaker_jobs_unaccounted", "breaker_jobs_lost"])
@pytest.mark.parametrize("value", [1.0, -1.0, None])
def test_a_ledger_that_does_not_balance_or_is_not_told_is_found(metric: str, value: float | None) -> None:
    """On any gateway, for any operation; and a metric that is missing balances nothing."""
    values = {"drill.keyed": 0.0} | ({} if value is None else {"drill.once": value})
    ledgers = {"gateway-0": BALANCED, "gateway-1": {**BALANCED, metric: values}}
    found = check(a_story(ledgers=ledgers), TERMS)
    assert [violation.kind for violation in found] == [Kind.LEDGER]
    assert "gateway-1 once" in str(found[0])
    assert metric in str(found[0])
    assert kinds(a_story(ledgers={})) == [Kind.LEDGER]


def test_an_innocent_job_that_ended_as_poison_is_found() -> None:
    """Whoever stood beside the bad one must not be punished; the bad one must be."""
    poisoned = a_story(job=a_job("dead", "poison"), seen=OrderSeen(requests=3, keys=("k1",)))
    assert kinds(poisoned) == [Kind.POISON]
    assert kinds(replace(poisoned, guilty={"o1": "dead poison"})) == []
    assert kinds(replace(poisoned, guilty={"o1": "dead caller"})) == [Kind.WRONG_END]
    assert kinds(a_story(guilty={"o1": "dead"})) == [Kind.WRONG_END], "it is bad, and succeeded"


def test_the_summary_counts_and_shows_the_first() -> None:
    """Thousands of lines would hide what is wrong."""
    orders = {f"o{number}": replace(DONE, effects=2, keys=(f"k{number}",)) for number in range(9)}
    told = summary(check(a_story(judged={"keyed": OperationSeen(orders=orders)}), TERMS), most=2)
    assert told.splitlines()[0] == "9 x an order that took effect twice"
    assert len(told.splitlines()) == 3


# Direct calls.


def told(status: int = 200, outcome: str = "forwarded", **more: Any) -> Told:
    said: dict[str, Any] = {
        "operation": "read", "order": "o1", "status": status, "outcome": outcome, "problem": "", "broke": "",
        "began": 1.0, "took_s": 0.1,
    }  # fmt: skip
    return Told(**(said | more))


def call_kinds(one: Told, seen: OrderSeen, *, may_break: bool = False, **more: Any) -> list[Kind]:
    judged = {"read": OperationSeen(orders={"o1": seen}, **more)}
    return [violation.kind for violation in check_calls([one], judged, {"read": 2}, may_break=may_break)]


SENT = OrderSeen(requests=1)


@pytest.mark.parametrize(
    ("one", "seen", "found"),
    [
        (told(), DONE, []),
        (told(), SENT, [Kind.NO_EFFECT]),
        (told(202, "queued"), OrderSeen(), []),
        (told(503, "refused"), OrderSeen(), []),
        (told(503, "refused"), SENT, [Kind.EXECUTED]),
        (told(409, "refused"), DONE, []),
        (told(504, "unknown"), DONE, []),
        (told(500, "forwarded"), SENT, []),
        (told(500, "failed"), SENT, [Kind.OURS]),
        (told(0, "", broke="hung up"), SENT, [Kind.NO_ANSWER]),
        (told(), OrderSeen(requests=2, effects=2), [Kind.TWO_EFFECTS]),
    ],
)
def test_each_lie_about_a_direct_call_is_found(one: Told, seen: OrderSeen, found: list[Kind]) -> None:
    """An answer, a refusal and a silence promise different things."""
    assert call_kinds(one, seen) == found


def test_a_call_may_break_where_its_gateway_was_killed_and_never_exceeds_the_limit() -> None:
    """Nobody is held to what a dead process did not say."""
    silent = told(0, "", broke="ServerDisconnectedError")
    assert call_kinds(silent, SENT, may_break=True) == []
    assert call_kinds(told(), DONE, over=((1.0, 3, 0),)) == [Kind.OVER_LIMIT]
    assert call_kinds(told(), DONE, over=((1.0, 2, 0),)) == []
