"""
Store URL: how a person writes where the store is, for each way of running it.

    embedded                                         started by us
    redis://host:6379/0         rediss://            one server, TLS with the second `s`
    unix:///run/valkey.sock                          the same on this machine
    redis+sentinel://host:26379,host:26379/orders/0  the primary that Sentinels name for a service
    redis+cluster://host:6379,host:6379              some nodes of a Cluster; the others are found

Checked, not resolved: nothing here opens a connection. What may carry a secret is never repeated.
"""

import re
from typing import NamedTuple

from breaker.policy.words import check_address, split_url

_ONE = ("redis", "rediss", "unix")
_MANY = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_NODES_MAX = 16
_SERVICE = re.compile(r"[A-Za-z0-9._-]{1,64}")  # what Sentinel itself takes
_DATABASE = re.compile(r"0|[1-9][0-9]{0,2}")


class _Parts(NamedTuple):
    """`redis+sentinel://a:1,b:1/orders/0` taken apart; `rest` is None without a '/'."""

    scheme: str
    nodes: list[str]
    rest: str | None


def check_store_url(text: str) -> str:
    """The text itself, if it is the address of a store."""
    if text == "embedded":
        return text
    scheme = text.partition(":")[0]
    if scheme in _MANY:
        return _check_many(text)
    if scheme in _ONE and "," in text.removeprefix(f"{scheme}://").partition("/")[0] and "@" not in text:
        raise ValueError(
            f"{text!r} has several addresses: with Sentinel write redis+sentinel://host:port,host:port/<service>, "
            "for a Cluster redis+cluster://host:port,host:port"
        )
    parts = split_url(text, (*_ONE, *_MANY), "embedded, ")
    if scheme == "unix" and not parts.path:
        raise ValueError(f"{text!r} has no path: write unix:///run/valkey.sock")
    if scheme != "unix" and not parts.hostname:
        raise ValueError(f"{text!r} has no host: write {scheme}://host:6379")
    return text


def with_tls(url: str) -> str:
    """The scheme that is this one over TLS: `rediss+sentinel` for `redis+sentinel`; a socket has none."""
    scheme = url.partition(":")[0]
    return scheme.replace("redis", "rediss", 1) if scheme in _MANY else "rediss"


def is_tls(url: str) -> bool:
    return url.partition(":")[0] in {"rediss", "rediss+sentinel", "rediss+cluster"}


def _check_many(text: str) -> str:
    parts = _split_many(text)
    _check_nodes(text, parts)
    kind = parts.scheme.partition("+")[2]
    if kind == "sentinel":
        _check_service(text, parts)
    elif parts.rest:
        raise ValueError(
            f"{text!r} has '/{parts.rest}': a Cluster has one database and no service; leave it out"
        )
    return text


def _split_many(text: str) -> _Parts:
    if "@" in text:
        raise ValueError("the URL carries a user or password, which do not belong in a file that is shared")
    scheme, separator, tail = text.partition("://")
    if not separator:
        scheme = text.partition(":")[0]
        raise ValueError(f"{text!r} is not a URL: write {_shape_of(scheme)}")
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError(f"{text!r} has a space or control character in it")
    if "?" in text or "#" in text:
        raise ValueError(f"{text!r} has a query or fragment: write {_shape_of(scheme)}")
    nodes, slash, rest = tail.partition("/")
    return _Parts(scheme, nodes.split(",") if nodes else [], rest if slash else None)


def _check_nodes(text: str, parts: _Parts) -> None:
    if not parts.nodes or "" in parts.nodes:
        raise ValueError(f"{text!r} lacks an address: write {_shape_of(parts.scheme)}")
    for node in parts.nodes:
        try:
            port = int(check_address(node).rpartition(":")[2])
        except ValueError as error:
            raise ValueError(f"{error}; the whole is {_shape_of(parts.scheme)}") from None
        if port == 0:
            raise ValueError(f"{node!r} has the port 0, which nothing listens on")
    if len(set(parts.nodes)) != len(parts.nodes):
        raise ValueError(
            f"{text!r} names one address twice: each once, so that another is asked when one is silent"
        )
    if len(parts.nodes) > _NODES_MAX:
        raise ValueError(
            f"{text!r} names {len(parts.nodes)} addresses: at most {_NODES_MAX}, the others are found"
        )


def _check_service(text: str, parts: _Parts) -> None:
    service, slash, database = (parts.rest or "").partition("/")
    if not service:
        raise ValueError(
            f"{text!r} names no service, which the Sentinels know the primary by: write {_shape_of(parts.scheme)}"
        )
    if not _SERVICE.fullmatch(service):
        raise ValueError(f"{service!r} is no name of a service: up to 64 letters, digits, '.', '_' and '-'")
    if slash and not _DATABASE.fullmatch(database):
        raise ValueError(f"{database!r} is no number of a database: write 0, or leave '/{database}' out")


def _shape_of(scheme: str) -> str:
    """The whole as an example of this scheme."""
    tail = "/<service>" if scheme.endswith("sentinel") else ""
    return f"{scheme}://host:port,host:port{tail}"
