"""
Embedded folder: where the embedded store keeps its data, and who owns it.

1. Only this user can enter it (0700): the socket has no password.
2. `gateway.lock` is held by the gateway that owns the folder; a second one is refused.
3. `server.lock` is inherited by the server: while it is held, a server still writes here.
4. Both are flock locks, which end with their processes: a stale one cannot be left behind. The process
   ids in them are for messages only.
"""

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from breaker.core.errors import StartError

_SOCKET_PATH_MAX = 103  # bytes: sockaddr_un has 104 on BSD and macOS, 108 on Linux, with a closing zero


def make_private(folder: Path) -> Path:
    """
    Make the folder, 0700; what others can enter and is not ours is left alone.

    Returns:
        The absolute path.

    Raises:
        StartError: It belongs to somebody else, or has other files in it.
        OSError: As the system says.

    """
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise StartError(
            f"the store's folder {folder} belongs to user {status.st_uid}; choose one of your own"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        # Somebody may have named a home folder by mistake: taking that from the others would be rude.
        if not (folder / "gateway.lock").exists() and any(folder.iterdir()):
            raise StartError(
                f"the store's folder {folder} has other files in it and is open to others; "
                f"choose an empty one, or: chmod 700 {folder}"
            )
        folder.chmod(0o700)
    return folder


def socket_path(folder: Path) -> Path:
    """Where the server listens: in the folder, or among the temporary files when that path is too long."""
    path = folder / "store.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
        return path
    # Always the same name for the same folder, so that a killed gateway leaves at most one behind.
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"breaker-{os.geteuid()}-{digest}"
    if short.is_symlink():
        raise StartError(f"{short} is a link that somebody made; remove it")
    make_private(short)
    path = short / "store.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        raise StartError(
            f"no path for the store's socket has at most {_SOCKET_PATH_MAX} bytes: neither in {folder} "
            f"nor in {tempfile.gettempdir()}; choose a shorter data folder, or set TMPDIR"
        )
    return path


def try_lock(file: Path) -> int | None:
    """A descriptor that holds the lock until it and its copies are closed; None when another process does."""
    # PEP 446: not inherited, unless passed on by name.
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock


def take_gateway_lock(folder: Path) -> int:
    """
    Make this process the owner of the folder.

    Raises:
        StartError: Another process is, and lives.

    """
    file = folder / "gateway.lock"
    lock = try_lock(file)
    if lock is None:
        raise StartError(
            f"another live gateway (pid {file.read_text() or 'unknown'}) uses the store's folder {folder}; "
            "stop it, or choose another data folder"
        )
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock
