"""
Router: which operation is this call for?

One tree of path segments per pipeline. A literal segment goes before a parameter. Segments are
compared as they were sent, except that `.` and `..`, also when encoded, belong to no operation:
what the downstream makes of them we cannot know.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from breaker.gateway.work import Work

FIRST = 2  # of a path's segments: behind the empty one and the pipeline


@dataclass(slots=True)
class Node:
    """One segment: what may follow it, and which methods end here."""

    literals: dict[str, "Node"] = field(default_factory=dict)
    parameter: "Node | None" = None
    works: dict[str, tuple[Work, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """The operation of a call, and the values of its template's parameters, as they were sent."""

    work: Work
    parameters: dict[str, str]


class Router:
    """All operations of a configuration."""

    def __init__(self, works: Iterable[Work]) -> None:
        self._pipelines: dict[str, Node] = {}
        for work in works:
            operation = work.operation
            node, names = self._pipelines.setdefault(operation.pipeline, Node()), []
            for segment in operation.match.template.strip("/").split("/"):
                if segment.startswith("{"):
                    names.append(segment[1:-1])
                    node.parameter = node.parameter or Node()
                    node = node.parameter
                else:
                    node = node.literals.setdefault(segment, Node())
            node.works[operation.match.method] = (work, tuple(names))

    def find(self, method: str, path: str) -> Route | tuple[str, ...]:
        """
        The operation for a path as it was sent, without its query.

        Returns:
            The route; or the methods that this path takes instead, none for an unknown path.

        """
        segments = path.split("/") if path.count("/") > 1 else [*path.split("/"), ""]
        root = self._pipelines.get(segments[1])
        if root is None:
            return ()
        # Dots are rare, and looking at each segment for them is not free.
        if ("/." in path or "%" in path or "\\" in path) and any(is_dots(segment) for segment in segments):
            return ()
        found = descend(root, segments, FIRST, [])
        if found is None:
            return ()
        node, values = found
        entry = node.works.get(method)
        if entry is None and method == "HEAD":
            entry = node.works.get("GET")
        if entry is None:
            return tuple(sorted(node.works))
        work, names = entry
        return Route(work, dict(zip(names, values, strict=True)))


def is_dots(segment: str) -> bool:
    """`.` or `..`, plain or hidden by encoding, also around an encoded slash."""
    if "%" not in segment and "\\" not in segment:
        return segment in (".", "..")
    decoded = unquote(segment).replace("\\", "/")
    return any(part in (".", "..") for part in decoded.split("/")) or "\x00" in decoded


def descend(node: Node, segments: list[str], at: int, values: list[str]) -> tuple[Node, list[str]] | None:
    """The node that these segments end at; a literal first, then as a parameter."""
    while at < len(segments):
        segment = segments[at]
        at += 1
        child = node.literals.get(segment)
        if child and not node.parameter:
            node = child
            continue
        if child and (found := descend(child, segments, at, values)):
            return found
        if not node.parameter or not segment:
            return None
        node, values = node.parameter, [*values, segment]
    return (node, values) if node.works else None
