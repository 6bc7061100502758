"""The command `breaker` as a person types it, and what it said."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from breaker.cli.app import app
from tests.web.admin_scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def breaker(scene: Scene | str, *words: str, **environ: str) -> Said:
    """
    Run it, not on a terminal, beside the listener that it asks.

    Args:
        scene: Whose listener, or an address.

    """
    url = scene if isinstance(scene, str) else scene.url
    known = {"BREAKER_ADMIN_URL": url, "USER": "ann", **environ}
    result = await asyncio.to_thread(CliRunner().invoke, app, list(words), env=known)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(status=result.exit_code, out=result.stdout, err=result.stderr)


async def start(
    *words: str, stdout: int, stderr: int, stdin: int = asyncio.subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    """
    Run it as a process of its own, which hears Ctrl-C.

    A shell that runs the tests in the background makes them deaf to SIGINT, and all that they start.
    """
    return await asyncio.create_subprocess_exec(
        "env", "--default-signal=INT", sys.executable, "-m", "breaker", *words, stdin=stdin, stdout=stdout, stderr=stderr,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "USER": "ann"},
    )  # fmt: skip
