"""Ids: who made them, in which order, and that no two are the same."""

import pytest

from breaker.core.ids import ALPHABET, Ids, base32


@pytest.mark.parametrize(
    ("number", "width", "text"),
    [
        (0, 3, "000"),
        (31, 1, "Z"),
        (32, 2, "10"),
        (32 * 32 - 1, 2, "ZZ"),
        (32 * 32, 2, "00"),
        (2**50 - 1, 10, "Z" * 10),
    ],
)
def test_numbers_are_written_in_exactly_so_many_characters(number: int, width: int, text: str) -> None:
    """Whoever sorts ids as text."""
    assert base32(number, width) == text


def test_no_letter_can_be_taken_for_a_digit() -> None:
    """A person who reads a decision id over the telephone."""
    assert len(set(ALPHABET)) == 32
    assert not set("ILOU") & set(ALPHABET)


def test_lease_ids_say_whose_they_are_and_sort_in_order_of_arrival() -> None:
    """The waiting line: two calls of one replica in one microsecond keep their order by id."""
    ids = Ids("REPLICA1")
    made = [ids.next() for _ in range(3_000)]  # over two turns of the inner counter
    assert all(id_.startswith("REPLICA1.") and len(id_) == 17 for id_ in made)
    assert made == sorted(set(made))


def test_a_decision_id_carries_the_operation_the_time_and_its_lease() -> None:
    """Support staff who have only the header `Breaker-Decision`."""
    ids = Ids("REPLICA1")
    first, second = ids.next(), ids.next()
    one = ids.decision("billing.charge", first, 1_800_000_000_000)
    other = ids.decision("billing.charge", second, 1_800_000_000_000)
    operation, ulid = one.split("~")
    assert operation == "billing.charge"
    assert len(ulid) == 26
    assert ulid == base32(1_800_000_000_000, 10) + first.replace(".", "")
    assert one < other < ids.decision("billing.charge", first, 1_800_000_000_001)
