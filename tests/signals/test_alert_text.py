"""The text of an alert, as somebody reads it who has just been woken."""

from dataclasses import replace

import pytest

from breaker.core.alert_policy import Alerting
from breaker.core.alert_table import BY_KEY
from breaker.core.notify import Kind
from breaker.signals.alert_text import moment_text, plain, span_text, text_of
from tests.signals.alert_scene import MINUTE_US, SINCE_US, message_of, noticed

SECOND_US, HOUR_US, DAY_US = 1_000_000, 60 * MINUTE_US, 1_440 * MINUTE_US

PROMISE = """\
FIRING critical: BreakerPromiseAtRisk
billing.charge-invoice: jobs in band normal will break their promise:
they will have waited 3 h 5 min, promised are 2 h.
216000 jobs wait. At 20/s this clears in 3 h; 34/s would keep the
promise. Nothing is lost: all of them are on disk, in order.
Impact: Whoever sent the last of them gets an answer later than was
promised.
Do: breaker ops set billing.charge-invoice rate=34/s --for 1h --reason "promise at risk"
    if the downstream can take it: breaker ops show billing.charge-invoice
Since 14:02 UTC (3 min), team finance, cluster production
Runbook: https://wiki.example.com/breaker/BreakerPromiseAtRisk.md
Dashboard: https://grafana.example.com/d/breaker-operation/breaker-operation?var-operation=billing.charge-invoice"""

OVER_CAPACITY = """\
FIRING warning: BreakerOverCapacity
billing.charge-invoice is asked for 130% of what its rate allows.
Demand would use 26/s, allowed are 20/s. What was done with the rest:
1800 queued within five minutes.
Impact: Calls beyond the limit become jobs and wait; nothing is lost.
Do: breaker ops set billing.charge-invoice rate=34/s --for 1h --reason "over capacity"
    if the downstream can take it: breaker ops show billing.charge-invoice
Since 14:02 UTC (3 min), team finance, cluster production
Runbook: https://wiki.example.com/breaker/BreakerOverCapacity.md
Dashboard: https://grafana.example.com/d/breaker-operation/breaker-operation?var-operation=billing.charge-invoice"""

CIRCUIT_OPEN = """\
FIRING warning: BreakerCircuitOpen
billing.charge-invoice: the circuit is open.
64% of the last attempts failed (timeout). Jobs are held and lose
nothing but time; probes go on by themselves.
Impact: Nothing of this operation reaches the downstream; calls
without a queue are refused.
Do: breaker circuit show billing.charge-invoice
Since 14:02 UTC (3 min), team finance, cluster production
Runbook: https://wiki.example.com/breaker/BreakerCircuitOpen.md
Dashboard: https://grafana.example.com/d/breaker-operation/breaker-operation?var-operation=billing.charge-invoice"""

STORE_DOWN = """\
FIRING critical: BreakerStoreDown
The store cannot be used.
no answer from redis-0:6379 for 5 s. Each operation does what its
`when_store_down` says: its local share, refuse, or allow; no 202 is
given.
Impact: Queued work stands still; direct calls go on with a smaller
share, or are refused.
Do: breaker ops list
Since 14:02 UTC (3 min), cluster production
Runbook: https://wiki.example.com/breaker/BreakerStoreDown.md
Dashboard: https://grafana.example.com/d/breaker-overview/breaker-overview"""

JOBS_LOST = """\
FIRING critical: BreakerJobsLost
billing.charge-invoice: the store has lost 3 jobs that callers were
given a 202 for.
The store went back in time: a failover to a replica that was behind,
or a restore.
Impact: This work will not be done unless its callers send it again;
with the same Idempotency-Key that is safe.
Do: breaker ops show billing.charge-invoice
Since 14:02 UTC (3 min), team finance, cluster production
Runbook: https://wiki.example.com/breaker/BreakerJobsLost.md
Dashboard: https://grafana.example.com/d/breaker-operation/breaker-operation?var-operation=billing.charge-invoice"""


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("BreakerPromiseAtRisk:critical", PROMISE),
        ("BreakerOverCapacity:warning", OVER_CAPACITY),
        ("BreakerCircuitOpen:warning", CIRCUIT_OPEN),
        ("BreakerStoreDown:critical", STORE_DOWN),
        ("BreakerJobsLost:critical", JOBS_LOST),
    ],
)
def test_alert_says_what_how_bad_who_is_hurt_and_what_to_do(key: str, text: str) -> None:
    """These five, word by word, as they are read at three in the morning."""
    assert text_of(message_of(Kind.FIRING, noticed(key))) == text


@pytest.mark.parametrize("key", BY_KEY)
def test_every_alert_fits_one_screen_of_a_phone(key: str) -> None:
    """What has to be scrolled to is not read; commands and links are whole, so that they can be copied."""
    lines = text_of(message_of(Kind.FIRING, noticed(key))).splitlines()
    assert len(lines) <= 12
    copied = ("Do: ", "    ", "Runbook: ", "Dashboard: ")
    assert all(len(line) <= 70 for line in lines if not line.startswith(copied))
    assert sum(line.startswith("Do: breaker ") for line in lines) == 1


def test_alert_that_goes_on_says_so() -> None:
    """Who knows it already sees at once that it is not another one."""
    text = text_of(
        message_of(Kind.REPEATED, noticed("BreakerCircuitOpen:warning"), made_us=SINCE_US + 4 * HOUR_US)
    )
    first, *rest = text.splitlines()
    assert first == "STILL FIRING warning: BreakerCircuitOpen"
    assert rest == CIRCUIT_OPEN.replace("(3 min)", "(4 h)").splitlines()[1:]


