"""
Address: where the store is, as `store.url` says it.

    redis://host:6379/0, rediss://, unix:///path         one server
    redis+sentinel://host:26379,host:26379/<service>/0   the primary that the sentinels name
    redis+cluster://host:6379,host:6379                  a Cluster, found through any of its nodes

What a person writes is checked in `policy/store_url.py`; here it is taken apart.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from breaker.core.config import StoreSettings
from breaker.core.errors import StartError


class Topology(StrEnum):
    """How the servers of a store stand together."""

    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Node(NamedTuple):
    """One server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """
    A store's URL, taken apart.

    Attributes:
        seeds: Sentinels, or nodes of a Cluster that are asked for the others; empty when standalone.
        service: What the sentinels call the primary.
        database: Always 0 in a Cluster.
        username, password: Of the servers; those of the settings before those of the URL.

    """

    topology: Topology
    seeds: tuple[Node, ...] = ()
    service: str = ""
    database: int = 0
    is_tls: bool = False
    username: str | None = None
    password: str | None = None

    def of_server(self, settings: StoreSettings, node: Node) -> StoreSettings:
        """Settings that reach one of the servers by itself, with the same credentials."""
        url = f"{'rediss' if self.is_tls else 'redis'}://{node}/{self.database}"
        return replace(settings, url=url, username=self.username, password=self.password)

    def of_sentinel(self, settings: StoreSettings, node: Node, *, with_password: bool) -> StoreSettings:
        """Settings that reach one of the sentinels."""
        password = self.password if with_password else None
        username = self.username if with_password else None
        url = f"{'rediss' if self.is_tls else 'redis'}://{node}"
        return replace(settings, url=url, username=username, password=password)


def address_of(settings: StoreSettings) -> Address:
    """
    Take the URL apart.

    Raises:
        StartError: It cannot be understood.

    """
    scheme, _, rest = settings.url.partition("://")
    tls, plus, kind = scheme.partition("+")
    if not plus:
        return Address(topology=Topology.STANDALONE)
    if tls not in ("redis", "rediss") or kind not in ("sentinel", "cluster"):
        raise StartError(f"store url {settings.url!r}: {scheme!r} is no scheme of a store")
    user, _, places = rest.rpartition("@")
    nodes, _, path = places.partition("/")
    service, _, database = path.partition("/")
    username, _, password = user.partition(":")
    try:
        seeds = tuple(_node(text, 26_379 if kind == "sentinel" else 6_379) for text in nodes.split(","))
        number = int(database or "0")
    except ValueError as exc:
        raise StartError(f"store url {settings.url!r}: {exc}") from exc
    if kind == "sentinel" and not service:
        raise StartError(f"store url {settings.url!r} names no service: write {scheme}://host:port/<service>")
    return Address(
        topology=Topology(kind),
        seeds=seeds,
        service=service if kind == "sentinel" else "",
        database=number,
        is_tls=tls == "rediss",
        username=settings.username or unquote(username) or None,
        password=settings.password or unquote(password) or None,
    )


def _node(text: str, port: int) -> Node:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is no host:port")
    return Node(parts.hostname, parts.port or port)
