"""YAML as it is read here: words stay words, every value has a place, and nothing unfolds."""

from pathlib import Path

import pytest

from breaker.core.errors import Problem
from breaker.policy.document import Document, read_document


def read(text: str) -> tuple[Document | None, list[str]]:
    problems: list[Problem] = []
    document = read_document(Path("f.yaml"), text.encode(), problems)
    return document, [str(problem) for problem in problems]


def value_of(text: str) -> object:
    document, problems = read(text)
    assert document is not None
    assert problems == []
    return document.value


@pytest.mark.parametrize(
    "word", ["on", "off", "yes", "no", "True", "FALSE", "1:30", "08:00-18:00", "2026-12-24", "007", "0x1f", "1_000", ".inf", "1e3", "=", "20/s", "99999999999999999999"]
)  # fmt: skip
def test_a_word_stays_what_the_person_wrote(word: str) -> None:
    """YAML 1.1 would make `no` false, 1:30 ninety and 007 seven."""
    assert value_of(f"key: {word}") == {"key": word}


def test_numbers_booleans_and_null_are_what_they_look_like() -> None:
    """And in quotes they are text."""
    assert value_of("[1, -1, 0, 1.5, true, false, null, ~, '1', \"true\"]") == [
        1, -1, 0, 1.5, True, False, None, None, "1", "true",
    ]  # fmt: skip


def test_keys_are_always_text() -> None:
    """A tenant may be called 42, or true."""
    assert value_of("{42: a, true: b}") == {"42": "a", "true": "b"}


def test_every_value_and_key_knows_its_place() -> None:
    """Line and column from 1, as editors count."""
    document, _ = read("a:\n  - b: 1\n    c: x\n")
    assert document is not None
    assert document.places["a", 0, "c"] == (3, 8)
    assert document.key_places["a", 0, "c"] == (3, 5)
    assert str(document.problem(("a", 0, "missing"), "m")) == "f.yaml:2:5: m"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: `a` stands twice; first in line 1: keep one"),
        ("a: &x 1\n", "f.yaml:1:4: anchors and aliases are not supported"),
        ("a: *x\n", "f.yaml:1:4: anchors and aliases are not supported"),
        ("a: !!python/name:os.system x\n", "f.yaml:1:4: the tag !!python/name:os.system is not supported"),
        ("<<: {a: 1}\n", "f.yaml:1:1: merge keys (`<<`) are not supported"),
        ("? [a]\n: b\n", "f.yaml:1:3: a key is a word"),
        ("a: b: c\n", "f.yaml:1:5: not YAML: mapping values are not allowed here"),
        ("\ta: 1\n", "f.yaml:1:1: not YAML"),
        ("a: 1\n---\nb: 1\n", "f.yaml:2:1: not YAML: expected a single document"),
        ("[" * 5000, "f.yaml: the file is nested too deeply"),
        ("a: \x01", "f.yaml: not YAML: unacceptable character"),
        ("#" * (1 << 20) + "\n", "f.yaml: the file has 1048577 bytes; at most 1048576"),
    ],
)
def test_what_cannot_be_read_is_a_problem_with_a_place(text: str, problem: str) -> None:
    """No file makes the gateway fail with a stack trace."""
    _, problems = read(text)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_a_file_that_is_not_utf_8_says_so() -> None:
    """An editor of another age saved it."""
    problems: list[Problem] = []
    assert read_document(Path("f.yaml"), b"a: \xe4", problems) is None
    assert [str(problem) for problem in problems] == ["f.yaml: byte 3 is not UTF-8: save the file as UTF-8"]
