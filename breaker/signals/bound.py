"""
Bound: counters and histograms as functions that are cheap enough for the path of every call.

They change the very numbers that prometheus_client writes on the page, as its own `inc` and `observe` do, but

1. take no lock: events come from the loop's thread alone, and nobody else changes these numbers;
2. find a bucket by bisection, and check nothing: amounts are durations and counts, exemplars are ours.

`tests/signals/test_bound.py` holds both ways together. Where the client keeps its numbers in another way
(`PROMETHEUS_MULTIPROC_DIR`), its own functions are used.
"""

import time
from bisect import bisect_left
from collections.abc import Callable

from prometheus_client import Counter, Histogram
from prometheus_client.samples import Exemplar
from prometheus_client.values import MutexValue

Add = Callable[[float], None]
Observe = Callable[..., None]


def bound_add(child: Counter) -> Add:
    """`child.inc`."""
    number = child._value  # noqa: SLF001 - its public way costs five times as much
    if type(number) is not MutexValue:
        return child.inc

    def add(amount: float) -> None:
        number._value += amount  # noqa: SLF001

    return add


def bound_observe(child: Histogram) -> Observe:
    """`child.observe`."""
    bounds, total, buckets = child._upper_bounds, child._sum, child._buckets  # noqa: SLF001 - likewise
    if type(total) is not MutexValue:
        return child.observe

    def observe(amount: float, exemplar: dict[str, str] | None = None) -> None:
        bucket = buckets[bisect_left(bounds, amount)]
        total._value += amount  # noqa: SLF001
        bucket._value += 1.0  # noqa: SLF001
        if exemplar:
            bucket._exemplar = Exemplar(exemplar, amount, time.time())  # noqa: SLF001

    return observe
