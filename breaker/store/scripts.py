"""
Scripts: the verbs of the store, from `lua/*.lua`.

A line such as `-- include limits` is replaced by that file, so that each verb stays one readable
file while they share one definition of the rules.
"""

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files

VERBS = (
    "admit", "grant", "settle", "withdraw", "renew", "look", "publish",
    "carry", "probe",
    "accept", "lease", "ack", "extend", "revoke", "keep", "show", "alter", "listed", "chores", "ledger", "hold",
    "report", "force", "beat", "leave", "remove", "set", "tally", "tallied", "enter",
)  # fmt: skip
SHARED = ("limits", "circuit", "queue", "turn")  # limits.lua includes circuit.lua, so that stands behind it


@dataclass(frozen=True, slots=True)
class Script:
    """One verb: its text as the store runs it, and the name that EVALSHA calls it by."""

    verb: str
    text: str
    sha: bytes


def load_scripts() -> dict[str, Script]:
    """Read all verbs from the package."""
    folder = files("breaker.store") / "lua"
    shared = {name: (folder / f"{name}.lua").read_text(encoding="utf-8") for name in SHARED}
    scripts = {}
    for verb in VERBS:
        text = (folder / f"{verb}.lua").read_text(encoding="utf-8")
        for name, content in shared.items():
            text = text.replace(f"-- include {name}\n", content)
        # SHA-1 is the name that Redis gives a script, not a protection.
        sha = sha1(text.encode(), usedforsecurity=False).hexdigest().encode()
        scripts[verb] = Script(verb, text, sha)
    return scripts
