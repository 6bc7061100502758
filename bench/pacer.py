"""
Pacer: an open-loop load at a constant rate, for latency.

wrk sends the next call when the last one is answered, so a slow subject slows its own load down and its
latency looks better than it is (coordinated omission). Here each call has a time at which it is due,
and its latency counts from that time, whether or not a connection was free. Raw sockets and `select`, whose
timeout has microseconds; an event loop's timers have milliseconds, which is more than what is measured.

Run as a program (`python -m bench.pacer JSON`), so that the harness' own work is not in the figures.
"""

import gc
import json
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

LOST_AFTER_S = 5.0
LENGTH = b"content-length:"


@dataclass(slots=True, eq=False)
class Lane:
    """
    One kept-alive connection, which carries one call at a time.

    Attributes:
        due: When the call on it was due, seconds on the monotonic clock.
        buffer: What has come of its answer.
    """

    link: socket.socket
    due: float = 0.0
    buffer: bytes = b""

    def fileno(self) -> int:
        return self.link.fileno()


@dataclass(slots=True)
class Tally:
    """What was seen: latencies in seconds, answers by status."""

    latencies: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)


def answer_status(buffer: bytes) -> str | None:
    """The status of a complete answer, or None when more is to come."""
    head, found, body = buffer.partition(b"\r\n\r\n")
    if not found:
        return None
    lower = head.lower()
    at = lower.find(LENGTH)
    if at < 0:
        raise ValueError(f"an answer without Content-Length: {head!r}")
    length = int(lower[at + len(LENGTH) :].split(b"\r\n", 1)[0])
    return head[9:12].decode() if len(body) >= length else None


def pace(
    *, port: int, requests: list[bytes], per_second: float, seconds: float, lanes: int
) -> dict[str, Any]:
    """
    Args:
        requests: Sent in turn.
        per_second: Calls due per second, evenly spaced.
        lanes: Connections. More calls than these at once wait, and their wait counts.

    Returns:
        Counts, and p50 and p99 in milliseconds from the moment when each call was due.
    """
    idle = [Lane(link=socket.create_connection(("127.0.0.1", port))) for _ in range(lanes)]
    for lane in idle:
        lane.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    busy: list[Lane] = []
    total = max(1, int(per_second * seconds))
    tally = Tally()
    start = time.perf_counter() + 0.01
    sent = 0
    give_up = start + seconds + LOST_AFTER_S
    while len(tally.latencies) < total and (now := time.perf_counter()) < give_up:
        while sent < total and idle and start + sent / per_second <= now:
            lane = idle.pop()
            lane.due = start + sent / per_second
            lane.link.sendall(requests[sent % len(requests)])
            busy.append(lane)
            sent += 1
        next_due = start + sent / per_second if sent < total and idle else give_up
        readable, _, _ = select.select(busy, [], [], max(0.0, next_due - time.perf_counter()))
        for lane in readable:
            if collect(lane, tally):
                busy.remove(lane)
                idle.append(lane)
    for lane in idle + busy:
        lane.link.close()
    ordered = sorted(tally.latencies) or [float("nan")]
    return {
        "calls": total,
        "lost": total - len(tally.latencies),
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e3,
        "statuses": tally.statuses,
    }


def collect(lane: Lane, tally: Tally) -> bool:
    """Reads what has come; True when the answer is complete."""
    chunk = lane.link.recv(65536)
    if not chunk:
        raise ConnectionError("the subject closed a connection in the middle of a call")
    lane.buffer += chunk
    status = answer_status(lane.buffer)
    if status is None:
        return False
    tally.latencies.append(time.perf_counter() - lane.due)
    tally.statuses[status] = tally.statuses.get(status, 0) + 1
    lane.buffer = b""
    return True


def main() -> None:
    order = json.loads(sys.argv[1])
    order["requests"] = [request.encode() for request in order["requests"]]
    gc.disable()  # a collection would be measured as the subject's latency
    print(json.dumps(pace(**order)))


if __name__ == "__main__":
    main()
