"""
Listeners: what metrics, a log line and the spans of a call cost by themselves, in process, without any traffic.

A program of its own, started by `features.py`: its argument is the URL of a receiver of spans, its output the median per
listener in JSON. It is the other side of the figures under load: less real, and hardly noisy. The clock is the processor
time of the whole process, since threads that write lines and send spans take theirs from the same core.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from breaker.core.events import CallEnded, Event, Outcome, Result
from breaker.core.model import Downstream, Match, Operation
from breaker.signals.call_log import CallLog
from breaker.signals.logs import Logs
from breaker.signals.metrics import Metrics
from breaker.signals.otlp import Otlp
from breaker.signals.traces import Traces

EVENTS = 2_000  # in one round; all of their spans fit into the queue
ROUNDS = 21
OPERATION = "billing.charge"

# A call as `load.py` sends it, forwarded.
PLAIN = CallEnded(
    operation=OPERATION, outcome=Outcome.FORWARDED, reason="", status=200, caller="crm", tenant="tenant-1",
    decision=f"{OPERATION}~01KAJ3V5XJREPLICA100000A8", request_id="01KAJ3V5XJREPLICA100000A8", trace_id="",
    duration_s=0.004, admission_s=0.0007, downstream_s=0.003, result=Result.OK, action=None, shadow=None,
)  # fmt: skip


def cost_us(listen: Callable[[Event], None], settle: Callable[[], object]) -> float:
    """Microseconds of processor time per event, median of the rounds; `settle` waits for what threads still do."""
    seen = []
    for _ in range(ROUNDS):
        events = [replace(PLAIN) for _ in range(EVENTS)]
        began = time.process_time_ns()
        for event in events:
            listen(event)
        settle()
        seen.append((time.process_time_ns() - began) / EVENTS / 1e3)
    return statistics.median(seen)


def metrics_us() -> float:
    operation = Operation(
        name=OPERATION, pipeline="billing", team="", match=Match(method="POST", template="/charges"),
        downstream=Downstream(url="http://127.0.0.1:9"),
    )  # fmt: skip
    metrics = Metrics(
        {OPERATION: operation}, replica="BENCH", cluster="bench", version="0", reasons=frozenset({""})
    )
    return cost_us(metrics.listen, lambda: None)


def log_us() -> float:
    logs = Logs(os.open(os.devnull, os.O_WRONLY), format="json", level="info")

    def wait_written() -> None:
        while logs._writer._lines:
            time.sleep(0.001)

    cost = cost_us(CallLog(logs, sample=1.0).listen, wait_written)
    logs.close()
    return cost


def traces_us(url: str) -> float:
    receiver = Otlp(url, {})
    traces = Traces(receiver, sample=1.0)

    def listen(event: Event) -> None:
        if isinstance(event, CallEnded):
            event.span = traces.of_call("")
        traces.listen(event)

    cost = cost_us(listen, receiver._processor.force_flush)
    asyncio.run(traces.close())
    return cost


if __name__ == "__main__":
    print(json.dumps({"metrics": metrics_us(), "log": log_us(), "traces": traces_us(sys.argv[1])}))
