"""
Sights: what one pass over all operations saw, for whoever judges it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from breaker.signals.capacity import Demand
from breaker.signals.expected import Expected
from breaker.store.capacity import Look
from breaker.store.job_desk import QueueLook


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """
    One operation, over all replicas, at one moment.

    Attributes:
        demand: None when there was nothing to compare with yet.
        queue, expected: None without a queue.

    """

    look: Look
    demand: Demand | None = None
    queue: QueueLook | None = None
    expected: Expected | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sights:
    """
    One pass.

    Attributes:
        operations: By name; those that could not be read are not there.
        removed: Jobs of operations that no file names any more; None when that was not asked this time.
        memory_ratio: Share of the store's memory in use; None when it could not be read.

    """

    operations: Mapping[str, Sight] = field(default_factory=dict)
    removed: Mapping[str, int] | None = None
    memory_ratio: float | None = None
