"""Log lines, read from a real pipe."""

import fcntl
import json
import logging
import os
import threading
from typing import Any

import pytest
import structlog

from breaker.core.events import (
    ClockJumped,
    ConfigLoaded,
    LeasesLost,
    Outcome,
    Result,
    RoundTripEnded,
    StoreFailed,
    StoreRecovered,
)
from breaker.core.verdict import Policy
from breaker.signals.call_log import CallLog
from breaker.signals.lines import LINE_MAX
from breaker.signals.logs import Logs, configure
from tests.signals.scene import TRACE_ID, Lines, Pipe, ended


def test_a_call_is_one_line(lines: Lines) -> None:
    """On-call searches by these keys."""
    (line,) = lines(ended(Outcome.REFUSED, Policy.TENANT_RATE, status=429, result=None))
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info", "event": "call", "operation": "billing.charge", "outcome": "refused",
        "reason": "tenant", "status": 429, "caller": "crm", "tenant": "acme", "decision": "billing.charge~01K",
        "request_id": "req-1", "duration_ms": 20.0, "admission_ms": 0.4, "trace_id": TRACE_ID,
    }  # fmt: skip


def test_what_says_nothing_is_left_out(lines: Lines) -> None:
    """A line is read by people under pressure."""
    (line,) = lines(ended(Outcome.ABANDONED, "hang_up", status=0, tenant="", trace_id="", result=None))
    assert {"status", "tenant", "trace_id", "downstream_ms"}.isdisjoint(line)


def test_plain_forwards_are_sampled_by_counting(lines: Lines) -> None:
    """A busy operation's log must fit the disk, and the share must be what was set."""
    assert len(lines(*[ended()] * 100, sample=0.25)) == 25


def test_no_sample_still_tells_what_was_not_plain(lines: Lines) -> None:
    """Sampling is for what nobody asks about later."""
    told = [
        ended(Outcome.DELAYED), ended(Outcome.OVER_CAPACITY, Policy.RATE),
        ended(shadow=Policy.RATE), ended(status=500, result=Result.SERVER_ERROR),
    ]  # fmt: skip
    plain = [
        ended(), ended(status=404, result=Result.CLIENT_ERROR),
        ended(Outcome.REFUSED, Policy.RATE, status=503, result=None),  # at 10 x load nine of ten lines
        ended(Outcome.QUEUED, Policy.RATE, status=202, result=None),
    ]  # fmt: skip
    found = lines(*plain, *told, sample=0.0)
    assert [line["outcome"] for line in found] == ["delayed", "over_capacity", "forwarded", "forwarded"]


def test_a_level_above_info_has_no_lines_of_calls(lines: Lines) -> None:
    """The level is what the operator asked for; failures of the store still are told."""
    found = lines(
        ended(), ConfigLoaded("v1", ok=True, detail=""), StoreFailed("timeout", ""), level="warning"
    )
    assert [line["event"] for line in found] == ["store_failed"]


def test_an_outage_of_the_store_is_told_once_in_ten_seconds(lines: Lines) -> None:
    """Thousands of calls fail in an outage; the log must stay readable, and the count must be right."""
    failed = StoreFailed("timeout", "no answer")
    found = lines(
        failed, failed, 9.9, failed, StoreFailed("refused", "READONLY"), 0.1, failed, failed,
        RoundTripEnded(0.1, 1), StoreRecovered(12.5), failed,
    )  # fmt: skip
    assert [(line["event"], line.get("kind"), line.get("left_out")) for line in found] == [
        ("store_failed", "timeout", None),
        ("store_failed", "refused", None),
        ("store_failed", "timeout", 2),
        ("store_recovered", None, 1),
        ("store_failed", "timeout", None),
    ]
    assert found[3]["seconds"] == 12.5


def test_what_an_operator_should_know_has_a_line(lines: Lines) -> None:
    found = lines(
        ClockJumped(-2_500_000), LeasesLost("billing.charge", 3), ConfigLoaded("v2", ok=True, detail=""),
        ConfigLoaded("v2", ok=False, detail="billing.yaml:3:1: unknown key"),
    )  # fmt: skip
    for line in found:
        del line["timestamp"]
    assert found == [
        {"level": "error", "event": "clock_jumped", "seconds": -2.5},
        {"level": "warning", "event": "leases_lost", "operation": "billing.charge", "count": 3},
        {"level": "info", "event": "config_loaded", "version": "v2"},
        {
            "level": "error",
            "event": "config_refused",
            "version": "v2",
            "detail": "billing.yaml:3:1: unknown key",
        },
    ]


