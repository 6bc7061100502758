"""
Shifted store: a server whose clock a test moves while it runs, as an administrator or a bad NTP server does.

Needs a C compiler, for the few lines of `clock_shift.c`.
"""

import os
import struct
import subprocess
from pathlib import Path
from unittest.mock import patch

from breaker.store.server_binary import ServerBinary
from tests.store.replicas import Server


class ShiftedServer(Server):
    """A store whose clock is the machine's, and as far off as is said."""

    def __init__(self, binary: ServerBinary, folder: Path) -> None:
        self._shift = folder / "shift"
        self._library = folder / "clock_shift.so"
        self._shift.write_bytes(struct.pack("q", 0))
        source = Path(__file__).parent / "clock_shift.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", self._library, source], check=True)
        super().__init__(binary, folder)

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        environ = {"LD_PRELOAD": str(self._library), "CLOCK_SHIFT_FILE": str(self._shift)}
        with patch.dict(os.environ, environ):
            return super().start(*options)

    def shift(self, seconds: int) -> None:
        """From now on its clock is so far off; the file is mapped, so that it must not be replaced."""
        with self._shift.open("r+b") as file:
            file.write(struct.pack("q", seconds))
