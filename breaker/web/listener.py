"""
The callers' listener: sockets, and a stop that fails no call.
"""

import asyncio
import socket
from collections.abc import Callable

from breaker.core.config import Gateway
from breaker.core.errors import StartError
from breaker.web.connection import CallerServer, Handler

BACKLOG = 1024
IDLE_GRACE_S = 0.5  # a kept-alive connection that stays idle so long after the stop is closed
POLL_S = 0.05


def host_and_port(address: str) -> tuple[str, int]:
    """`127.0.0.1:8080`, `[::1]:8080`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def bind(address: str, setting: str, *, shared: bool = False) -> socket.socket:
    """
    A listening socket.

    Args:
        setting: The name of the setting, for the message.
        shared: Several processes listen on it (SO_REUSEPORT).

    Raises:
        StartError: The address is taken, or not ours.
    """
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise StartError(
            f"{setting} {address}: {exc.strerror}; stop what uses it, or set another {setting}"
        ) from exc
    sock.setblocking(False)
    return sock


class Listener:
    """Serves callers on one socket."""

    def __init__(
        self,
        handler: Handler,
        gateway: Gateway,
        *,
        on_bug: Callable[[BaseException], None],
        on_broken: Callable[[int], None],
    ) -> None:
        self._server = CallerServer(
            handler,
            head_timeout_s=gateway.head_timeout_ms / 1_000,
            connections_max=gateway.connections_max,
            on_bug=on_bug,
            on_broken=on_broken,
        )
        self._sockets: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        self._sockets = await asyncio.get_running_loop().create_server(
            self._server, sock=sock, backlog=BACKLOG
        )

    @property
    def connections(self) -> int:
        return len(self._server.connections)

    async def stop(self, seconds: float) -> int:
        """
        Take no new connections, let calls finish, and close.

        Answers end their connections by now (`Handler.is_draining`), so a connection that is not
        idle closes with its answer; one that stays idle is closed after half a second.

        Returns:
            How many calls had to be broken off.
        """
        if self._sockets:
            self._sockets.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        idle_since: dict[int, float] = {}
        while self._server.connections and loop.time() < end:
            for connection in self._server.callers:
                if not connection.is_idle:
                    idle_since.pop(id(connection), None)
                elif loop.time() - idle_since.setdefault(id(connection), loop.time()) >= IDLE_GRACE_S:
                    connection.force_close()
            await asyncio.sleep(POLL_S)
        broken = sum(not connection.is_idle for connection in self._server.callers)
        await self._server.shutdown(0.1)
        return broken
