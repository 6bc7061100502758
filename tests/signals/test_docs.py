"""The manual says what the code does, in both directions."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from breaker.core.alert_policy import Severity
from breaker.core.alert_table import ALERTS
from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import WhenStoreDown
from breaker.core.events import (
    AcksLate,
    Action,
    AlertMoved,
    CallbackEnded,
    CallRetried,
    CircuitSeen,
    ClockJumped,
    ConfigLoaded,
    Event,
    JobsLost,
    JobsReclaimed,
    LeasesLost,
    LetterEnded,
    Outcome,
    OverrideChanged,
    ReplicasSeen,
    Result,
    SlowedDown,
    StoreFailed,
    StoreRecovered,
    TenantsExceeded,
)
from breaker.core.job_policy import BANDS, Band, Queue
from breaker.core.jobs import Fate, Reason
from breaker.core.notify import Kind as LetterKind
from breaker.core.verdict import Policy
from breaker.signals.alert_metrics import RESULTS
from breaker.signals.call_log import CallLog
from breaker.signals.capacity import Demand
from breaker.signals.expected import Expected
from breaker.signals.job_series import CALLBACK_RESULTS
from breaker.signals.lines import LINE_MAX
from breaker.signals.logs import configure
from breaker.signals.metrics import Metrics
from breaker.signals.outcomes import OTHER, PAIRS, QUEUE_PAIRS, SHADOWED, UNKNOWN_PAIRS
from breaker.signals.queues import counters_of, gauges_of
from breaker.signals.retry_metrics import CALL_REASONS, JOB_REASONS
from breaker.signals.store_metrics import KINDS
from breaker.signals.watch import Watch
from breaker.store.capacity import Look
from tests.signals.scene import Clock, Pipe, attempted, ended, look, named, numbers, queue_look
from tests.signals.test_circuit_log import LINES
from tests.signals.test_metrics import SERIES_MAX, SERIES_MAX_PROCESS, SERIES_MAX_QUEUE
from tests.signals.test_watch import sources

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
QUEUE = Queue(start_within_ms=60_000, jobs_max=1)
EXPECTED = Expected(seconds=dict.fromkeys(BANDS, 1.0), needed=2.0)
SUFFIX = {"counter": "_total", "info": "_info"}


def table(file: str, *columns: str) -> list[list[str]]:
    """The rows of the table with this head."""
    text = (DOCS / file).read_text(encoding="utf-8")
    head = "| " + " | ".join(columns) + " |\n"
    rows = text.partition(head)[2].partition("\n\n")[0].splitlines()[1:]
    assert rows, f"{file} has no table {head}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_metric_is_documented_as_it_is_exported(make_metrics: Callable[..., Metrics]) -> None:
    """Other people's dashboards are written from this page."""
    metrics = make_metrics(queues=("billing.charge",))
    metrics.observe("billing.charge", look(), Demand(started=1, wanted=1))
    metrics.observe_queue("billing.charge", queue_look(), dict.fromkeys(BANDS, 1.0), EXPECTED)
    metrics.observe_removed({"billing.gone": 3})
    metrics.observe_memory(0.5)
    metrics.listen(ReplicasSeen(live=3, differing=0, version="v1"))
    metrics.alerts.configured(["oncall"])
    metrics.configured("v1", named(queues=("billing.charge",)))
    exported = {
        family.name + SUFFIX.get(family.type, ""): (
            family.type,
            sorted({label for sample in family.samples for label in sample.labels} - {"le"}),
            family.documentation,
        )
        for family in metrics.registry.collect()
    }
    rows = table("metrics.md", "name", "type", "labels", "unit", "meaning", "aggregate with")
    assert {
        words(name)[0]: (kind, sorted(words(labels)), meaning) for name, kind, labels, _, meaning, _ in rows
    } == (exported)


