"""Trace Context as it comes, and as it goes on."""

import pytest

from breaker.core.trace import Parent, Span, parent_of, trace_id_of

TRACE, ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)]
)
def test_the_last_bit_of_the_flags_says_whether_a_trace_is_sampled(flags: str, is_sampled: bool) -> None:
    """Newer callers set further bits, which say other things."""
    assert parent_of(f"00-{TRACE}-{ID}-{flags}") == Parent(trace_id=TRACE, id=ID, is_sampled=is_sampled)


@pytest.mark.parametrize("text", [f"00-{TRACE}-{ID}-01", f"cc-{TRACE}-{ID}-01", f"01-{TRACE}-{ID}-01-more"])
def test_later_versions_are_read_as_far_as_they_are_known(text: str) -> None:
    """Section 3.2.4: who upgrades first must not lose their traces here."""
    assert parent_of(text)
    assert trace_id_of(text) == TRACE


@pytest.mark.parametrize(
    "text",
    [
        "", "x", f"ff-{TRACE}-{ID}-01", f"00-{'0' * 32}-{ID}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{ID}-01", f"00-{TRACE}-{ID}-1", f"00-{TRACE}-{ID}-01more", f"00-{TRACE[1:]}-{ID}-01",
    ],
)  # fmt: skip
def test_what_is_no_trace_is_none(text: str) -> None:
    """A broken header must not join calls that have nothing to do with each other."""
    assert parent_of(text) is None
    assert trace_id_of(text) == ""


def test_the_downstream_and_a_job_are_told_of_different_parents() -> None:
    """A job's attempts are below the call that made it; a downstream is below the part that called it."""
    span = Span(trace_id=TRACE, id="a" * 16, down_id="b" * 16)
    assert span.for_job == f"00-{TRACE}-{'a' * 16}-01".encode()
    assert span.for_downstream == f"00-{TRACE}-{'b' * 16}-01".encode()
    for told in (span.for_job, span.for_downstream):
        parent = parent_of(told.decode())
        assert parent
        assert parent.is_sampled
