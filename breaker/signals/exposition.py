"""
Exposition: the page of all metrics, a piece at a time.

A page of fifty operations takes a tenth of a second to write, and every call of the process would wait for it: longer than a
decision may take. So it is written in pieces of some samples each, between which whoever asks gives way to the calls.
The format is prometheus-client's, in both versions; without `_created`, which `metrics.py` has switched off.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import cast

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder

PIECE_MAX = 100  # samples: about a millisecond
END = b"# EOF\n"


@dataclass(frozen=True, slots=True)
class Some:
    """As much of a registry as an encoder asks for."""

    family: Metric

    def collect(self) -> list[Metric]:
        return [self.family]


def pages_of(registry: CollectorRegistry, accept: str) -> tuple[str, Iterator[bytes]]:
    """Content type, and the page in pieces: OpenMetrics when `accept` asks for it, else text 0.0.4."""
    encoder, content_type = choose_encoder(accept)
    is_openmetrics = content_type.startswith("application/openmetrics-text")

    def pieces() -> Iterator[bytes]:
        for family in registry.collect():
            for at in range(0, max(1, len(family.samples)), PIECE_MAX):
                part = copy(family)
                part.samples = family.samples[at : at + PIECE_MAX]
                text = encoder(cast("CollectorRegistry", Some(part))).removesuffix(END)
                yield without_head(text) if at else text
        if is_openmetrics:
            yield END

    return content_type, pieces()


def without_head(text: bytes) -> bytes:
    """The samples: HELP, TYPE and UNIT were said with the first piece."""
    while text.startswith(b"# "):
        text = text.partition(b"\n")[2]
    return text
