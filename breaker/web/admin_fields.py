"""
Fields: what a request to the admin API asks, read with care; what is wrong is refused by its name.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

import orjson
from aiohttp import web

from breaker.core.ids import ALPHABET
from breaker.core.model import Rate
from breaker.policy.units import parse_duration, parse_rate
from breaker.policy.words import did_you_mean
from breaker.web.admin_problems import AdminProblem

REASON_MAX = 1_000
OPERATION = re.compile(r"[a-z][a-z0-9-]{0,62}\.[a-z][a-z0-9-]{0,62}")
JOB = re.compile(rf"[{ALPHABET}]{{26}}")
TRUE, FALSE = ("1", "true", "yes"), ("", "0", "false", "no")

_Word = TypeVar("_Word", bound=StrEnum)


class Fields:
    """
    The fields of a body or a query.

    Args:
        known: All that there are; another one is a mistake, and would otherwise silently change nothing.

    Raises:
        AdminProblem: 422, here and in each of the methods.

    """

    def __init__(self, values: Mapping[str, Any], *known: str) -> None:
        self._values = values
        for name in values:
            if name not in known:
                raise AdminProblem(422, f"unknown field '{name}'{did_you_mean(name, known)}")

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def text(self, name: str) -> str:
        """Without the space around it; empty when it is not there."""
        value = self._values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise AdminProblem(422, f"'{name}' is to be a text")
        return value.strip()

    def required(self, name: str, why: str) -> str:
        text = self.text(name)
        if not text:
            raise AdminProblem(422, f"'{name}' is missing: {why}")
        return text

    def reason(self) -> str:
        """Why the person does it."""
        return self.required("reason", "say why, for whoever reads the audit stream later")[:REASON_MAX]

    def operation(self) -> str:
        return operation_named(self.required("operation", "name the one operation that is meant"))

    def word(self, name: str, of: type[_Word]) -> _Word | None:
        text = self.text(name)
        if not text:
            return None
        try:
            return of(text)
        except ValueError:
            words = [str(word) for word in of]
            raise AdminProblem(422, f"'{name}': '{text}' is none of {', '.join(words)}") from None

    def flag(self, name: str) -> bool:
        value = self._values.get(name, False)
        text = str(value).lower() if isinstance(value, str | bool) else "?"
        if text not in TRUE + FALSE:
            raise AdminProblem(422, f"'{name}' is to be true or false")
        return text in TRUE

    def count(self, name: str, default: int, most: int) -> int:
        """A whole number, 1 to `most`."""
        value = str(self._values.get(name, default))
        if not re.fullmatch(r"[0-9]{1,9}", value) or not 1 <= int(value) <= most:
            raise AdminProblem(422, f"'{name}' is to be a whole number from 1 to {most}")
        return int(value)

    def duration_us(self, name: str) -> int:
        """Of `250ms 10s 5m 2h 3d`; 0 when it is not there."""
        text = self.text(name)
        try:
            return parse_duration(text) * 1_000 if text else 0
        except ValueError as exc:
            raise AdminProblem(422, f"'{name}': {exc}") from None

    def moment_us(self, name: str, now_us: int) -> int:
        """Of an RFC 3339 moment, or of a duration before now; 0 when it is not there."""
        text = self.text(name)
        if not text:
            return 0
        if re.fullmatch(r"[0-9]+[a-z]+", text):
            return now_us - self.duration_us(name)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise AdminProblem(
                422,
                f"'{name}': '{text}' is neither a moment with its zone (2026-01-31T18:00:00Z) nor an age (2h)",
            )
        return int(moment.timestamp() * 1_000_000)

    def rate(self, name: str, default: float) -> float:
        """Jobs per second, of `10/s 600/min`."""
        text = self.text(name)
        if not text:
            return default
        try:
            rate = parse_rate(text)
        except ValueError as exc:
            raise AdminProblem(422, f"'{name}': {exc}") from None
        if not rate.limit:
            raise AdminProblem(422, f"'{name}': '{text}' never gets anywhere")
        return rate.limit * 1e6 / rate.period_us

    def pace(self, name: str) -> Rate | None:
        """Starts per time, of `40/s 600/min 0/s`; None when it is not there."""
        if not self.has(name):
            return None
        try:
            return parse_rate(self._values[name])
        except ValueError as exc:
            raise AdminProblem(422, f"'{name}': {exc}") from None

    def amount(self, name: str, least: int, most: int) -> int | None:
        """A whole number, `least` to `most`; None when it is not there."""
        if not self.has(name):
            return None
        value = str(self._values[name])
        if not re.fullmatch(r"[0-9]{1,12}", value) or not least <= int(value) <= most:
            raise AdminProblem(422, f"'{name}': '{value}' is no whole number from {least} to {most}")
        return int(value)

    def inner(self, name: str, why: str) -> Mapping[str, Any]:
        """An object within."""
        value = self._values.get(name)
        if value is None:
            raise AdminProblem(422, f"'{name}' is missing: {why}")
        if not isinstance(value, dict):
            raise AdminProblem(422, f"'{name}' is to be an object")
        return value


async def body_of(request: web.Request) -> Mapping[str, Any]:
    """
    The JSON object that was sent.

    Raises:
        AdminProblem: It is none.

    """
    if request.content_type != "application/json":
        # Besides, no browser sends this to another site without asking first.
        raise AdminProblem(415, "send a JSON object, with Content-Type: application/json")
    try:
        value = orjson.loads(await request.read())
    except orjson.JSONDecodeError as exc:
        raise AdminProblem(400, f"the body is no JSON: {exc}") from None
    if not isinstance(value, dict):
        raise AdminProblem(422, "the body is to be a JSON object")
    return value


def operation_named(name: str) -> str:
    if not OPERATION.fullmatch(name):
        raise AdminProblem(422, f"'{name}' is no operation: they are named like billing.charge-invoice")
    return name


def job_named(id_: str) -> tuple[str, str]:
    """The operation and the ULID in a job's id."""
    operation, _, ulid = id_.partition("~")
    if not OPERATION.fullmatch(operation) or not JOB.fullmatch(ulid):
        raise AdminProblem(404, f"'{id_}' is no job id: they look like billing.charge-invoice~01JD...")
    return operation, ulid
