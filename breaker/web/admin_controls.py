"""
Controls: what the admin API needs of the store and of the process, as one value.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from breaker.core.alert_policy import Alerting
from breaker.core.alerts import Incident
from breaker.core.circuit import CircuitState
from breaker.core.model import Operation
from breaker.gateway.vault import Vault
from breaker.signals.channels import Answer
from breaker.store.alert_book import AlertBook
from breaker.store.audit import Audit
from breaker.store.capacity import Look
from breaker.store.circuit_posts import ByHand
from breaker.store.job_desk import JobDesk
from breaker.store.jobs import JobStore
from breaker.store.members import Member
from breaker.store.overrides import Overrides
from breaker.web.catalogue_queue import Forecast


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
        overrides: Set the limits of an operation for a while.
        now_us: By the store's clock.
        forecast: When a job with so many ahead would start.
        replicas: All that live.
        removed: Operations that no file of theirs names any more.
        book: Of alerts. alerting: Channels and routes in force. cluster: Its name, as in labels.
        own_incidents: What this replica says by itself. test_channel: Send a test for real.

    """

    jobs: JobStore
    desk: JobDesk
    audit: Audit
    operations: Callable[[], Mapping[str, Operation]]
    is_published: Callable[[str], Awaitable[bool]]
    look: Callable[[str], Awaitable[Look]]
    force: Callable[[str, ByHand, int, str, str], Awaitable[tuple[CircuitState, CircuitState]]]
    overrides: Overrides
    vault: Callable[[], Vault]
    now_us: Callable[[], int]
    forecast: Forecast
    replicas: Callable[[], Awaitable[list[Member]]]
    removed: Callable[[], Awaitable[list[str]]]
    book: AlertBook
    alerting: Callable[[], Alerting]
    cluster: str
    own_incidents: Callable[[], list[Incident]]
    test_channel: Callable[[str], Awaitable[Answer]]
