"""
Processes: everything that the benchmark starts, and that all of it ends.

A subject is started in a session of its own, so that Ctrl-C reaches the harness alone and the harness
then stops the whole group (an nginx master with its workers, npm with its node). Each child also asks
the kernel for SIGTERM when the harness dies, however it dies.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

PR_SET_PDEATHSIG = 1
STOP_S = 5.0


class SubjectError(Exception):
    """A subject did not start, or answered something that makes its figures worthless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """
    One started program.

    Attributes:
        log: Where its output went; the end of it is shown when something is wrong.
    """

    name: str
    handle: subprocess.Popen[bytes]
    log: Path

    def log_tail(self, lines: int = 8) -> str:
        """The last words of the program, for messages."""
        text = self.log.read_text(errors="replace").strip().splitlines()
        return "\n".join(f"    {line}" for line in text[-lines:])

    def last_words(self) -> str:
        """Why it ended: the last line of its log first, because tables show only the first line."""
        tail = self.log_tail()
        last = tail.splitlines()[-1].strip() if tail else "it said nothing"
        return f"{self.name} ended with {self.handle.returncode}: {last}\n{tail}"

    def rss_kib(self) -> int:
        """Resident memory of the program and all that it started, KiB."""
        return sum(_rss_kib(pid) for pid in _group(self.handle.pid))

    def cpu_s(self) -> float:
        """Processor time that the program itself has used, all its threads, seconds."""
        # Fields 14 and 15, counted from behind the name as below.
        fields = Path(f"/proc/{self.handle.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Processes:
    """All that runs; leaving the `with` block ends it, also on errors and on Ctrl-C."""

    running: list[Process] = field(default_factory=list)

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, _as_interrupt)
        # A shell starts what stands before "&" with SIGINT ignored; then it could not be stopped this way.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave half of them running.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for process in reversed(self.running.copy()):
            self.stop(process)
        signal.signal(signal.SIGINT, before)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        output: int | None = None,
    ) -> Process:
        """
        Args:
            log: Takes stderr, and stdout unless `output` says otherwise.
            output: `subprocess.PIPE` for a program whose stdout is its result.
        """
        with log.open("ab") as file:
            handle = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file if output is None else output,
                stderr=file,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  the harness has one thread
            )
        process = Process(name=name, handle=handle, log=log)
        self.running.append(process)
        return process

    def run(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """
        Runs a program to its end and returns its stdout.

        Raises:
            SubjectError: It failed, or took longer than `timeout_s`.
        """
        return self.finish(
            self.start(name, argv, log=log, env=env, output=subprocess.PIPE), timeout_s=timeout_s
        )

    def finish(self, process: Process, *, timeout_s: float) -> str:
        """Waits for a program that was started with `output=PIPE`; see `run`."""
        try:
            output, _ = process.handle.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise SubjectError(f"{process.name} took longer than {timeout_s:.0f} s") from error
        finally:
            self.stop(process)
        if process.handle.returncode:
            raise SubjectError(process.last_words())
        return output.decode()

    def stop(self, process: Process) -> None:
        """Asks the whole group to end, and insists after 5 s."""
        if process in self.running:
            self.running.remove(process)
        _signal_group(process.handle.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.handle.wait(STOP_S)
        # Also when the leader has ended by itself: a worker may have outlived it.
        _signal_group(process.handle.pid, signal.SIGKILL)
        process.handle.wait()
        if process.handle.stdout is not None:
            process.handle.stdout.close()


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(process: Process, port: int, *, timeout_s: float = 20.0) -> None:
    """
    Raises:
        SubjectError: The program ended, or does not listen in time.
    """
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if process.handle.poll() is not None:
            raise SubjectError(process.last_words())
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SubjectError(f"{process.name} does not listen after {timeout_s:.0f} s:\n{process.log_tail()}")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        # SIGTERM rather than SIGKILL: an nginx master takes its workers along only if it may say so.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _signal_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return


def _group(leader: int) -> list[int]:
    """The members of a process group, from /proc."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # Field 5 is the group; the name in field 2 may hold spaces, so count from its ")".
            group = int((entry / "stat").read_text().rpartition(")")[2].split()[2])
        except OSError:
            continue  # it has ended since the listing
        if group == leader:
            members.append(int(entry.name))
    return members


def _rss_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)
