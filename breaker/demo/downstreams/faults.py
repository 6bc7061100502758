"""
Faults: how a downstream misbehaves on demand, as what is posted to `/_control/faults`.

Each mode is a class with the settings that it has, and no other is accepted. What a fault does with the
work is said in each: a caller that sees a broken answer must not conclude that nothing was done.
"""

import asyncio
import random
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Seconds = Annotated[float, Field(ge=0, le=3600)]


class _Fault(BaseModel):
    """
    What all modes have.

    Attributes:
        share: Of the calls that it hits, 0..1.
        calls: After so many hits it is over; None is until it is changed.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(default=1.0, ge=0, le=1)
    calls: int | None = Field(default=None, ge=1, le=1_000_000)


class NoFault(BaseModel):
    """The downstream works."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["none"]


class Errors(_Fault):
    """A worker fails at once; nothing is done."""

    mode: Literal["errors"]
    status: int = Field(default=500, ge=500, le=599)


class RetryAfter(_Fault):
    """Refused with `Retry-After`; nothing is done."""

    mode: Literal["retry_after"]
    seconds: int = Field(default=5, ge=0, le=3600)
    status: Literal[429, 503] = 503


class Slow(_Fault):
    """The work takes so many seconds longer, and is done."""

    mode: Literal["slow"]
    seconds: Seconds = 5.0


class Hang(_Fault):
    """The work is done, the answer never comes; the worker is held so long, or until faults are changed."""

    mode: Literal["hang"]
    seconds: Seconds = 60.0


class Drip(_Fault):
    """The work is done; the body of the answer comes byte by byte, and takes so long."""

    mode: Literal["drip"]
    seconds: Seconds = 10.0


class Reset(_Fault):
    """The work is done; the connection is reset, before the answer or in the middle of its body."""

    mode: Literal["reset"]
    at: Literal["start", "body"] = "body"


class Huge(_Fault):
    """The work is done; the answer has so many bytes."""

    mode: Literal["huge"]
    bytes: int = Field(default=2**31, ge=1, le=2**34)


Fault = NoFault | Errors | RetryAfter | Slow | Hang | Drip | Reset | Huge
_FAULT: TypeAdapter[Fault] = TypeAdapter(Annotated[Fault, Field(discriminator="mode")])


class Faults:
    """The fault that is switched on, and who is hit by it."""

    def __init__(self, *, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  (chance that can be repeated, not a secret)
        self._fault: Fault = NoFault(mode="none")
        self._hits = 0
        self._changed = asyncio.Event()

    def set(self, content: object) -> str | None:
        """Switch to what was posted; None, or one line that says what is wrong with it."""
        try:
            fault = _FAULT.validate_python(content)
        except ValidationError as exc:
            if not isinstance(content, dict) or "mode" not in content:
                return "mode is missing: none, errors, retry_after, slow, hang, drip, reset or huge"
            return "; ".join(_explain(error["loc"], error["msg"]) for error in exc.errors())
        self._switch(fault)
        return None

    def clear(self) -> None:
        self._switch(NoFault(mode="none"))

    def show(self) -> dict[str, Any]:
        return {"mode": self._fault.mode, **self._fault.model_dump(), "hits": self._hits}

    def draw(self) -> Fault:
        """The fault that hits this call."""
        fault = self._fault
        if isinstance(fault, NoFault) or self._random.random() >= fault.share:
            return NoFault(mode="none")
        self._hits += 1
        if self._hits == fault.calls:
            # Not _switch: the calls that were hit stay hit.
            self._fault, self._hits = NoFault(mode="none"), 0
        return fault

    async def wait_changed(self, seconds: float) -> None:
        """Until somebody changes the fault, at most so long."""
        changed = self._changed
        try:
            await asyncio.wait_for(changed.wait(), seconds)
        except TimeoutError:
            return

    def _switch(self, fault: Fault) -> None:
        self._fault, self._hits = fault, 0
        self._changed.set()
        self._changed = asyncio.Event()


def _explain(where: tuple[int | str, ...], message: str) -> str:
    # The first part is the mode itself, which the person knows.
    return ": ".join([*(str(part) for part in where[1:]), message])
