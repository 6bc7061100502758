"""
Documents: YAML text as plain values that remember where they stood.

Only `int`, `float`, `true`, `false` and `null` are more than text: `on`, `no`, `1:30`, `0o7`, `2026-12-24` and
`1_000` stay what the person wrote, where YAML 1.1 would make something else of them.
Aliases and tags are refused: a value has one place, and a small file cannot unfold into a large one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yaml import MappingNode, MarkedYAMLError, Node, ScalarNode, SequenceNode, YAMLError
from yaml.composer import Composer
from yaml.events import AliasEvent
from yaml.nodes import CollectionNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from breaker.core.errors import Problem

Loc = tuple[str | int, ...]

_BYTES_MAX = 1 << 20
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}(?:[eE][-+]?[0-9]{1,2})?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """
    One file that was read.

    Attributes:
        file: Path as the person gave it.
        value: dict, list, str, int, float, bool or None; keys are always str.
        places: Line and column of every value, by its path, both from 1.
        key_places: The same for the keys of mappings.
        variables: Environment variables that replaced a value, by its path.

    """

    file: str
    value: Any
    places: Mapping[Loc, tuple[int, int]]
    key_places: Mapping[Loc, tuple[int, int]]
    variables: Mapping[Loc, str] = field(default_factory=dict)

    def problem(self, loc: Loc, message: str, *, at_key: bool = False) -> Problem:
        """A problem at the value (or key) of a path, or at the nearest thing around it that exists."""
        if loc in self.variables:
            return Problem(file=f"${self.variables[loc]}", line=0, column=0, message=message)
        if at_key and loc in self.key_places:
            line, column = self.key_places[loc]
        else:
            while loc and loc not in self.places:
                loc = loc[:-1]
            line, column = self.places.get(loc, (1, 1))
        return Problem(file=self.file, line=line, column=column, message=message)

    def has(self, loc: Loc) -> bool:
        """Did the person state this?"""
        return loc in self.places or loc in self.variables

    def has_inside(self, loc: Loc) -> bool:
        """Is it a mapping or a list with something in it?"""
        return any(len(place) > len(loc) and place[: len(loc)] == loc for place in self.places)

    def origin(self, loc: Loc) -> str:
        """`file:line` of a stated value, or the variable that states it."""
        if loc in self.variables:
            return f"${self.variables[loc]}"
        line, _ = self.key_places.get(loc) or self.places[loc]
        return f"{self.file}:{line}"


def read_document(path: Path, content: bytes, problems: list[Problem]) -> Document | None:
    """The document of a file's bytes, or None when the problems say why it cannot be read."""
    file = str(path)
    line = column = 0
    if len(content) > _BYTES_MAX:
        message = f"the file has {len(content)} bytes; at most {_BYTES_MAX} are read"
        problems.append(Problem(file=file, line=0, column=0, message=message))
        return None
    try:
        builder = _Builder(file=file, problems=problems)
        node = _Loader(content.decode("utf-8-sig")).get_single_node()
        value = None if node is None else builder.build(node, ())
        return Document(file=file, value=value, places=builder.places, key_places=builder.key_places)
    except UnicodeDecodeError as error:
        message = f"byte {error.start} is not UTF-8: save the file as UTF-8"
    except RecursionError:
        message = "the file is nested too deeply"
    except _UnsupportedError as error:
        message, line, column = str(error), error.mark.line + 1, error.mark.column + 1
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = "not YAML: " + ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    except YAMLError as error:  # a character that YAML does not allow
        message = "not YAML: " + " ".join(str(error).split())
    problems.append(Problem(file=file, line=line, column=column, message=message))
    return None


def read_scalar(text: str) -> Any:
    """What a plain word means: int, float, bool, None, and else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


class _UnsupportedError(Exception):
    """It is YAML, but none that is read here."""

    def __init__(self, message: str, mark: Any) -> None:
        self.mark = mark
        super().__init__(message)


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML up to nodes, with no implicit types at all: `_Builder` decides what a word means."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, AliasEvent) or event.anchor is not None:
            message = "anchors and aliases are not supported: write the value out"
            raise _UnsupportedError(message, event.start_mark)
        if event.tag not in {None, "!"}:
            message = f"the tag {event.tag.replace(_TAG, '!!')} is not supported: leave it out"
            raise _UnsupportedError(message, event.start_mark)
        return super().compose_node(parent, index)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Builder:
    """Nodes -> values, noting every place and every key that stands twice."""

    file: str
    problems: list[Problem]
    places: dict[Loc, tuple[int, int]] = field(default_factory=dict)
    key_places: dict[Loc, tuple[int, int]] = field(default_factory=dict)

    def build(self, node: Node, loc: Loc) -> Any:
        self.places[loc] = _place(node)
        if isinstance(node, MappingNode):
            return self._build_mapping(node, loc)
        if isinstance(node, SequenceNode):
            return [self.build(item, (*loc, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)  # noqa: S101 - the last kind there is
        text = str(node.value)
        return read_scalar(text) if node.style is None else text

    def _build_mapping(self, node: MappingNode, loc: Loc) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if isinstance(key_node, CollectionNode):
                self._add(key_node, "a key is a word, not a list or a mapping")
                continue
            key = str(key_node.value)
            if key == "<<" and key_node.style is None:
                self._add(key_node, "merge keys (`<<`) are not supported: write the values out")
                continue
            if key in value:
                first, _ = self.key_places[*loc, key]
                self._add(key_node, f"`{key}` stands twice; first in line {first}: keep one")
                continue
            self.key_places[*loc, key] = _place(key_node)
            value[key] = self.build(value_node, (*loc, key))
        return value

    def _add(self, node: Node, message: str) -> None:
        line, column = _place(node)
        self.problems.append(Problem(file=self.file, line=line, column=column, message=message))


def _place(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
