"""
Environment: variables that take the place of values in `gateway.yaml`.

`BREAKER_STORE__URL` is `store.url`: upper case, `__` where the file has a dot. A variable
that belongs to no field is a problem, because a misspelt one would silently change nothing.
`BREAKER_CONFIG` names the folder, `BREAKER_DATA` where an embedded store keeps its files, and
`BREAKER_STORE__PASSWORD` carries the secret itself. Those that the command line reads for itself
(`COMMANDS`) are not ours to judge.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from breaker.core.errors import Problem
from breaker.policy.document import Document, Loc, read_scalar
from breaker.policy.fields import fields_of
from breaker.policy.gateway_file import GatewayFile
from breaker.policy.words import did_you_mean

PREFIX = "BREAKER_"
FOLDER = "BREAKER_CONFIG"
DATA = "BREAKER_DATA"
PASSWORD = "BREAKER_STORE__PASSWORD"  # noqa: S105 - the name of the variable
COMMANDS = frozenset({"BREAKER_ADMIN_URL", "BREAKER_OPERATOR_KEY_FILE"})
_NO_SCALARS = {
    "callers": "list",
    "operators": "list",
    "payload_keys": "list",
    "alerts.channels": "mapping",
    "alerts.routes": "list",
}
_READ_AS_WRITTEN = {"whole number", "number", "true or false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """
    What the environment says.

    Attributes:
        document: The file with the values replaced.
        password: Of the store, if a variable carries it.

    """

    document: Document
    password: str | None


def variables() -> dict[str, str]:
    """Every variable that may be set, and the path of its field."""
    paths = [field.path for field in fields_of(GatewayFile)]
    return {_variable(path): path for path in paths if "[]" not in path and "<name>" not in path}


def override(document: Document, environ: Mapping[str, str], problems: list[Problem]) -> Overrides:
    """The document with what the environment replaces, and the problems of what it cannot."""
    value = document.value if isinstance(document.value, dict) else {}
    kinds = {field.path: field.kind for field in fields_of(GatewayFile)}
    known, named = variables(), dict(document.variables)
    password = environ.get(PASSWORD) or None
    for variable, said in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in {FOLDER, DATA, PASSWORD, *COMMANDS}:
            continue
        path = known.get(variable)
        if path is None:
            problems.append(Problem(file=f"${variable}", line=0, column=0, message=_unknown(variable, known)))
            continue
        loc: Loc = tuple(path.split("."))
        text = said
        if path == "store.url":
            text, parts = _without_user(said)
            password = parts.pop("password", None) or password
            for name, part in parts.items():
                value = _set(value, ("store", name), part)
                named["store", name] = variable
        value = _set(value, loc, read_scalar(text) if kinds[path] in _READ_AS_WRITTEN else text)
        named[loc] = variable
    replaced = Document(
        file=document.file,
        value=value if named or isinstance(document.value, dict) else document.value,
        places=document.places,
        key_places=document.key_places,
        variables=named,
    )
    return Overrides(document=replaced, password=password)


def _variable(path: str) -> str:
    return PREFIX + path.upper().replace(".", "__")


def _set(value: dict[str, Any], loc: Loc, text: Any) -> dict[str, Any]:
    """A copy with one path replaced; what is no mapping on the way is left for the check of shapes."""
    key = str(loc[0])
    if len(loc) == 1:
        return {**value, key: text}
    inner = value.get(key, {})
    return {**value, key: _set(inner, loc[1:], text)} if isinstance(inner, dict) else value


def _without_user(url: str) -> tuple[str, dict[str, str]]:
    """A variable may carry what a file may not: `redis://user:secret@host`. It is taken apart here."""
    # By hand: `urlsplit` refuses several hosts of which one is an IPv6 address, in some versions of Python.
    scheme, separator, rest = url.partition("://")
    place, *_ = re.split(r"[/?#]", rest, maxsplit=1)
    user, found_user, host = place.rpartition("@")
    if not separator or not found_user:
        return url, {}
    name, _, password = user.partition(":")
    found = {"username": unquote(name), "password": unquote(password)}
    rest = host + rest[len(place) :]
    return f"{scheme}://{rest}", {key: part for key, part in found.items() if part}


def _unknown(variable: str, known: Mapping[str, str]) -> str:
    for path, sort in _NO_SCALARS.items():
        if variable == _variable(path) or variable.startswith(f"{_variable(path)}__"):
            return f"`{path}` is a {sort}, which no variable can carry: write it in gateway.yaml"
    near = did_you_mean(variable, [*known, FOLDER, PASSWORD])
    return f"unknown variable {variable}{near}"
