"""The table of drills says what there is, and nothing else."""

import re
from pathlib import Path

from tests.e2e.scene import ROOT

PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
HERE = Path(__file__).parent
DRILLS = [*HERE.glob("test_*_drills.py"), HERE / "test_nth_exchange.py"]


def test_every_drill_is_in_the_table_and_every_line_of_it_is_a_drill() -> None:
    """Whoever asks what was tried must not be told more, or less."""
    table = re.findall(r"^\| .* \| `(test_\w+)` \|", PAGE, re.MULTILINE)
    defined = [
        name
        for file in DRILLS
        for name in re.findall(r"^async def (test_\w+)", file.read_text(), re.MULTILINE)
    ]
    assert sorted(table) == sorted(defined)


def test_every_file_that_the_page_names_is_there() -> None:
    """A page that leads nowhere is worse than none."""
    files = set(re.findall(r"`((?:tests/faults/)?[a-z_]+\.py)`", PAGE))
    assert len(files) >= 8
    assert [name for name in sorted(files) if not (HERE / name.rpartition("/")[2]).exists()] == []
