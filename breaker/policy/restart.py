"""
Restart: which settings of the process a reload cannot bring into force.

Sockets, the store, the shape of log lines and where spans go are chosen once, when the process starts.
"""

from pathlib import Path

from breaker.core.config import Gateway
from breaker.core.errors import ConfigError, Problem

NEEDS_RESTART = (
    "listen", "admin", "cluster", "store", "log_level", "log_format", "log_sample", "cookies",
    "head_timeout_ms", "connections_max", "traces_endpoint", "traces_sample",
)  # fmt: skip


def refuse_what_needs_a_restart(old: Gateway, new: Gateway, folder: Path) -> None:
    """
    A setting that a reload cannot bring into force must not look as if it were.

    Raises:
        ConfigError: Naming each such setting that changed.
    """
    changed = [name for name in NEEDS_RESTART if getattr(old, name) != getattr(new, name)]
    if changed:
        message = f"changed what needs a restart: {', '.join(changed)}; the old configuration stays in force"
        raise ConfigError([Problem(file=str(folder / "gateway.yaml"), line=0, column=0, message=message)])
