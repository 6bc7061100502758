"""
Later: fields of the design whose feature does not exist yet.

They are refused by name, so that nobody believes to be protected by something that is not there,
and they are never suggested. When a feature arrives, its line leaves this file.
"""

CIRCUITS = "circuits"
SIGNALS = "alert rules"

OPERATION = {
    "circuit": CIRCUITS,
    "slow_down": CIRCUITS,
    "slow_down_max": CIRCUITS,
    "adaptive": CIRCUITS,
    "when_store_down": "degraded modes",
    "alerts": SIGNALS,
}
GATEWAY = {"alerts": SIGNALS}
DIRECT_RETRY = f"`retry` needs `overflow: queue` for now: retries of direct calls come with {CIRCUITS}"


def is_later(key: str, where: dict[str, str]) -> str | None:
    """The sentence for a key of the design that is not there yet."""
    return f"`{key}` is not available yet: it comes with {where[key]}" if key in where else None
