"""
Files: what the configuration is read from, and the version that its content makes.

The version covers every YAML file and contract, by name and content. Secrets are left out:
a key that rotates changes no limit, and a hash of it belongs in no log.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import jsonschema_rs

from breaker.core.errors import Problem
from breaker.policy.words import did_you_mean

_SECRET_BYTES_MAX = 16_384
_CONTRACT_BYTES_MAX = 1 << 20
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Reads files below (or beside) one folder and remembers what counts for the version."""

    folder: Path
    counted: dict[str, bytes] = field(default_factory=dict)

    def name(self, path: Path) -> str:
        """Relative to the folder, the same on every machine."""
        return Path(os.path.relpath(path, self.folder)).as_posix()

    def read_counted(self, path: Path) -> bytes:
        """Raises ValueError with a sentence when the file cannot be read."""
        content = _read(path)
        self.counted[self.name(path)] = content
        return content

    def version(self) -> str:
        """12 hex digits over names and contents, with lengths, so that no two folders run together."""
        digest = hashlib.sha256()
        for name, content in sorted(self.counted.items()):
            digest.update(f"{len(name)}:{name}{len(content)}:".encode())
            digest.update(content)
        return digest.hexdigest()[:12]


def read_secret(path: Path) -> str:
    """The one line of a secret file, without its end. Raises ValueError; never shows what it read."""
    content = _read(path)
    if len(content) > _SECRET_BYTES_MAX:
        raise ValueError(f"{path} has {len(content)} bytes, too many for a secret")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text") from None
    if not text:
        raise ValueError(f"{path} is empty")
    return text


def check_readable(path: Path) -> str:
    """The path as text, when it can be opened. Raises ValueError."""
    _read(path)
    return str(path)


def read_contract(path: Path, files: Files) -> tuple[Mapping[str, Any] | None, list[Problem]]:
    """
    A JSON Schema 2020-12 that stands alone: no reference leaves the file.

    Raises:
        ValueError: The file cannot be opened at all; everything else is a problem of that file.

    """
    content = files.read_counted(path)

    def wrong(message: str, line: int = 0, column: int = 0) -> tuple[None, list[Problem]]:
        return None, [Problem(file=str(path), line=line, column=column, message=message)]

    if len(content) > _CONTRACT_BYTES_MAX:
        return wrong(f"the contract has {len(content)} bytes; at most {_CONTRACT_BYTES_MAX} are read")
    try:
        schema = json.loads(content, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return wrong(f"not JSON: {error.msg}", error.lineno, error.colno)
    except (ValueError, RecursionError) as error:  # not UTF-8, a key that stands twice, NaN, too deep
        return wrong(f"not JSON that can be used: {error}")
    if not isinstance(schema, dict):
        return wrong("a contract is a JSON object, a schema with `type`, `properties` and so on")
    if schema.get("$schema", _DIALECT).rstrip("#") != _DIALECT:
        return wrong(f"`$schema` is {schema['$schema']!r}; contracts are JSON Schema 2020-12: {_DIALECT}")
    try:
        jsonschema_rs.Draft202012Validator(schema, retriever=_no_retrieval)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        where = "/".join(str(part) for part in getattr(error, "instance_path", []))
        said = getattr(error, "message", str(error))
        return wrong(f"not a JSON Schema: {'at /' + where + ': ' if where else ''}{said}")
    return schema, []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        beside = sorted(entry.name for entry in path.parent.glob("*")) if path.parent.is_dir() else []
        near = did_you_mean(path.name, beside) if beside else ": its folder does not exist or is empty"
        raise ValueError(f"there is no file {path}{near}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_retrieval(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is outside of the file: copy it into `$defs`")
