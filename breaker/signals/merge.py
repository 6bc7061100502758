"""
Merge: the pages of several workers as one, each sample with its `worker`.

Not prometheus-client's multiprocess mode, which loses exemplars and leaves dead gauges. The text is
not parsed further than to the metric's name: what a worker wrote is passed on as it wrote it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

EOF = "# EOF"
SUFFIXES = ("", "_total", "_bucket", "_sum", "_count", "_info", "_created")


@dataclass(slots=True)
class Family:
    """HELP, TYPE and UNIT lines, and the samples of all workers."""

    heads: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)


def merge(pages: Mapping[str, str]) -> str:
    """
    One page of all workers' pages, by worker.

    Raises:
        ValueError: Some pages end with `# EOF` and others do not: one is cut off, or they are of
            different formats.

    """
    ends = {page.rstrip().endswith(EOF) for page in pages.values()}
    if len(ends) > 1:
        raise ValueError("pages of different formats: some end with `# EOF`, others do not")
    families: dict[str, Family] = {}
    for worker, page in pages.items():
        add_page(families, f'worker="{escaped(worker)}"', page)
    lines: list[str] = []
    for family in families.values():
        lines += family.heads
        lines += family.samples
    if ends == {True}:
        lines.append(EOF)
    return "".join(f"{line}\n" for line in lines)


def add_page(families: dict[str, Family], label: str, page: str) -> None:
    """Sort one worker's lines into the families."""
    described: set[str] = set()  # by an earlier page: its HELP and TYPE are enough
    described.update(name for name, family in families.items() if family.heads)
    name = ""
    for line in page.split("\n"):
        if line.startswith(("# HELP ", "# TYPE ", "# UNIT ")):
            name = line.split(" ", 3)[2]
            family = families.setdefault(name, Family())
            if name not in described:
                family.heads.append(line)
        elif line and not line.startswith("#"):
            sample = line.partition(" ")[0].partition("{")[0]
            if not any(sample == name + suffix for suffix in SUFFIXES):
                pass  # nobody described it
            families.setdefault(name, Family()).samples.append(labelled(line, len(sample), label))


def labelled(line: str, at: int, label: str) -> str:
    """Put the label first; behind it stands what stood there, exemplar included."""
    if line[at] != "{":
        return f"{line[:at]}{{{label}}}{line[at:]}"
    comma = "" if line[at + 1] == "}" else ","
    return f"{line[:at]}{{{label}{comma}{line[at + 1 :]}"


def escaped(value: str) -> str:
    """As a label's value, in both formats."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