def test_what_every_replica_says_of_the_store_is_aggregated_with_max(
    make_metrics: Callable[..., Metrics], clock: Clock
) -> None:
    """A sum over replicas would count the same jobs once per replica. It is told apart by that it vanishes."""
    metrics = make_metrics(queues=("billing.charge",))
    metrics.observe("billing.charge", look(), Demand(started=1, wanted=1))
    metrics.observe_queue("billing.charge", queue_look(), dict.fromkeys(BANDS, 1.0), EXPECTED)
    metrics.observe_removed({"billing.gone": 3})
    metrics.observe_memory(0.5)
    metrics.listen(ReplicasSeen(live=3, differing=0, version="v1"))
    shown = {name.partition("{")[0] for name in numbers(metrics)}
    clock.seconds += 90
    said_by_the_store = shown - {name.partition("{")[0] for name in numbers(metrics)}
    assert len(said_by_the_store) == 22
    rows = table("metrics.md", "name", "type", "labels", "unit", "meaning", "aggregate with")
    by_max = {words(name)[0] for name, *_, aggregate in rows if aggregate.startswith("`max")}
    assert by_max - {"breaker_store_clock_jump_seconds"} == said_by_the_store


def test_every_label_value_is_documented() -> None:
    """An alert on a word that never occurs never fires."""
    reasons = set().union(*PAIRS.values(), *QUEUE_PAIRS.values(), *UNKNOWN_PAIRS.values(), {OTHER}) - {""}
    states = {
        key[1]
        for key in gauges_of(QUEUE, queue_look(), {}, Expected(), is_barred=False)
        if key[0] == "breaker_queue_jobs"
    }
    results = {result for name, *found in counters_of(queue_look()) for result in found}
    documented = {label: set(words(values)) for label, values in table("metrics.md", "label", "values")}
    assert documented == {
        "`operation`": {"_unknown"},
        "`outcome`": set(Outcome),
        "`reason` of `breaker_calls_total`": reasons,
        "`reason` of `breaker_retries_total`": {*CALL_REASONS, *JOB_REASONS},
        "`result` of `breaker_downstream_calls_total`": set(Result),
        "`result` of `breaker_jobs_finished_total`": results,
        "`result` of `breaker_callbacks_total`": set(CALLBACK_RESULTS),
        "`state` of `breaker_queue_jobs`": states,
        "`state` of `breaker_circuit_*`": set(CircuitState),
        "`mode`": set(WhenStoreDown),
        "`band`": set(Band),
        "`action`": set(Action),
        "`limit` of `breaker_capacity_*`": {"rate", "concurrency", "quota"},
        "`limit` of `breaker_shadow_refusals_total`": set(SHADOWED),
        "`alert`": {ALERTS[0].name, ALERTS[-1].name},
        "`severity`": set(Severity),
        "`channel`": set(),
        "`result` of `breaker_alert_deliveries_total`": set(RESULTS),
        "`kind`": set(KINDS),
    }


def test_the_documented_budget_is_the_tested_one() -> None:
    """Somebody sizes a Prometheus by it."""
    assert table("metrics.md", "for", "series at most") == [
        ["each operation without a queue", str(SERIES_MAX)],
        ["each operation with a queue", str(SERIES_MAX_QUEUE)],
        ["each process, besides", str(SERIES_MAX_PROCESS)],
    ]


