"""
Trace: to which trace a call belongs, in the words of W3C Trace Context (www.w3.org/TR/trace-context, sections 3.2 and 4.3).

Who makes spans stands in `signals/traces.py`. A call that is not sampled has no span, and its header goes on as it came.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

# Versions after 00 may say more behind it. `ff`, and ids that are all zero, are none.
TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-|\Z)"
)
SAMPLED = 0x01


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Who called, in a trace; ids as in `Span`."""

    trace_id: str
    id: str
    is_sampled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """
    A call, or an attempt of a job, that is sampled.

    Attributes:
        trace_id: 32 hex digits.
        id: 16 hex digits.
        parent_id: Of who called; empty when the trace begins here.
        down_id: Of the part that the downstream had, which is the parent that it is told of.

    """

    trace_id: str
    id: str
    parent_id: str = ""
    down_id: str

    @property
    def for_job(self) -> bytes:
        """The `traceparent` that is stored with the job that the call became."""
        return f"00-{self.trace_id}-{self.id}-01".encode()

    @property
    def for_downstream(self) -> bytes:
        """The `traceparent` that the downstream gets."""
        return f"00-{self.trace_id}-{self.down_id}-01".encode()


Begin = Callable[[str], Span | None]
"""A span for what came with this `traceparent`, empty for none; None when it is not sampled."""


def parent_of(traceparent: str) -> Parent | None:
    """Who called; None when the header is missing (empty) or is none."""
    found = TRACEPARENT.match(traceparent)
    if found is None:
        return None
    return Parent(trace_id=found[1], id=found[2], is_sampled=bool(int(found[3], 16) & SAMPLED))


def trace_id_of(traceparent: str | None) -> str:
    """The trace's id, or empty; of every call, sampled or not."""
    found = TRACEPARENT.match(traceparent) if traceparent else None
    return found[1] if found else ""
