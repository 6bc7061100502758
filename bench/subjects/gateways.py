"""
Gateways: the subjects of part 1, and how each is started.

Every one is a single process (nginx: a master and one worker), set up as its own documentation recommends,
without an access log, and holds one limit for the operation as a whole. Three things differ, and belong to
the reading of the table: nginx' limit lives in the memory of one host, not in the store; @fastify/rate-limit
and slowapi count per whole second (a fixed window: all of a second's calls may come at once, and up to two windows'
within one second); and none of them checks keys, contracts or concurrency, which Breaker does in this run.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.install import APT_PACKAGES, INSTALLED, PEERS, PYTHON, nginx_modules
from bench.load import DOWNSTREAM_PATH, OPERATION_PATH
from bench.processes import Process, Processes, SubjectError, free_port, wait_for_port
from bench.subjects.breaker_gateway import ALL_FEATURES, write_config

UNREACHED = 1_000_000  # calls per second that no subject gets to


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    Where a subject runs, and with which limit.

    Attributes:
        folder: Its own, empty.
        port, downstream, store: TCP ports on loopback.
        rate: Calls per second.
        burst: Calls that may come at once, where the subject knows such a thing.
    """

    folder: Path
    port: int
    downstream: int
    store: int
    rate: int = UNREACHED
    burst: int = UNREACHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a subject is started."""

    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """
    A subject of part 1.

    Attributes:
        name: In results; stays the same from run to run.
        title: In the table.
        command: Writes what the subject needs into its place, and says how to start it.
        needs: Keys of `install.APT_PACKAGES`, or names of peers that must be installed.
        has_limits: Whether the case "limits at half" means anything for it.
        path: Of the call.
    """

    name: str
    title: str
    command: Callable[[Place], Command]
    needs: tuple[str, ...] = ()
    has_limits: bool = True
    path: str = OPERATION_PATH


def _nginx(template: Path, place: Place, values: Mapping[str, object]) -> Command:
    text = template.read_text()
    for name, value in {"FOLDER": place.folder, "PORT": place.port, **values}.items():
        text = text.replace(f"@{name}@", str(value))
    path = place.folder / "nginx.conf"
    path.write_text(text)
    return Command(argv=["nginx", "-p", str(place.folder), "-c", str(path), "-e", "stderr"])


def downstream_command(place: Place) -> Command:
    """nginx that answers at once: the far end of every subject."""
    return _nginx(PEERS / "downstream" / "nginx.conf", place, {})


def nginx_limit_req_command(place: Place) -> Command:
    values = {"DOWNSTREAM": place.downstream, "RATE": place.rate, "BURST": place.burst}
    return _nginx(PEERS / "nginx_limit_req" / "nginx.conf", place, values)


def nginx_lua_redis_command(place: Place) -> Command:
    peer = PEERS / "nginx_lua_redis"
    values = {
        "DOWNSTREAM": place.downstream,
        "REDIS": place.store,
        "RATE": place.rate,
        "BURST": place.burst,
        "PEER": peer,
        "MODULES": nginx_modules(),
    }
    return _nginx(peer / "nginx.conf", place, values)


def _environment(place: Place) -> dict[str, str]:
    return {
        "PORT": str(place.port),
        "DOWNSTREAM": str(place.downstream),
        "REDIS": str(place.store),
        "RATE": str(place.rate),
    }


def fastify_command(place: Place) -> Command:
    # NODE_ENV as every Node manual says for production.
    env = {**_environment(place), "NODE_ENV": "production"}
    return Command(argv=["node", str(INSTALLED / "fastify" / "app.mjs")], env=env)


def fastapi_slowapi_command(place: Place) -> Command:
    return Command(argv=[str(PYTHON), str(PEERS / "fastapi_slowapi" / "app.py")], env=_environment(place))


def aiohttp_bare_command(place: Place) -> Command:
    return Command(argv=[str(PYTHON), str(PEERS / "aiohttp_bare" / "app.py")], env=_environment(place))


def breaker_command(place: Place) -> Command:
    write_config(place.folder, ALL_FEATURES, **breaker_ports(place))
    return serve(place.folder)


def breaker_ports(place: Place) -> dict[str, int]:
    """What the configuration needs to know of the place."""
    return {
        "port": place.port,
        "admin": free_port(),
        "downstream": place.downstream,
        "store": place.store,
        "rate": place.rate,
        "burst": place.burst,
    }


def serve(config: Path, *, program: str = "breaker") -> Command:
    """
    `breaker serve`, with nothing of this shell's own Breaker settings in its environment.

    Args:
        program: The module that is run.
    """
    argv = ["env", *(word for name in os.environ if name.startswith("BREAKER_") for word in ("-u", name))]
    return Command(argv=[*argv, sys.executable, "-m", program, "serve", "--config", str(config)])


BREAKER = Gateway(name="breaker", title="**Breaker**, all features on", command=breaker_command)
PEER_GATEWAYS = (
    Gateway(
        name="nginx-limit-req",
        title="nginx `limit_req` (one host's memory)",
        command=nginx_limit_req_command,
        needs=("nginx",),
    ),
    Gateway(
        name="nginx-lua-redis",
        title="nginx + Lua, one Redis script per call",
        command=nginx_lua_redis_command,
        needs=("nginx", "nginx-lua"),
    ),
    Gateway(
        name="fastify",
        title="fastify + rate-limit (Redis) + http-proxy",
        command=fastify_command,
        needs=("node", "fastify"),
    ),
    Gateway(
        name="fastapi-slowapi",
        title="FastAPI + slowapi (Redis) + httpx",
        command=fastapi_slowapi_command,
        needs=("python",),
    ),
    Gateway(
        name="aiohttp-bare",
        title="aiohttp proxy, no limits, no store",
        command=aiohttp_bare_command,
        needs=("python",),
        has_limits=False,
    ),
)
GATEWAYS = (BREAKER, *PEER_GATEWAYS)
DIRECT_PATH = DOWNSTREAM_PATH


def why_left_out(gateway: Gateway, missing: set[str], failed: Mapping[str, str]) -> str | None:
    """Why a subject cannot be measured on this system, or None."""
    for need in gateway.needs:
        if need in missing:
            return f"{need} is missing: apt install {APT_PACKAGES[need]}"
        if need in failed:
            return failed[need]
    return None


def start(processes: Processes, name: str, command: Command, place: Place) -> Process:
    """
    Starts a subject and waits until it listens.

    Raises:
        SubjectError: It ended, or does not listen in time; with its last words.
    """
    process = processes.start(name, command.argv, log=place.folder / f"{name}.log", env=command.env)
    try:
        wait_for_port(process, place.port)
    except SubjectError:
        processes.stop(process)
        raise
    return process
