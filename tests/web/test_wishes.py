"""What a caller may ask for in headers, and what is refused rather than guessed."""

from typing import Any

import pytest
from multidict import CIMultiDict

from breaker.core.job_policy import Band, Callback, Idempotency, Queue
from breaker.core.model import Downstream, Match, Operation, Overflow
from breaker.gateway.call import NO_WISHES, Kind, Refusal, Wishes
from breaker.web.wishes import AHEAD_MAX_US, EXPIRES_IN_MAX_MS, length_ms, moment_us, preferences, wishes_of

NOW = 1_800_000_000_000_000  # 2027-01-15T08:00:00Z
OPERATION = Operation(
    name="billing.charge", pipeline="billing", team="t", match=Match(method="POST", template="/x"),
    downstream=Downstream(url="http://127.0.0.1:1"), overflow=Overflow.QUEUE, queue=Queue(start_within_ms=1, jobs_max=1),
    callback=Callback(allow=("hooks.example.com",), secrets=()),
)  # fmt: skip


def read(*headers: tuple[str, str], may_name_band: bool = True, **fields: Any) -> Wishes | Refusal:
    operation = Operation(
        **{name: fields.get(name, getattr(OPERATION, name)) for name in Operation.__slots__}
    )
    return wishes_of(CIMultiDict(headers), operation, may_name_band=may_name_band, now_us=NOW)


def refused(*headers: tuple[str, str]) -> str:
    """Why headers are refused."""
    told = read(*headers)
    assert isinstance(told, Refusal), told
    assert told.kind is Kind.BAD_REQUEST
    return told.detail


def test_a_call_without_such_headers_wishes_nothing() -> None:
    assert read(("Content-Type", "a/b")) is NO_WISHES


def test_everything_that_can_be_asked_for_is_read() -> None:
    """Names have no case; what is asked for twice over is one wish."""
    told = read(
        ("idempotency-key", "invoice-7"), ("prefer", "respond-async"), ("Prefer", "wait=7"), ("breaker-not-before", "2027-01-15T10:00:00+02:00"),
        ("breaker-expires-in", "10m"), ("breaker-band", "high"), ("breaker-callback", "https://hooks.example.com/x"),
    )  # fmt: skip
    assert told == Wishes(
        key="invoice-7", is_async=True, wait_s=7.0, not_before_us=NOW, expires_in_ms=600_000, band=Band.HIGH,
        callback="https://hooks.example.com/x",
    )  # fmt: skip


@pytest.mark.parametrize("key", ["x", "--", "-x", "x" * 255, '"quoted"', "!~"])
def test_a_key_is_any_visible_text(key: str) -> None:
    told = read(("Idempotency-Key", key))
    assert isinstance(told, Wishes)
    assert told.key == key


@pytest.mark.parametrize("key", ["", "-", "x" * 256, "a b", "a\tb", "ä", "a\x7f"])
def test_a_key_that_could_be_read_in_two_ways_is_refused(key: str) -> None:
    assert "1 to 255 visible characters" in refused(("Idempotency-Key", key))


def test_two_keys_are_refused() -> None:
    """Nobody can say which of them the work has."""
    assert "more than once" in refused(("Idempotency-Key", "a"), ("Idempotency-Key", "b"))


@pytest.mark.parametrize("headers", [(), (("Idempotency-Key", ""),), (("Prefer", "wait=1"),)])
def test_a_key_that_is_required_and_missing_is_its_own_problem(headers: tuple[tuple[str, str], ...]) -> None:
    told = read(*headers, idempotency=Idempotency(is_required=True))
    assert isinstance(told, Refusal)
    assert told.kind is Kind.IDEMPOTENCY_KEY_MISSING
    assert told.detail.startswith("billing.charge wants an Idempotency-Key")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["respond-async"], (True, None)),
        (["Respond-Async; foo=1"], (True, None)),
        (["wait=10"], (False, 10.0)),
        (['wait = "10"'], (False, 10.0)),
        (["return=minimal, wait=3", "respond-async"], (True, 3.0)),
        (["wait=", "wait=-1", "wait=1.5", "wait=123456", "respond-asynchronously", ""], (False, None)),
        ([], (False, None)),
    ],
)
def test_preferences_that_are_not_known_are_ignored(
    values: list[str], expected: tuple[bool, float | None]
) -> None:
    """RFC 7240, section 2: a preference is never a reason to refuse."""
    assert preferences(values) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, 0), ("2027-01-15T08:00:00Z", NOW), ("2027-01-15T08:00:00.000001Z", NOW + 1), ("1969-12-31T23:59:59Z", 0),
        ("0001-01-01T00:00:00+14:00", 0), ("2027-01-15T08:00:00", None), ("tomorrow", None), ("", None), ("1800000000", None),
    ],
)  # fmt: skip
def test_a_moment_says_its_offset(text: str | None, expected: int | None) -> None:
    """Eight o'clock where? A job that starts six hours late is worse than a 400."""
    assert moment_us(text) == expected


def test_a_moment_is_not_further_ahead_than_any_calendar() -> None:
    """Both sides of the edge."""
    assert AHEAD_MAX_US == 90 * 86_400_000_000
    assert isinstance(read(("Breaker-Not-Before", "2027-04-15T08:00:00Z")), Wishes)
    assert "within 90 days" in refused(("Breaker-Not-Before", "2027-04-15T08:00:01Z"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), ("600", 600_000), ("10ms", 10), ("2s", 2_000), ("3m", 180_000), ("1h", 3_600_000), ("1d", 86_400_000),
     ("0", 0), ("-1", 0), ("1.5", 0), ("10 m", 0), ("1w", 0), ("", 0), ("1234567890", 0)],
)  # fmt: skip
def test_a_length_is_seconds_or_has_a_unit(text: str | None, expected: int | None) -> None:
    assert length_ms(text) == expected


def test_a_job_expires_within_a_year() -> None:
    """Beyond that a number is a mistake, and larger ones are no dates at all."""
    assert EXPIRES_IN_MAX_MS == 365 * 86_400_000
    assert isinstance(read(("Breaker-Expires-In", "365d")), Wishes)
    for text in ("366d", "999999999d", "0s"):
        assert "Breaker-Expires-In" in refused(("Breaker-Expires-In", text))


def test_a_band_counts_only_where_it_may_be_named() -> None:
    """A word that is no band is a mistake for everybody."""
    told = read(("Breaker-Band", "critical"), may_name_band=False)
    assert isinstance(told, Wishes)
    assert told.band is None
    assert "critical, high, normal, low" in refused(("Breaker-Band", "HIGH"))


def test_a_callback_goes_where_the_operation_allows() -> None:
    """Where nobody is called back, the header is refused: its sender would wait for ever."""
    assert "not in the allow-list" in refused(("Breaker-Callback", "https://evil.example/"))
    told = read(("Breaker-Callback", "https://hooks.example.com/"), callback=None)
    assert isinstance(told, Refusal)
    assert "calls nobody back" in told.detail
