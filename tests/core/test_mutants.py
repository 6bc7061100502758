"""Planted mistakes that can still be planted: a list that nobody reads any more proves nothing."""

import pytest

from tests.mutants import ROOT, Mutant, read_mutants


@pytest.mark.parametrize("mutant", read_mutants(), ids=lambda mutant: mutant.wrong)
def test_each_planted_mistake_has_its_place(mutant: Mutant) -> None:
    """Whoever changes a rule changes what would be its mistake; `make mutants` runs them all, and takes an hour."""
    sane = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert mutant.planted(sane) != sane
