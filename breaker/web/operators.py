"""
Operators: who may use `/admin/v1`, and under whose name a change is written down.

1. With `operators` in `gateway.yaml` each request carries one of their keys, on loopback too. A viewer may
   look; changes and payloads need the role `operator`.
2. Without them `/admin/v1` exists on loopback only, and whoever is there is an operator.
3. A socket in the file system belongs to a worker, and only its parent can reach it: the parent has asked.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from breaker.core.config import Operator, Role
from breaker.web.admin_problems import AdminProblem

LOOPBACK = ("127.0.0.1", "::1", "localhost")
LOCAL = "local"  # the author of a change on loopback who says nothing
AUTHOR_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who asks: a person, or a tool of theirs."""

    id: str
    role: Role


PERSON = web.RequestKey("person", Person)


def operator_of(operators: Iterable[Operator], key: str) -> Operator | None:
    """Whose key this is."""
    digest = sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
    # What the time of comparing could tell is a digest that nobody can steer.
    return next((one for one in operators if digest in (known.lower() for known in one.key_hashes)), None)


def only_operators(operators: Callable[[], tuple[Operator, ...]], *, is_loopback: bool) -> Middleware:
    """
    The middleware of `/admin/v1`: find out who asks, and whether they may.

    Args:
        operators: Those of the configuration in force.
        is_loopback: Only this machine can reach the listener.

    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        person = who_asks(request, operators(), is_loopback=is_loopback)
        if person.role is Role.VIEWER and needs_operator(request):
            raise AdminProblem(
                403, f"'{person.id}' is a viewer: this needs one of the `operators` with `role: operator`"
            )
        request[PERSON] = person
        return await handler(request)

    return middleware


def who_asks(request: web.Request, operators: tuple[Operator, ...], *, is_loopback: bool) -> Person:
    """
    The person behind a request.

    Raises:
        AdminProblem: Nobody whom we know, or nobody may from there.

    """
    transport = request.transport
    is_from_parent = transport is not None and isinstance(transport.get_extra_info("sockname"), str)
    if operators and not is_from_parent:
        key = request.headers.get("Breaker-Key", "")
        operator = operator_of(operators, key) if key else None
        if operator is None:
            what = "nobody has the key that came" if key else "`/admin/v1` needs a key"
            raise AdminProblem(401, f"{what} in the header Breaker-Key; see `operators` in gateway.yaml")
        return Person(id=operator.id, role=operator.role)
    if not (is_loopback or is_from_parent):
        raise AdminProblem(
            404, "beyond loopback `/admin/v1` needs `operators` in gateway.yaml, and there are none"
        )
    if not is_from_parent and host_of(request) not in LOOPBACK:
        # A web page whose name was pointed at this machine runs in a browser here, and is nobody.
        raise AdminProblem(
            403, f"without `operators` only {', '.join(LOOPBACK)} may stand in the header Host"
        )
    author = request.headers.get("Breaker-Author", "").strip()[:AUTHOR_MAX]
    return Person(id=author if author.isprintable() and author else LOCAL, role=Role.OPERATOR)


def needs_operator(request: web.Request) -> bool:
    """Whether looking is not enough."""
    return request.method not in ("GET", "HEAD") or bool(request.query.get("payload"))


def host_of(request: web.Request) -> str:
    """The host of the header, without its port and brackets."""
    host = request.headers.get("Host", "")
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
