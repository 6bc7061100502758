"""
Processes: what `breaker up` starts, and that none of it is left behind.

1. Each program has a log file; when it does not come up, its own last words are the error message.
2. They end in the reverse order of their start: the gateway drains before its downstreams go.
3. They end with us, also after SIGKILL (`store/parent_death.py`).
4. Ctrl-C reaches us alone, or the store would be gone before the gateway has drained.
"""

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import aiohttp

from breaker.core.errors import StartError
from breaker.store import parent_death

READY_S = 60.0  # a store that loads much data takes its time
STOP_S = 30.0  # longer than a gateway may drain
LOG_MAX = 64 * 1_048_576  # bytes; then it begins anew
_LOOK_EVERY_S = 0.05
_ASK_S = 1.0
_TAIL_MAX = 4_096  # bytes of a log that are looked at for a message
_TAIL_LINES = 3
_READY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """
    A program that was started, and where it says what is wrong.

    Attributes:
        is_needed: When it ends by itself, nothing goes on.

    """

    name: str
    process: asyncio.subprocess.Process
    log: Path
    lifeline: int | None
    is_needed: bool = True

    def last_words(self) -> str:
        """Its own error line when it wrote one, else the end of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_MAX))
            lines = [
                line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()
            ]
        own = [line.removeprefix("breaker: ") for line in lines if line.startswith("breaker: ")]
        # What it said before it failed starts alike; the error is the last line of all.
        if own and lines[-1].startswith("breaker: "):
            return own[-1]
        return " | ".join(lines[-_TAIL_LINES:]) or f"it said nothing in {self.log}"


class Processes:
    """
    All programs of one `breaker up`; leaving the `async with` block ends them.

    Attributes:
        folder: Where they may write.
        environ: Theirs.

    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder, self.environ = folder, dict(environ)
        self._children: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in reversed(self._children):
            await _end(child)

    async def start(self, name: str, command: Sequence[str], *, is_needed: bool = True) -> Child:
        """Start a program, named by its path; it writes to `<name>.log`."""
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        reading, writing = os.pipe() if parent_death.is_lifeline_needed() else (None, None)
        lifeline = parent_death.NO_LIFELINE if reading is None else reading
        try:
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *parent_death.launch_command(command, lifeline=lifeline),
                    env=self.environ,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=() if reading is None else (reading,),
                    start_new_session=True,
                )
        finally:
            if reading is not None:
                os.close(reading)
        child = Child(name=name, process=process, log=log, lifeline=writing, is_needed=is_needed)
        self._children.append(child)
        return child

    async def wait_ready(
        self, child: Child, url: str, session: aiohttp.ClientSession, *, within_s: float = READY_S
    ) -> None:
        """
        Wait until the program answers 200.

        Raises:
            StartError: It ended, or does not answer in time.

        """
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while not await _is_ready(url, session):
            if child.process.returncode is not None:
                raise StartError(f"{child.name} did not start: {child.last_words()}")
            if loop.time() > end:
                raise StartError(f"{child.name} does not answer after {within_s:g} s: {child.last_words()}")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def wait_any_end(self) -> str:
        """Until a program that is needed ends by itself; what there is to say about it."""
        needed = [child for child in self._children if child.is_needed]
        waiting = {asyncio.ensure_future(child.process.wait()): child for child in needed}
        try:
            ended, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            child = waiting[ended.pop()]
            return f"{child.name} ended with status {child.process.returncode}: {child.last_words()}"
        finally:
            for task in waiting:
                task.cancel()

    def bound_logs(self) -> None:
        """Begin a log anew that has grown too long; it is opened for appending, so that this is safe."""
        for child in self._children:
            if child.log.stat().st_size > LOG_MAX:
                os.truncate(child.log, 0)


async def _is_ready(url: str, session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=_ASK_S)) as answer:
            return answer.status == _READY
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False  # not yet; the caller knows when to stop asking


async def _end(child: Child) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.process.terminate()
    try:
        await asyncio.wait_for(child.process.wait(), STOP_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()
    if child.lifeline is not None:
        os.close(child.lifeline)
