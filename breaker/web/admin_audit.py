"""
Audit: every change by a person is written down, before it is made and when it has ended.

Before, because a change that nobody could find afterwards must not be made: when the stream cannot be
written to, nothing is changed. When it has ended, because what came of it is the other half. `audit_view`
puts the two together again.
"""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import orjson

from breaker.core.errors import StoreError
from breaker.web.admin_controls import Controls
from breaker.web.admin_views import moment
from breaker.web.operators import Person

UNKNOWN = "not recorded: it is under way, or the gateway that did it ended"


class Change:
    """
    One change by a person: `async with` writes down that it was asked, and then its `outcome`.

    Args:
        action: Such as `jobs.cancel`.
        job: The job's whole id.
        asked: Whatever else was said.

    Raises:
        StoreError: On entering, when it could not be written down; the change must not be made.

    """

    def __init__(
        self,
        controls: Controls,
        person: Person,
        action: str,
        *,
        operation: str = "",
        job: str = "",
        reason: str = "",
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        self._audit = controls.audit
        self._entry = {
            "change": secrets.token_hex(8),
            "at": moment(controls.now_us()) or "",
            "author": person.id,
            "action": action,
            "operation": operation,
            "job": job,
            "reason": reason,
            "asked": orjson.dumps(dict(asked or {})).decode(),
        }
        self.outcome = "done"

    async def __aenter__(self) -> Self:
        await self._audit.write({**self._entry, "stage": "asked", "outcome": ""})
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: object) -> None:
        if isinstance(exc, Exception):
            self.outcome = f"failed: {exc}"
        elif exc is not None:
            self.outcome = "broken off"
        # That it was asked is written, and its author is told what came of it: a lost second half is shown
        # as not recorded, and must not make what was done look undone.
        with suppress(StoreError):
            await self._audit.write({**self._entry, "stage": "ended", "outcome": self.outcome})


def audit_view(entries: list[dict[str, str]], limit: int) -> list[dict[str, Any]]:
    """One row for each change, the newest first."""
    rows: list[dict[str, Any]] = []
    ended: set[str] = set()
    for entry in entries:
        change = entry.get("change", "")
        if entry.get("stage") == "ended":
            ended.add(change)
        elif change in ended:
            continue
        row: dict[str, Any] = {name: value for name, value in entry.items() if name not in ("stage", "id")}
        row["asked"] = orjson.loads(entry.get("asked") or "{}")
        row["outcome"] = entry.get("outcome") or UNKNOWN
        rows.append(row)
    return rows[:limit]