def test_text_that_is_no_text_does_not_lose_the_line(lines: Lines) -> None:
    """Header bytes of a caller may decode to lone surrogates; the call must not fail over its log line."""
    (line,) = lines(ended(tenant="a\udce9b"))
    assert line["tenant"] == "a\udce9b"


def test_a_reader_that_stalls_never_blocks_and_learns_what_it_missed(pipe: Pipe) -> None:
    """A full pipe must cost log lines, never calls."""
    logs = Logs(pipe.writer, format="json", level="info", lines_max=100)
    log = CallLog(logs, sample=1.0)
    for _ in range(5_000):  # far more than a pipe and the buffer take; this returns though nobody reads
        log.listen(ended())
    found: list[dict[str, Any]] = []
    with os.fdopen(os.dup(pipe.reader), encoding="utf-8") as file:
        reader = threading.Thread(target=lambda: found.extend(json.loads(line) for line in file))
        reader.start()
        logs.close()
        os.close(pipe.writer)
        pipe.writer = -1
        reader.join()
    missed = [line for line in found if line["event"] == "log_lines_dropped"]
    assert sum(line["count"] for line in missed) > 1_000
    assert len(found) - len(missed) + sum(line["count"] for line in missed) == 5_000


def test_a_reader_that_shares_a_non_blocking_pipe_gets_every_line(pipe: Pipe) -> None:
    """Whoever started us may have made standard output non-blocking; a full pipe is then an error."""
    flags = fcntl.fcntl(pipe.writer, fcntl.F_GETFL)
    fcntl.fcntl(pipe.writer, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    found: list[str] = []
    with os.fdopen(os.dup(pipe.reader), encoding="utf-8") as file:
        reader = threading.Thread(target=lambda: found.extend(file))
        reader.start()
        logs = Logs(pipe.writer, format="json", level="info")
        log = CallLog(logs, sample=1.0)
        for _ in range(2_000):
            log.listen(ended())
        logs.close()
        os.close(pipe.writer)
        pipe.writer = -1
        reader.join()
    assert len(found) == 2_000


def test_a_reader_that_has_gone_is_survived(pipe: Pipe) -> None:
    """`breaker serve | head` must not take the gateway down."""
    os.close(pipe.reader)
    pipe.reader = -1
    logs = Logs(pipe.writer, format="json", level="info")
    log = CallLog(logs, sample=1.0)
    log.listen(ended())
    logs.close()
    assert logs.dropped == 1


def test_a_line_that_is_too_long_is_dropped_and_counted(lines: Lines) -> None:
    """The buffer is bounded in lines, so lines are bounded, too."""
    (line,) = lines(ended(tenant="x" * LINE_MAX))
    assert (line["event"], line["count"]) == ("log_lines_dropped", 1)


@pytest.mark.usefixtures("restored")
def test_other_code_and_libraries_log_in_the_same_shape(pipe: Pipe) -> None:
    """A log collector parses every line, not only those of calls."""
    logs = configure(format="json", level="info", fd=pipe.writer)
    structlog.get_logger().debug("hidden")
    structlog.get_logger().info("listening", address="127.0.0.1:8080")
    try:
        int("a bug")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("library").exception("odd %s", "thing")
    logs.close()
    listening, failed, odd = (json.loads(line) for line in pipe.text().splitlines())
    assert list(listening) == ["timestamp", "level", "event", "address"]
    assert (failed["level"], failed["event"]) == ("error", "failed")
    assert "ValueError: invalid literal" in failed["exception"]
    assert (odd["level"], odd["event"], odd["logger"]) == ("error", "odd thing", "library")
    assert "ValueError: invalid literal" in odd["exception"]


@pytest.mark.usefixtures("restored")
def test_configuring_twice_writes_each_line_once(pipe: Pipe) -> None:
    """A test or a reload that sets up logging again must not double every line."""
    before = configure(format="json", level="info", fd=pipe.writer)
    logs = configure(format="json", level="info", fd=pipe.writer)
    logging.getLogger("library").warning("once")
    before.close()
    logs.close()
    assert len(pipe.text().splitlines()) == 1


def test_a_terminal_gets_lines_for_people() -> None:
    """`auto` is console on a terminal, and JSON in a pipe."""
    leader, terminal = os.openpty()
    try:
        logs = Logs(terminal, format="auto", level="info")
        CallLog(logs, sample=1.0).listen(ended())
        logs.close()
        text = os.read(leader, 65_536).decode()
    finally:
        os.close(leader)
        os.close(terminal)
    assert "billing.charge" in text
    assert not text.startswith("{")
