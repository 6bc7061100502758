"""
Record: what this downstream saw, for a person or a test that wants to know what really happened.

1. A call starts when it arrives, whatever comes of it: that is what a gateway must keep below its rate.
2. A call is in flight until its work is done, also when its caller has gone. Light work that takes no
   worker is in flight `beside`: `in_flight` is what a limit of concurrency must hold.
3. started = the sum of finished_by_status + in_flight + in_flight_beside, at every moment.
4. An effect that happened again under the same `Idempotency-Key` is repeated: that must never be.
5. Lists are bounded: the newest stay.
"""

import time
from collections import Counter, OrderedDict, deque
from typing import Any

STARTS_MAX = 100_000
REQUEST_IDS_MAX = 100_000
KEYS_MAX = 100_000


class Record:
    """The counters behind `/_control/stats`."""

    def __init__(self, *, slow_after_s: float, in_flight: int = 0, in_flight_beside: int = 0) -> None:
        self._slow_after_s = slow_after_s
        self._starts: deque[float] = deque(maxlen=STARTS_MAX)
        self._request_ids: OrderedDict[str, int] = OrderedDict()
        self._finished: Counter[str] = Counter()
        self._first_start: float | None = None
        self._last_start: float | None = None
        self.in_flight = in_flight
        self._in_flight_beside = in_flight_beside
        self._in_flight_max = in_flight
        self._started = in_flight + in_flight_beside
        self._refused = 0
        self._slow = 0
        self._abandoned = 0
        self._effects = 0
        self._effects_by_key: OrderedDict[str, int] = OrderedDict()
        self._effects_repeated = 0

    def on_start(self, request_id: str | None, *, beside: bool) -> None:
        now = time.time()
        self._starts.append(now)
        self._first_start = self._first_start or now
        self._last_start = now
        self._started += 1
        if beside:
            self._in_flight_beside += 1
        else:
            self.in_flight += 1
            self._in_flight_max = max(self._in_flight_max, self.in_flight)
        if request_id is not None:
            self._request_ids[request_id] = self._request_ids.pop(request_id, 0) + 1
            if len(self._request_ids) > REQUEST_IDS_MAX:
                self._request_ids.popitem(last=False)

    def on_finish(self, outcome: str, *, took_s: float, beside: bool) -> None:
        """The work is done; `outcome` is the status, or why there was none."""
        if beside:
            self._in_flight_beside -= 1
        else:
            self.in_flight -= 1
        self._finished[outcome] += 1
        self._slow += took_s > self._slow_after_s

    def on_answer_at_once(self, request_id: str | None, status: int, *, refused: bool = False) -> None:
        """Answered without any work; `refused` because there was no capacity."""
        self.on_start(request_id, beside=True)
        self.on_finish(str(status), took_s=0.0, beside=True)
        self._refused += refused

    def on_abandon(self) -> None:
        """The caller hung up before it had the whole answer."""
        self._abandoned += 1

    def on_effect(self, key: str | None = None) -> None:
        """Something was really done, under this key: a ticket opened, an invoice charged, an account made."""
        self._effects += 1
        if key is None:
            return
        self._effects_repeated += key in self._effects_by_key
        self._effects_by_key[key] = self._effects_by_key.pop(key, 0) + 1
        if len(self._effects_by_key) > KEYS_MAX:
            self._effects_by_key.popitem(last=False)

    def renewed(self) -> "Record":
        """An empty record, in which the calls that are in flight are the only ones that have started."""
        return Record(
            slow_after_s=self._slow_after_s, in_flight=self.in_flight, in_flight_beside=self._in_flight_beside
        )

    def stats(self) -> dict[str, Any]:
        return {
            "in_flight": self.in_flight,
            "in_flight_max": self._in_flight_max,
            "in_flight_beside": self._in_flight_beside,
            "started": self._started,
            "finished_by_status": dict(sorted(self._finished.items())),
            "refused": self._refused,
            "slow": self._slow,
            "slow_after_ms": round(self._slow_after_s * 1000),
            "abandoned": self._abandoned,
            "effects": self._effects,
            "effects_repeated": self._effects_repeated,
            "first_start": self._first_start,
            "last_start": self._last_start,
            "request_ids_seen": len(self._request_ids),
        }

    def starts(self) -> list[float]:
        """Seconds since 1970, oldest first."""
        return list(self._starts)

    def request_ids(self) -> dict[str, int]:
        """How often each `X-Request-Id` came, oldest first."""
        return dict(self._request_ids)

    def effects_by_key(self) -> dict[str, int]:
        """How often something was done under each `Idempotency-Key`, oldest first."""
        return dict(self._effects_by_key)