def test_end_says_after_how_long() -> None:
    """There is nothing to do, and somewhere to look at what it was."""
    over = noticed("BreakerCircuitOpen:warning", ended_us=SINCE_US + 12 * MINUTE_US + SECOND_US)
    assert text_of(message_of(Kind.RESOLVED, over, made_us=SINCE_US + 30 * MINUTE_US)) == (
        "RESOLVED warning: BreakerCircuitOpen\n"
        "It was: billing.charge-invoice: the circuit is open.\n"
        "Resolved after 12 min, 14:02 to 14:14 UTC, team finance, cluster production\n"
        "Dashboard: https://grafana.example.com/d/breaker-operation/breaker-operation?var-operation=billing.charge-invoice"
    )


def test_acknowledgement_says_by_whom() -> None:
    """The others can go back to sleep."""
    notice = noticed("BreakerStoreDown:critical", alerting=Alerting())
    assert text_of(message_of(Kind.ACKNOWLEDGED, notice, detail="jane: calling the\nhosting company")) == (
        "ACKNOWLEDGED critical: BreakerStoreDown\n"
        "By jane: calling the hosting company\n"
        "The store cannot be used.\n"
        "Since 14:02 UTC (3 min), cluster production"
    )


@pytest.mark.parametrize("detail", ["jane tries it", ""])
def test_test_cannot_be_taken_for_an_alert(detail: str) -> None:
    """Nobody gets up for it."""
    assert text_of(message_of(Kind.TEST, detail=detail)) == (
        "TEST of the way to on-call\n"
        f"{detail or 'Somebody wanted to know whether alerts arrive here.'}\n"
        "Nothing is wrong. 14:05 UTC, cluster production"
    )


def test_several_incidents_are_listed_and_counted() -> None:
    """One ill downstream of many operations is still one screen."""
    notices = [
        noticed("BreakerCircuitOpen:warning", f"billing.op-{number}", since_us=SINCE_US - number * MINUTE_US)
        for number in range(6)
    ]
    assert text_of(message_of(Kind.FIRING, *notices)) == (
        "FIRING warning: BreakerCircuitOpen (6)\n"
        "- billing.op-0: the circuit is open.\n"
        "- billing.op-1: the circuit is open.\n"
        "- billing.op-2: the circuit is open.\n"
        "- billing.op-3: the circuit is open.\n"
        "and 2 more\n"
        "Impact: Nothing of this operation reaches the downstream; calls\n"
        "without a queue are refused.\n"
        "Do: breaker circuit show billing.op-0\n"
        "Since 13:57 UTC (8 min), team finance, cluster production\n"
        "Runbook: https://wiki.example.com/breaker/BreakerCircuitOpen.md"
    )
    assert "more" not in text_of(message_of(Kind.FIRING, *notices[:4]))


def test_ends_of_several_incidents_have_each_its_time() -> None:
    """They did not all last as long."""
    one = noticed("BreakerPromiseAtRisk:critical", "a.one", ended_us=SINCE_US + 12 * MINUTE_US)
    other = noticed("BreakerPromiseAtRisk:critical", "a.other", ended_us=SINCE_US + 45 * SECOND_US)
    assert text_of(message_of(Kind.RESOLVED, one, other, made_us=SINCE_US + HOUR_US)) == (
        "RESOLVED critical: BreakerPromiseAtRisk (2)\n"
        "- a.one, band normal: resolved after 12 min, 14:02 to 14:14 UTC\n"
        "- a.other, band normal: resolved after 45 s, 14:02 to 14:02 UTC\n"
        "team finance, cluster production"
    )


def test_what_others_wrote_is_one_bounded_line_without_control_characters() -> None:
    """The text is shown on terminals; a detail of a megabyte must not push the command off the screen."""
    notice = noticed("BreakerStoreDown:critical", detail="\x1b[2J\u202ex\n" * 10_000)
    action = {**notice.annotations, "action": "breaker ops list\x07"}
    text = text_of(message_of(Kind.FIRING, replace(notice, annotations=action)))
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) <= 13
    assert plain("a" * 280) == "a" * 280
    assert plain("a" * 281) == "a" * 279 + "…"


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (-1, "0 s"), (59 * SECOND_US, "59 s"), (MINUTE_US - 1, "59 s"), (MINUTE_US, "1 min"), (HOUR_US - 1, "59 min"),
        (HOUR_US, "1 h"), (HOUR_US + MINUTE_US - 1, "1 h"), (3 * HOUR_US + 5 * MINUTE_US, "3 h 5 min"),
        (DAY_US - 1, "23 h 59 min"), (DAY_US, "1 d"), (2 * DAY_US + 3 * HOUR_US, "2 d 3 h"),
    ],
)  # fmt: skip
def test_times_are_said_in_their_two_largest_units(us: int, text: str) -> None:
    """Nobody divides by 3600 at night."""
    assert span_text(us) == text


def test_date_is_said_when_it_is_another_day() -> None:
    """23:50 may be ten minutes ago, or a day and ten minutes."""
    midnight_us = SINCE_US // DAY_US * DAY_US
    assert moment_text(midnight_us, midnight_us + DAY_US - 1) == "00:00"
    assert moment_text(midnight_us - 1, midnight_us) == "05 Jan 23:59"
