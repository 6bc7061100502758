"""For how long a downstream asks for nothing, in each form in which it may say so."""

import pytest

from breaker.core.retry import RETRY_AFTER_MAX_US
from breaker.gateway.asked_time import is_slow_down, retry_after_us

NOW = 1_800_000_000_000_000  # 2027-01-15 08:00:00 UTC


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([(b"Retry-After", b"7")], 7_000_000),
        ([(b"RETRY-AFTER", b" 0 ")], 0),
        ([(b"retry-after", b"9" * 5_000)], RETRY_AFTER_MAX_US),
        ([(b"retry-after", b"-1")], None),
        ([(b"retry-after", b"1.5")], None),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"\xff")], None),
        ([(b"retry-after", b"Mon, 01 Jan 2024 00:00:00 +9999999999999")], None),
        ([(b"retry-after", b"Fri, 15 Jan 2027 08:00:30 GMT")], 30_000_000),
        ([(b"retry-after", b"Fri, 15 Jan 2027 07:59:59 GMT")], 0),
        (
            [(b"retry-after", b"Fri, 15 Jan 2027 09:00:09 GMT"), (b"date", b"Fri, 15 Jan 2027 09:00:00 GMT")],
            9_000_000,
        ),
        ([(b"retry-after", b"Fri, 15 Jan 2027 08:00:30 GMT"), (b"date", b"whenever")], 30_000_000),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(
    headers: list[tuple[bytes, bytes]], expected: int | None
) -> None:
    """The owner of a downstream: both forms of RFC 9110 are obeyed, also with a clock that is an hour off."""
    assert retry_after_us(headers, NOW) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"RateLimit", b'"default";r=0;t=30')], 30_000_000),
        ([(b"ratelimit", b'"default"; t=30 ; r=0')], 30_000_000),
        ([(b"ratelimit", b'"default";r=1;t=30')], None),
        ([(b"ratelimit", b'"default";r=0')], None),
        ([(b"ratelimit", b'"default";r=0;t=x')], None),
        ([(b"ratelimit", b'"a";r=0;t=5, "b";r=0;t=9, "c";r=3;t=60')], 9_000_000),
        ([(b"ratelimit", b'"a";r=0;t=5'), (b"ratelimit", b'"b";r=0;t=9')], 9_000_000),
        ([(b"RateLimit-Remaining", b"0"), (b"RateLimit-Reset", b" 12 ")], 12_000_000),
        ([(b"ratelimit-remaining", b"1"), (b"ratelimit-reset", b"12")], None),
        ([(b"ratelimit-remaining", b"0"), (b"ratelimit-reset", b"soon")], None),
        ([(b"ratelimit-reset", b"12")], None),
        ([(b"retry-after", b"7"), (b"ratelimit", b'"a";r=0;t=30')], 7_000_000),
        ([(b"retry-after", b"soon"), (b"ratelimit", b'"a";r=0;t=30')], 30_000_000),
    ],
)
def test_rate_limit_fields_of_a_used_up_quota_ask_for_time(
    headers: list[tuple[bytes, bytes]], expected: int | None
) -> None:
    """Many downstreams state their quota and no Retry-After: going on would only be refused again."""
    assert retry_after_us(headers, NOW) == expected


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, [], True),
        (503, [], False),
        (503, [(b"Retry-After", b"1")], True),
        (503, [(b"RateLimit", b'"a";r=0;t=1')], True),
        (503, [(b"RateLimit", b'"a";r=2;t=1')], False),
        (500, [(b"Retry-After", b"1")], False),
        (200, [(b"RateLimit", b'"a";r=0;t=1')], False),
    ],
)
def test_what_asks_for_time_is_no_failure(
    status: int, headers: list[tuple[bytes, bytes]], expected: bool
) -> None:
    """A downstream that is busy, and says so, is not ill: its circuit must not open."""
    assert is_slow_down(status, headers) is expected
