"""
Lines: how log lines reach their reader without ever blocking the loop.

1. A line is put into a bounded buffer; one thread writes, many lines at a time.
2. When the reader stalls and the buffer is full, lines are dropped and counted.
3. The count is told in a line of its own, as soon as the reader takes lines again.

Make it after the process has forked: threads do not survive a fork.
"""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

LINES_MAX = 10_000
LINE_MAX = 32_768  # bytes; a longer line is dropped and counted
BATCH_MAX = 500  # lines in one write
BATCH_S = 0.01  # lines of this time share a write, so that the thread does not wake for each
CLOSE_S = 2.0


class LineWriter:
    """Writes lines to a file descriptor, from a thread of its own."""

    def __init__(self, fd: int, tell_dropped: Callable[[int], bytes], *, lines_max: int = LINES_MAX) -> None:
        """
        Start the thread.

        Args:
            fd: Where to; blocking or not.
            tell_dropped: Makes the line that says how many were dropped.
            lines_max: Size of the buffer.

        """
        self._refused = 0  # counted where lines are put ...
        self._lost = 0  # ... and where they are written: two threads never change the same number
        self._fd, self._tell_dropped, self._lines_max = fd, tell_dropped, lines_max
        self._lines: deque[bytes] = deque()
        self._told = 0
        self._wake = threading.Event()
        self._is_closing = False
        # A daemon, so that a reader that stalls for ever cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="log-lines", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that nobody will read: the buffer was full, or the reader has gone."""
        return self._refused + self._lost

    def write(self, line: bytes) -> None:
        """Take a complete line, newline included; never waits."""
        if len(self._lines) >= self._lines_max or len(line) > LINE_MAX:
            self._refused += 1
            return
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self, seconds: float = CLOSE_S) -> None:
        """Write what is left, as far as the reader takes it in this time."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()  # before the lines are taken: one that comes now wakes us again
            is_last = self._is_closing
            while self._lines:
                batch = [self._lines.popleft() for _ in range(min(len(self._lines), BATCH_MAX))]
                if not self._put(b"".join(batch)):
                    self._lost += len(batch)
            untold = self.dropped - self._told
            if untold and self._put(self._tell_dropped(untold)):
                self._told += untold
            if is_last:
                return
            time.sleep(BATCH_S)

    def _put(self, data: bytes) -> bool:
        """Whether the reader took all of it."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                # Whoever shares the terminal or pipe made it non-blocking; here is time to wait.
                ready = select.poll()
                ready.register(self._fd, select.POLLOUT)
                ready.poll()
            except OSError:
                return False
        return True
