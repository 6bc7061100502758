"""
Controls: what the admin API needs of the store and of the process, as one value.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from breaker.core.circuit import CircuitState
from breaker.core.model import Operation
from breaker.gateway.vault import Vault
from breaker.store.audit import Audit
from breaker.store.capacity import Look
from breaker.store.circuit_posts import ByHand
from breaker.store.job_desk import JobDesk
from breaker.store.jobs import JobStore
from breaker.store.members import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """
    What a person's hand can move.

    Attributes:
        operations: Those of the configuration in force, by name.
        is_published: Whether the store knows an operation that no file may name any more.
        look: An operation's capacity in use.
        force: Open or close its circuit, or hand it back: operation, word, until, author, reason.
        vault: What opens stored payloads.
        now_us: By the store's clock.
        replicas: All that live.
        removed: Operations that no file of theirs names any more.

    """

    jobs: JobStore
    desk: JobDesk
    audit: Audit
    operations: Callable[[], Mapping[str, Operation]]
    is_published: Callable[[str], Awaitable[bool]]
    look: Callable[[str], Awaitable[Look]]
    force: Callable[[str, ByHand, int, str, str], Awaitable[tuple[CircuitState, CircuitState]]]
    vault: Callable[[], Vault]
    now_us: Callable[[], int]
    replicas: Callable[[], Awaitable[list[Member]]]
    removed: Callable[[], Awaitable[list[str]]]
