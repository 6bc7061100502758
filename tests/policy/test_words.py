"""Names, addresses, URLs, routes and opening hours: both sides of every edge."""

from collections.abc import Callable

import pytest

from breaker.core.model import Match
from breaker.policy import words as w

WORKDAYS = frozenset(range(5))


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("mon-fri 08:00-18:00", w.When(WORKDAYS, None, 480, 1080)),
        ("sat,sun 10:00-14:00", w.When(frozenset({5, 6}), None, 600, 840)),
        ("mon,wed-fri", w.When(frozenset({0, 2, 3, 4}), None, 0, 1440)),
        ("sat-mon", w.When(frozenset({5, 6, 0}), None, 0, 1440)),
        ("mon-mon", w.When(frozenset({0}), None, 0, 1440)),
        ("fri  22:00-06:00", w.When(frozenset({4}), None, 1320, 360)),
        ("sun 20:00-24:00", w.When(frozenset({6}), None, 1200, 1440)),
        ("sun 20:00-00:00", w.When(frozenset({6}), None, 1200, 1440)),
        ("2026-12-24", w.When(frozenset(), "2026-12-24", 0, 1440)),
        ("2026-12-31 12:00-18:30", w.When(frozenset(), "2026-12-31", 720, 1110)),
    ],
)
def test_opening_hours_are_read_as_people_write_them(text: str, when: w.When) -> None:
    """Days, a date, times, midnight."""
    assert w.parse_when(text) == when


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mon-fry 08:00-18:00", "did you mean 'fri'"),
        ("Monday", "did you mean 'mon'"),
        ("", "names no day in ''"),
        ("mon 8:00-18:00", "no times that can be read in '8:00-18:00'"),
        ("mon 08:00-25:00", "a time that no clock shows"),
        ("mon 24:00-06:00", "a time that no clock shows"),
        ("mon 08:60-10:00", "a time that no clock shows"),
        ("mon 08:00-08:00", "starts and ends at the same time"),
        ("2026-02-29", "2026-02-29, which is not in the calendar"),
    ],
)
def test_opening_hours_that_cannot_be_read_say_why(text: str, says: str) -> None:
    """An hour that is misread is a desk that is closed."""
    with pytest.raises(ValueError, match=says):
        w.parse_when(text)


@pytest.mark.parametrize("text", ["/", "/tickets", "/a/{b}/c", "/a.b/~c/%20", "/v1/x:batch"])
def test_templates_are_words_and_placeholders(text: str) -> None:
    """What may stand in a path."""
    assert w.parse_match(f"POST {text}") == Match(method="POST", template=text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("post /x", "did you mean 'POST'"),
        ("/x", "unknown method '/x'"),
        ("POST", "does not start with '/'"),
        ("POST x", "does not start with '/'"),
        ("POST /a//b", "empty segment"),
        ("POST /a/", "empty segment"),
        ("POST /a/../b", "empty segment, '.' or '..'"),
        ("POST /a{b}", "one {placeholder} alone"),
        ("POST /{B}", "one {placeholder} alone"),
        ("POST /{a}/{a}", "names a placeholder twice"),
        ("POST /a?b=1", "one {placeholder} alone"),
    ],
)
def test_a_match_that_is_not_well_formed_says_why(text: str, says: str) -> None:
    """A route that matches nothing would be a 404 for every call."""
    with pytest.raises(ValueError, match=says.replace("{", r"\{").replace("..", r"\.\.")):
        w.parse_match(text)


def test_the_shape_forgets_the_names_of_placeholders() -> None:
    """Two routes that differ in a placeholder's name take the same calls."""
    assert w.shape(w.parse_match("GET /a/{x}/b")) == w.shape(w.parse_match("GET /a/{y}/b"))
    assert w.shape(w.parse_match("GET /a/{x}/b")) != w.shape(w.parse_match("PUT /a/{x}/b"))


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (w.check_name, ["a", "a-1", "a" * 63], ["", "A", "1a", "-a", "a_b", "a" * 64, "a\n"]),
        (w.check_timezone, ["UTC", "Europe/Berlin"], ["Berlin", "../etc/passwd", "", "/etc/localtime"]),
        (
            w.check_address,
            ["127.0.0.1:8080", "[::1]:0", "0.0.0.0:65535", "gateway.local:80"],
            ["8080", ":8080", "h:", "h:65536", "::1:80", "h:8o", "a b:80"],
        ),
        (w.check_header, ["Breaker-Tenant", "x"], ["", "a b", "Host", "content-length", "x\r\ny"]),
        (w.check_pointer, ["/a", "/a/b~1c", "/"], ["", "a", "/a~2"]),
        (
            w.check_downstream_url,
            ["http://h", "https://h:1/p"],
            ["h:1", "ftp://h", "http://", "http://h?x", "http://h#x", "http://u:p@h", "http://h:x", "http:/h", "http://h /"],
        ),
    ],
)  # fmt: skip
def test_a_word_is_taken_or_refused(check: Callable[[str], str], good: list[str], bad: list[str]) -> None:
    """Each kind of word, on both sides."""
    for text in good:
        assert check(text) == text
    for text in bad:
        with pytest.raises(ValueError, match=r"."):
            check(text)


def test_a_secret_in_a_url_is_not_repeated() -> None:
    """Messages end up in logs and tickets."""
    with pytest.raises(ValueError, match="carries a user or password") as caught:
        w.check_downstream_url("http://user:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_a_suggestion_is_the_nearest_or_the_whole_short_list() -> None:
    """Something to go on, never a page of words."""
    assert w.did_you_mean("rat", ["rate", "burst"]) == " (did you mean 'rate'?)"
    assert w.did_you_mean("zzz", ["rate", "burst"]) == " (there is rate, burst)"
    assert w.did_you_mean("zzz", []) == ""
    assert w.did_you_mean("zzz", [str(number) for number in range(21)]) == ""