async def every_line(metrics: Metrics) -> list[dict[str, Any]]:
    """Each event once, with all that it can say."""
    pipe = Pipe()
    logs = configure(format="json", level="debug", fd=pipe.writer)
    clock = Clock()
    log = CallLog(logs, sample=1.0, now=clock)
    failed = StoreFailed("timeout", "no answer")
    events: tuple[Event, ...] = (
        ended(Outcome.OVER_CAPACITY, Policy.RATE), failed, failed, StoreRecovered(3.0), failed, failed,
        ClockJumped(3_000_000), LeasesLost("billing.charge", 1), TenantsExceeded("crm"),
        ConfigLoaded("v1", ok=True, detail="by SIGHUP"),
        ConfigLoaded("v2", ok=False, detail="unknown key"), ended(tenant="x" * LINE_MAX),
        attempted(dropped=True), attempted(Fate.RETRY, Reason.DOWNSTREAM),
        attempted(Fate.DEAD, Reason.CALLER, dropped=True), attempted(Fate.UNKNOWN, Reason.AMBIGUOUS, dropped=True),
        JobsReclaimed("billing.charge", 1, 1), JobsLost("billing.charge", 1), AcksLate("billing.charge", 1),
        SlowedDown("billing.charge", "acme", 30.0), SlowedDown("billing.charge", "acme", 30.0),
        OverrideChanged("billing.charge", "ann", "month end", 1, "40/s"),
        OverrideChanged("billing.charge", "ann", "month end", 0, "20/s"),
        *(
            AlertMoved("BreakerRefusing:critical:billing.charge", "BreakerRefusing", "critical", "billing.charge", is_firing, "x")
            for is_firing in (True, False)
        ),
        LetterEnded("oncall", "ok", LetterKind.FIRING, "BreakerRefusing:critical:billing.charge", ""),
        *(
            LetterEnded("oncall", result, LetterKind.FIRING, "BreakerRefusing:critical:billing.charge", "answered 503")
            for result in ("retry", "failed")
        ),
        CallRetried("billing.charge", Result.TIMEOUT), *(event for event, _ in LINES),
        CircuitSeen("billing.charge", "open"),
        *(CallbackEnded("billing.charge", "01K", result, "why") for result in ("ok", "retry", "failed")),
    )  # fmt: skip
    for event in events:
        log.listen(event)
    clock.seconds += 10
    log.listen(failed)
    log.listen(SlowedDown("billing.charge", "acme", 30.0))
    again = asyncio.Event()
    mistakes = [ValueError("a bug")]

    async def look_with_a_bug(_operation: str) -> Look:
        if mistakes:
            raise mistakes.pop()
        again.set()
        return look()

    watch = Watch(sources(look_with_a_bug), metrics, look_s=0.001)
    watch.start()
    await again.wait()
    await watch.close()
    logs.close()
    text = pipe.text()
    pipe.close()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.usefixtures("restored")
async def test_every_log_line_is_documented_as_it_is_written(make_metrics: Callable[..., Metrics]) -> None:
    """Searches and collectors' rules are written from this page."""
    written: dict[str, tuple[str, set[str]]] = {}
    for line in await every_line(make_metrics("billing.charge")):
        _, keys = written.get(line["event"], ("", set()))
        written[line["event"]] = (line["level"], keys | line.keys() - {"timestamp", "level", "event"})
    rows = table("logs.md", "event", "level", "further keys", "when")
    assert {words(event)[0]: (level, set(words(keys))) for event, level, keys, _ in rows} == written


def test_every_event_of_the_process_is_documented() -> None:
    """What wiring and workers say through structlog is searched for too."""
    said = set()
    for file in (ROOT / "breaker").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        said |= set(re.findall(r"""\.(info|warning|error)\(\s*"([a-z_]+)",?""", text))
    rows = table("logs.md", "event of the process", "level", "further keys", "when")
    documented = {(level, words(event)[0]) for event, level, _, _ in rows}
    assert documented == {(level, event) for level, event in said if event != "memory"}


def test_every_event_has_an_example_that_could_be_real() -> None:
    """People copy the example into their first query."""
    rows = table("logs.md", "event", "level", "further keys", "when")
    documented = {words(event)[0]: (level, set(words(keys))) for event, level, keys, _ in rows}
    block = (DOCS / "logs.md").read_text(encoding="utf-8").partition("```json\n")[2].partition("```")[0]
    examples = [json.loads(line) for line in block.splitlines()]
    assert {line["event"] for line in examples} == set(documented)
    for line in examples:
        level, keys = documented[line["event"]]
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert line["level"] == level
        assert line.keys() - {"timestamp", "level", "event"} <= keys
