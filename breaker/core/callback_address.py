"""
Callback addresses: where may the end of a job be told?

Callers choose the URL, so it is checked twice. `allowed` looks at its text, when the call is accepted and
again at each delivery; `is_public` looks at the address that a name led to, when the socket is opened
(`gateway/callback_client.py`): a name may lead somewhere else each time it is asked.

1. Scheme, host and port must be those of an entry of the operation's allow-list:

       hooks.example.com                https, port 443
       *.example.com                    likewise, any name below it, not example.com itself
       https://hooks.example.com:8443   another port
       http://127.0.0.1:9110            http must be spelled out

2. A URL has one reading or is refused: no userinfo, fragment, control character, name outside ASCII, or
   number that some programs take for an IPv4 address (`127.1`, `0x7f.1`).
3. A name may lead to globally routable addresses only. An address that is not may be called as itself, where
   an entry names exactly it: an operator wrote it down on purpose.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

URL_MAX = 2_048  # characters

Address = IPv4Address | IPv6Address

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]{2,45}\]|(?:\*\.)?[a-z0-9.-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>[/?][!-~]*)?",
    re.IGNORECASE | re.ASCII,
)
_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORTS = {"http": 80, "https": 443}
_PORT_MAX = 65_535

# IANA's special-purpose address registries (RFC 6890), without what is globally reachable; and multicast.
_NOT_PUBLIC_4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # looks public, and is the machine under every virtual machine of Azure
    )
)  # fmt: skip
# Of IPv6 only 2000::/3 is in use on the Internet (RFC 4291, section 2.4), without these.
_GLOBAL_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "3fff::/20"))
# (block, how far right the IPv4 address stands that is really called): mapped, 6to4, NAT64 (RFC 6052).
_CARRIES_4 = tuple(
    (IPv6Network(block), shift)
    for block, shift in (("::ffff:0:0/96", 0), ("2002::/16", 80), ("64:ff9b::/96", 0))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """
    What an allow-list can tell apart: who is called, and how.

    Attributes:
        host: In lower case, an address in its usual form; of an entry `*.example.com` what is behind `*.`.
        address: The host, if it is an address.
        is_wildcard: Any name below `host`, and not `host` itself; of entries only.

    """

    scheme: str
    host: str
    port: int
    address: Address | None = None
    is_wildcard: bool = False

    def covers(self, other: "Origin") -> bool:
        """Whether this entry allows a URL of that origin."""
        if (self.scheme, self.port) != (other.scheme, other.port):
            return False
        return other.host.endswith("." + self.host) if self.is_wildcard else self.host == other.host


def allowed(url: str, allow: Sequence[str]) -> str | None:
    """
    Why a callback may not go to `url`; None: it may.

    Raises:
        ValueError: An entry of `allow` is malformed.

    """
    try:
        origin = origin_of(url)
    except ValueError as exc:
        return str(exc)
    if any(entry_of(entry).covers(origin) for entry in allow):
        return None
    host = f"[{origin.host}]" if isinstance(origin.address, IPv6Address) else origin.host
    return f"callbacks to {origin.scheme}://{host}:{origin.port} are not in the allow-list of this operation"


def origin_of(url: str) -> Origin:
    """
    The origin of a URL that can be read in one way only.

    Raises:
        ValueError: It is no such URL; the message says why and does not quote it, since it may carry a token.

    """
    if len(url) > URL_MAX:
        raise ValueError(f"a callback URL has at most {URL_MAX} characters; this one has {len(url)}")
    if re.search(r"[^!-~]", url):
        raise ValueError("a callback URL has visible ASCII characters only: no space, name in punycode")
    if "#" in url:
        raise ValueError("a callback URL has no fragment")
    if "@" in re.split(r"[/?]", url.partition("://")[2], maxsplit=1)[0]:
        raise ValueError("a callback URL names no user or password")
    found = _URL.fullmatch(url)
    if not found or found["host"].startswith("*"):
        raise ValueError("a callback URL looks like https://host/path or https://host:port/path")
    return _origin(found)


@lru_cache(maxsize=4_096)
def entry_of(text: str) -> Origin:
    """
    Read an entry of an allow-list.

    Raises:
        ValueError: It has another form than those that the head of this module lists.

    """
    found = _URL.fullmatch(text if "://" in text else f"https://{text}")
    if not found or found["rest"] or ("://" not in text and found["port"]):
        raise ValueError(
            f"allow-list entry {text!r} is neither a host (hooks.example.com, *.example.com: https, port 443) "
            "nor scheme://host:port (https://hooks.example.com:8443)"
        )
    try:
        return _origin(found)
    except ValueError as exc:
        raise ValueError(f"allow-list entry {text!r}: {exc}") from exc


def is_public(address: str) -> bool:
    """Whether this numeric address is globally routable; what it carries inside decides."""
    try:
        parsed: Address = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        carried = next((shift for block, shift in _CARRIES_4 if parsed in block), None)
        if carried is None:
            return parsed in _GLOBAL_6 and not any(parsed in block for block in _NOT_PUBLIC_6)
        parsed = IPv4Address(int(parsed) >> carried & 0xFFFF_FFFF)
    return not any(parsed in block for block in _NOT_PUBLIC_4)


def _origin(found: re.Match[str]) -> Origin:
    scheme, host = found["scheme"].lower(), found["host"].lower()
    port = int(found["port"] or _PORTS[scheme])
    if not 0 < port <= _PORT_MAX:
        raise ValueError(f"there is no port {port}")
    try:
        # IPv6 stands in brackets, and nothing else does.
        address: Address = IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
        return Origin(scheme=scheme, host=str(address), port=port, address=address)
    except ValueError:
        is_wildcard = host.startswith("*.")
        host = host.removeprefix("*.")
    # What ends in a number is an IPv4 address to some programs (WHATWG URL, "ends in a number").
    if not _NAME.fullmatch(host) or _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise ValueError(f"{host!r} is neither a host name nor an address in its usual form")
    if is_wildcard and "." not in host:
        raise ValueError(f"'*.{host}' would allow half the Internet: name a domain below it")
    return Origin(scheme=scheme, host=host, port=port, is_wildcard=is_wildcard)
