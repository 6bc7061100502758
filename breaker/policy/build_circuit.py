"""
Circuits: from the sections about an ill downstream, and the word about an ill store, to core types.

What only shows across fields is a problem here: a protection that could never act is one that
somebody would rely on.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from breaker.core.circuit_policy import CircuitMode, CircuitPolicy, DirectRetry, SlowDown, WhenStoreDown
from breaker.core.errors import Problem
from breaker.core.model import Capacity, Downstream, TenantSource
from breaker.policy.build_retry import RetryBuilder
from breaker.policy.circuit_sections import AdaptiveSection, CircuitSection
from breaker.policy.document import Loc
from breaker.policy.pipeline_file import OperationSection, PipelineFile
from breaker.policy.shape import Shaped
from breaker.policy.units import format_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Precautions:
    """What an operation says about an ill downstream and an ill store, as `Operation` has it."""

    circuit: CircuitPolicy
    slow_down: SlowDown
    slow_down_max_ms: int
    adaptive_min: int | None
    when_store_down: WhenStoreDown
    direct_retry: DirectRetry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBuilder:
    """
    Builds the precautions of one operation; `at` is its path in the document.

    Attributes:
        has_callers: Whether gateway.yaml names callers, each of which is a tenant of its own.

    """

    shaped: Shaped[PipelineFile]
    at: Loc
    has_callers: bool
    problems: list[Problem]

    def build(
        self,
        section: OperationSection,
        capacity: Capacity,
        downstream: Downstream | None,
        tenant: TenantSource | None,
    ) -> Precautions:
        self._check_slow_down(section, tenant)
        retries = RetryBuilder(shaped=self.shaped, at=self.at, problems=self.problems)
        is_direct = section.overflow != "queue" and "retry" in section.model_fields_set
        return Precautions(
            circuit=self._circuit(section.circuit, downstream),
            slow_down=SlowDown(section.slow_down),
            slow_down_max_ms=section.slow_down_max,
            adaptive_min=self._adaptive_min(section, section.adaptive, capacity)
            if section.adaptive
            else None,
            when_store_down=self._when_store_down(section),
            direct_retry=retries.of_calls(section.retry) if is_direct else None,
        )

    def _circuit(self, section: CircuitSection, downstream: Downstream | None) -> CircuitPolicy:
        if not self._is_broken("circuit"):
            self._check_slow(section, downstream)
            if section.open > section.open_max:
                stated = "open" if "open" in section.model_fields_set else "open_max"
                self._add(
                    ("circuit", stated),
                    f"`circuit.open` {format_duration(section.open)} is more than `circuit.open_max` "
                    f"{format_duration(section.open_max)}: the first pause cannot be the longest",
                )
        # Whoever says what is slow means it to count.
        slow_rate = section.slow_rate or (section.failure_rate if section.slow_call else None)
        return CircuitPolicy(
            failure_rate=float(section.failure_rate),
            slow_rate=None if slow_rate is None else float(slow_rate),
            slow_call_ms=section.slow_call,
            min_calls=section.min_calls,
            consecutive=section.consecutive,
            window_ms=section.window,
            open_ms=section.open,
            open_max_ms=section.open_max,
            probes=section.probes,
            ramp_ms=section.ramp,
            mode=CircuitMode(section.mode),
        )

    def _check_slow(self, section: CircuitSection, downstream: Downstream | None) -> None:
        if section.slow_rate is not None and section.slow_call is None:
            self._add(
                ("circuit", "slow_rate"),
                "`slow_rate` needs `slow_call`: from when on a call is slow, such as `slow_call: 2s`",
            )
        elif section.slow_call is not None and downstream and section.slow_call >= downstream.timeout_ms:
            self._add(
                ("circuit", "slow_call"),
                f"`slow_call` {format_duration(section.slow_call)} is not less than `downstream.timeout` "
                f"{format_duration(downstream.timeout_ms)}, where a call has failed: no call would be slow",
            )

    def _check_slow_down(self, section: OperationSection, tenant: TenantSource | None) -> None:
        is_known = not self._is_broken("tenant") and not self.shaped.is_broken(("tenant",))
        if section.slow_down == "tenant" and tenant is None and not self.has_callers and is_known:
            self._add(
                ("slow_down",),
                "`slow_down: tenant` needs tenants, and all calls are of one here: state `tenant`, "
                "name `callers` in gateway.yaml, or write `slow_down: operation`",
            )

    def _adaptive_min(self, operation: OperationSection, section: AdaptiveSection, capacity: Capacity) -> int:
        if operation.overflow == "alert" and not self._is_broken("overflow"):
            self._add(
                ("adaptive",),
                "`adaptive` has no effect with `overflow: alert`, where calls go through beyond every limit: "
                "write `overflow: throttle` or leave it out",
                at_key=True,
            )
        elif not self._is_broken("capacity"):
            self._check_adaptive(section, capacity)
        return section.min

    def _check_adaptive(self, section: AdaptiveSection, capacity: Capacity) -> None:
        """What is closed (0) stays closed and is no bound; all else must leave room to go down to `min`."""
        own, schedule = capacity.limits.concurrency, capacity.schedule
        stated = [("`capacity`", own)]
        if schedule:
            # The schedule says what holds at each moment; the operation's own number only where one is stated.
            stated = stated if own is not None else []
            stated += [(f"schedule '{entry.text}'", entry.limits.concurrency) for entry in schedule.hours]
            stated.append(("`schedule.otherwise`", schedule.otherwise.concurrency))
        unstated = [where for where, concurrency in stated if concurrency is None]
        bounds = [(concurrency, where) for where, concurrency in stated if concurrency]
        if unstated:
            self._add(
                ("adaptive",),
                f"`adaptive` needs a `concurrency` to go down from, and {unstated[0]} has none: "
                "state it, or leave `adaptive` out",
                at_key=True,
            )
        elif bounds and section.min > min(bounds)[0]:
            least, where = min(bounds)
            self._add(
                ("adaptive", "min"),
                f"`adaptive.min` {section.min} is more than the concurrency {least} of {where}: at most {least}",
            )

    def _when_store_down(self, section: OperationSection) -> WhenStoreDown:
        if section.overflow != "queue":
            return WhenStoreDown(section.when_store_down or "local_share")
        if section.when_store_down not in {None, "refuse"} and not self._is_broken("overflow"):
            self._add(
                ("when_store_down",),
                f"`when_store_down: {section.when_store_down}` cannot hold with `overflow: queue`: a call may become a "
                "job, which lives in the store only; write `refuse`, which is the default here, or leave it out",
            )
        return WhenStoreDown.REFUSE

    def _is_broken(self, *path: str) -> bool:
        return self.shaped.is_broken((*self.at, *path))

    def _add(self, path: Iterable[str], message: str, *, at_key: bool = False) -> None:
        self.problems.append(self.shaped.document.problem((*self.at, *path), message, at_key=at_key))
