"""
Everything Breaker raises on purpose, split by what the caller does next.

    BreakerError
    ├── ConfigError            a file is wrong: mend it (each problem has file, line and a way out)
    ├── StartError             this machine is not ready: ports, permissions, a wrong store
    │   └── StoreAwayError         ... the store cannot be reached: with `needed_at_start: false` it may come later
    └── StoreError             the store did not do it: wait, or degrade
        ├── StoreTimeoutError      ... and it may still have happened: withdraw
        ├── StoreRefusedError      ... it answered, and refused (read-only, memory, loading)
        │   └── StoreUnreachedError    ... or there is no connection yet: nothing was sent either
        ├── StoreClockError        ... its clock jumped: nothing was written
        └── StoreResetError        ... it has lost our state (flushed, other instance)

"No capacity" is an answer (`core.model.Refused`), not an error.
"""

from dataclasses import dataclass


class BreakerError(Exception):
    """The root of what is raised on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """
    One thing that is wrong in a configuration file.

    Attributes:
        file: Path as the person gave it.
        line, column: From 1; 0 when the problem is the file itself.
        message: Names the thing, the value and the way out, in one sentence.

    """

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        """`file:line:column: message`, as editors understand it."""
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.message}"


class ConfigError(BreakerError):
    """The configuration cannot be used; carries all problems at once."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class StartError(BreakerError):
    """The machine is not ready to run the gateway; the message says what to do."""


class StoreAwayError(StartError):
    """The store cannot be reached, whatever it is."""


class StoreError(BreakerError):
    """
    The store did not do what was asked.

    Attributes:
        is_partial: One node of a Cluster did not, and others can still be used: it says nothing of the store as a
            whole.

    """

    kind = "connection"
    is_partial = False


class StoreTimeoutError(StoreError):
    """The store did not answer in time; the step may have happened."""

    kind = "timeout"


class StoreRefusedError(StoreError):
    """The store answered and refused: read-only, out of memory, loading, busy."""

    kind = "refused"


class StoreUnreachedError(StoreRefusedError):
    """
    There is no connection to it yet: nothing was sent, as when it refuses.

    To people it is one that cannot be reached: a store that is frozen or cut off looks like this, and refuses nothing.
    """

    kind = StoreError.kind


class StoreClockError(StoreError):
    """The store's clock and ours disagree by more than 2 s; nothing was written."""

    kind = "clock"


class StoreResetError(StoreError):
    """The store does not know the operation: it was flushed, or is another instance."""

    kind = "reset"
