"""
Parent death: how a process that belongs to another one ends with it, even after SIGKILL.

Run as a script, this file is the launcher that starts a program in that condition:

    python parent_death.py PARENT_PID LIFELINE_FD program argument ...

1. Linux asks the kernel (`PR_SET_PDEATHSIG`), which survives exec. The parent may have died before we
   asked, so we look whether it is still our parent, after asking.
2. The kernel watches the *thread* that forked, not the process. With asyncio that is the thread of the
   event loop: what a loop has started ends with it.
3. Elsewhere a lifeline does it: a pipe whose other end only the parent holds, and a watchdog that kills
   the program when the pipe ends. LIFELINE_FD is -1 when there is none.

Standard library only and no import of ours: the launcher runs with `-I -S`, so that it starts in 50 ms.
"""

import ctypes
import os
import platform
import select
import signal
import sys
import threading
from collections.abc import Sequence

NO_LIFELINE = -1
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_LOOK_EVERY_S = 1.0
_DESCRIPTORS_MAX = 1024  # far above what a launcher can have inherited
_PARENT_IS_GONE = 3  # exit status


def is_lifeline_needed() -> bool:
    """The kernel cannot be asked."""
    return platform.system() != "Linux"


def launch_command(program: Sequence[str], *, lifeline: int = NO_LIFELINE) -> list[str]:
    """
    The command that runs `program` as a child which dies with this process.

    Args:
        program: Path and arguments. It keeps the process id of the launcher.
        lifeline: Reading end of a pipe that the child inherits, when `is_lifeline_needed()`.

    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(lifeline), *program]


def die_with_parent() -> None:
    """
    Let this process be killed when its parent ends.

    On Linux at once; elsewhere within a second.
    """
    parent = os.getppid()
    if not is_lifeline_needed():
        _ask_the_kernel()
        if os.getppid() != parent:
            raise SystemExit(_PARENT_IS_GONE)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


def _ask_the_kernel() -> None:
    # SIGKILL, because a program that hangs or is busy would not get round to SIGTERM.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")


def _watch_parent(parent: int) -> None:
    never = threading.Event()
    while os.getppid() == parent:
        never.wait(_LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _watch_lifeline(lifeline: int, program: int) -> None:
    """Kill our parent, the program, when the lifeline ends; end when the program does."""
    while os.getppid() == program:
        ended, _, _ = select.select([lifeline], [], [], _LOOK_EVERY_S)
        if ended:
            os.kill(program, signal.SIGKILL)
            return


def _launch(parent: int, lifeline: int, program: list[str]) -> None:
    if lifeline == NO_LIFELINE:
        _ask_the_kernel()
        if os.getppid() != parent:
            raise SystemExit(_PARENT_IS_GONE)
    else:
        # The watchdog is the child and the program the parent: so the program keeps the process id
        # that our caller knows, and the watchdog sees its end by getppid(), which is never recycled.
        launcher = os.getpid()
        if os.fork() == 0:
            # The other descriptors are the program's: a lock among them must end with the program.
            os.closerange(3, lifeline)
            os.closerange(lifeline + 1, _DESCRIPTORS_MAX)
            _watch_lifeline(lifeline, launcher)
            os._exit(0)
        os.close(lifeline)
    os.execv(program[0], program)  # noqa: S606  (no shell is what we want)


if __name__ == "__main__":
    _launch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
