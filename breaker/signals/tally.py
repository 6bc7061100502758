"""
Tally: counts what alerts ask of calls, until it is told to the store.

    all, bad         of the error budget: what was sent downstream, and what was refused for want of capacity; of these, what failed
    refused, full    calls that were refused by no fault of theirs; of these, because the queue is full
    queued, delayed, turned_away, let_through
                     what was done with calls that found no capacity
    server_error, timeout, connect_error
                     how those failed
    answers, failures
                     what the downstream made of calls and jobs; abandoned ones say nothing

On the path of every call, so it only counts; `take` hands over what was counted since.
"""

from collections import defaultdict
from collections.abc import Mapping

from breaker.core.alert_table import FAILED_RESULTS, FULL_REASONS, REFUSED_REASONS, SERVED_RESULTS
from breaker.core.events import Action, CallEnded, Event, JobAttempted, Outcome, Result
from breaker.core.jobs import Reason
from breaker.signals.outcomes import UNKNOWN

DONE = {
    Action.QUEUED: "queued", Action.DELAYED: "delayed", Action.REFUSED: "turned_away", Action.LET_THROUGH: "let_through",
}  # fmt: skip
_FAILED, _SERVED = frozenset(FAILED_RESULTS), frozenset(SERVED_RESULTS)
_REFUSED, _FULL = frozenset(REFUSED_REASONS), frozenset(FULL_REASONS)


class Tally:
    """What this replica counted and nobody was told of."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}

    def listen(self, event: Event) -> None:
        """Count what happened."""
        if type(event) is CallEnded:
            if event.result is not None:
                self._answer(event.operation, event.result)
            if event.action is not None:
                self._of(event.operation)[DONE[event.action]] += 1
            if event.outcome is Outcome.REFUSED and event.reason in _REFUSED and event.operation != UNKNOWN:
                self._refusal(event.operation, event.reason)
        elif (
            type(event) is JobAttempted and event.result is not None and event.reason != Reason.UNDECRYPTABLE
        ):
            self._answer(event.operation, event.result)

    def take(self) -> dict[str, dict[str, int]]:
        """By operation and name, what was counted since the last time."""
        taken, self._counts = self._counts, {}
        return taken

    def put_back(self, operation: str, counts: Mapping[str, int]) -> None:
        """The store did not take it: it is told with what comes next."""
        own = self._of(operation)
        for name, count in counts.items():
            own[name] += count

    def _answer(self, operation: str, result: Result) -> None:
        own = self._of(operation)
        if result in _SERVED:
            own["answers"] += 1
            own["all"] += 1
        elif result in _FAILED:
            own["answers"] += 1
            own["failures"] += 1
            own[result] += 1
            own["all"] += 1
            own["bad"] += 1

    def _refusal(self, operation: str, reason: str) -> None:
        own = self._of(operation)
        own["refused"] += 1
        own["all"] += 1
        own["bad"] += 1
        if reason in _FULL:
            own["full"] += 1

    def _of(self, operation: str) -> dict[str, int]:
        own = self._counts.get(operation)
        if own is None:
            own = self._counts[operation] = defaultdict(int)
        return own
