"""
Store: a Redis or Valkey of the benchmark's own.

Never the system's instance: another port, a folder that is thrown away, the append-only file in the mode
that the result names, no snapshots (a fork in the middle of a round would be measured as a slow subject).
"""

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from bench.processes import Process, Processes, SubjectError, free_port, wait_for_port

PROGRAMS = ("valkey-server", "redis-server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """
    A running store.

    Attributes:
        fsync: `everysec` or `always`: when the append-only file reaches the disk.
    """

    process: Process
    program: str
    port: int
    fsync: str

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        """Empties it, so that a subject finds nothing of the one before."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(b"FLUSHALL\r\nSCRIPT FLUSH\r\n")
            reply = b""
            while reply.count(b"\r\n") < 2:
                chunk = connection.recv(256)
                if not chunk:
                    break
                reply += chunk
        if reply != b"+OK\r\n+OK\r\n":
            raise SubjectError(f"the store did not flush: {reply!r}")


def start_store(processes: Processes, folder: Path, *, fsync: str) -> Store:
    """
    Raises:
        SubjectError: Neither program is on the PATH, or it does not start.
    """
    program = next((name for name in PROGRAMS if shutil.which(name)), None)
    if program is None:
        raise SubjectError("no store: apt install redis-server")
    folder.mkdir(parents=True)
    port = free_port()
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder),
        "save": "",
        "appendonly": "yes",
        "appendfsync": fsync,
        "maxmemory-policy": "noeviction",
    }
    argv = [program, *(word for name, value in options.items() for word in (f"--{name}", value))]
    process = processes.start(program, argv, log=folder / "store.log")
    wait_for_port(process, port)
    return Store(process=process, program=program, port=port, fsync=fsync)
