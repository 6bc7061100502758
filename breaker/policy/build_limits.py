"""
Limits: from the sections of a file to complete capacities.

What an exception or an entry of a schedule does not state comes from what it replaces; what
comes out is complete, and everything that could never work is a problem here.
"""

from dataclasses import dataclass, replace

from breaker.core.errors import Problem
from breaker.core.model import Capacity, Cost, Hours, Limits, Mode, Per, Quota, Rate, Schedule
from breaker.core.rate import TAU_MAX_US
from breaker.policy.document import Loc
from breaker.policy.pipeline_file import CapacitySection, LimitsSection, PipelineFile, ScheduleSection
from breaker.policy.shape import Shaped
from breaker.policy.units import format_rate
from breaker.policy.words import parse_when


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsBuilder:
    """Builds the capacity of one operation; `at` is its path in the document."""

    shaped: Shaped[PipelineFile]
    at: Loc
    problems: list[Problem]

    def build(self, section: CapacitySection) -> Capacity:
        at = (*self.at, "capacity")
        limits = self._limits(at, section, Limits())
        per_tenant = tenants_base = None
        if section.per_tenant is not None:
            per_tenant = tenants_base = self._limits((*at, "per_tenant"), section.per_tenant, Limits())
        tenants = {
            tenant: self._limits((*at, "tenants", tenant), own, tenants_base or Limits())
            for tenant, own in section.tenants.items()
        }
        capacity = Capacity(
            limits=limits,
            quota=self._quota(section),
            cost=self._cost(section),
            per_tenant=per_tenant,
            tenants=tenants,
            schedule=self._schedule(section.schedule, limits) if section.schedule else None,
            mode=Mode(section.mode),
        )
        if not self.shaped.is_broken(at):
            self._check_cost(capacity)
        return capacity

    def _limits(self, at: Loc, section: LimitsSection, inherited: Limits) -> Limits:
        stated = section.model_fields_set
        rate = section.rate if "rate" in stated else inherited.rate
        concurrency = section.concurrency if "concurrency" in stated else inherited.concurrency
        burst = section.burst if "burst" in stated or inherited.rate is None else inherited.rate.burst
        if rate is None:
            if "burst" in stated and not self.shaped.is_broken(at):
                self._add((*at, "burst"), "`burst` without `rate` limits nothing: state a rate")
            return Limits(concurrency=concurrency)
        rate = replace(rate, burst=burst)
        self._check_burst(at, rate)
        return Limits(rate=rate, concurrency=concurrency)

    def _check_burst(self, at: Loc, rate: Rate) -> None:
        if rate.interval_us * rate.burst > TAU_MAX_US:
            most = TAU_MAX_US // rate.interval_us
            self._add(
                (*at, "burst"),
                f"a burst of {rate.burst} at {format_rate(rate)} reaches more than 31 years back: at most {most}",
            )

    def _quota(self, section: CapacitySection) -> Quota | None:
        quota = section.quota
        return Quota(limit=quota.limit, per=Per(quota.per), timezone=quota.timezone) if quota else None

    def _cost(self, section: CapacitySection) -> Cost:
        cost, at = section.cost, (*self.at, "capacity", "cost")
        if cost.header is not None and cost.max is None and not self.shaped.is_broken(at):
            self._add((*at, "header"), "`cost.header` needs `max`: the most that a call may say")
        if cost.header is None and cost.max is not None and not self.shaped.is_broken(at):
            self._add(
                (*at, "max"), "`cost.max` bounds a header, and there is none: leave it out or state `header`"
            )
        if cost.max is not None and cost.max < cost.constant:
            self._add((*at, "max"), f"`cost.max` {cost.max} is less than the constant {cost.constant}")
        return Cost(constant=cost.constant, header=cost.header, max=cost.max or cost.constant)

    def _schedule(self, section: ScheduleSection, own: Limits) -> Schedule:
        at = (*self.at, "capacity", "schedule")
        hours = []
        for index, entry in enumerate(section.hours):
            when = parse_when(entry.when)
            hours.append(
                Hours(
                    weekdays=when.weekdays,
                    date=when.date,
                    start_minute=when.start_minute,
                    end_minute=when.end_minute,
                    limits=self._limits((*at, "hours", index), entry, own),
                    text=entry.when,
                )
            )
        otherwise = self._limits((*at, "otherwise"), section.otherwise, own)
        return Schedule(timezone=section.timezone, hours=tuple(hours), otherwise=otherwise)

    def _check_cost(self, capacity: Capacity) -> None:
        """A cost that never fits would be refused as the caller's mistake, for ever."""
        most = max(capacity.cost.constant, capacity.cost.max)
        at = (*self.at, "capacity", "cost")
        stated: list[tuple[str, Limits]] = [("capacity", capacity.limits)]
        stated += [("per_tenant", capacity.per_tenant)] if capacity.per_tenant else []
        stated += [(f"tenants.{tenant}", limits) for tenant, limits in capacity.tenants.items()]
        if capacity.schedule:
            stated += [(f"schedule '{entry.text}'", entry.limits) for entry in capacity.schedule.hours]
            stated.append(("schedule.otherwise", capacity.schedule.otherwise))
        for where, limits in stated:
            if limits.rate is not None and limits.rate.limit and limits.rate.burst < most:
                self._add(
                    at,
                    f"a cost of {most} never fits into the burst of {limits.rate.burst} of {where}: "
                    "raise that burst or lower the cost",
                )
        if capacity.quota is not None and capacity.quota.limit < most:
            self._add(at, f"a cost of {most} never fits into the quota of {capacity.quota.limit}")

    def _add(self, at: Loc, message: str) -> None:
        self.problems.append(self.shaped.document.problem(at, message))
