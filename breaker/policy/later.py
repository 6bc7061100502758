"""
Later: fields of the design whose feature does not exist yet.

They are refused by name, so that nobody believes to be protected by something that is not there,
and they are never suggested. When a feature arrives, its line leaves this file.
"""

SIGNALS = "alert rules"

OPERATION = {"alerts": SIGNALS}
GATEWAY = {"alerts": SIGNALS}


def is_later(key: str, where: dict[str, str]) -> str | None:
    """The sentence for a key of the design that is not there yet."""
    return f"`{key}` is not available yet: it comes with {where[key]}" if key in where else None
