"""
Scope: which jobs work on many means. It is always said, never assumed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from breaker.core.job_policy import Band
from breaker.web.admin_controls import Controls
from breaker.web.admin_fields import Fields
from breaker.web.admin_listing import Filter, filter_of
from breaker.web.admin_operations import queue_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """
    Which jobs of which operation, and why.

    Attributes:
        is_dry: Only count them.
        asked: What was asked, for the audit stream.

    """

    operation: str
    only: Filter
    is_dry: bool = False
    reason: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)


async def scope_of(
    controls: Controls, fields: Fields, *, not_in: Band | None = None, asked: Mapping[str, Any] | None = None
) -> Scope:
    """
    The scope that a body describes: `operation`, `filter`, `reason` (unless it only counts), `dry_run`.

    Args:
        not_in: A band whose jobs are not meant, whatever the filter says.
        asked: What else was asked.

    Raises:
        AdminProblem: It is not said, or not with a reason, or there is no such operation.

    """
    operation, is_dry = fields.operation(), fields.flag("dry_run")
    values = fields.inner("filter", "say which of the operation's jobs are meant; {} is all of them")
    only = filter_of(values, controls.now_us())
    reason = fields.text("reason") if is_dry else fields.reason()
    await queue_of(controls, operation)
    return Scope(
        operation=operation,
        only=replace(only, not_in=not_in),
        is_dry=is_dry,
        reason=reason,
        asked={"filter": values, "state": fields.text("state") or None, **(asked or {})},
    )
