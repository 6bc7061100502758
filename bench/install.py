"""
Install: brings the peers to `bench/.peers`, and says loudly what the system lacks.

What is installed there is exactly what stands in `bench/peers` and `bench/job_peers`: the lock file of each Node peer, one
requirements file for the Python peers of parts 1 and 2, and one for each job queue (together they do not resolve: one wants an old
redis-py). A peer is installed again when its files change. What only the system's (nginx, wrk, a store, Node) is named with its apt package, and the subjects that need
it are left out of the run and named in the result.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.processes import Processes, SubjectError

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
JOB_PEERS = HERE / "job_peers"
INSTALLED = HERE / ".peers"
PYTHON = INSTALLED / "python" / "bin" / "python"
INSTALL_S = 300.0

# Where distributions put nginx' dynamic modules.
NGINX_MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")
APT_PACKAGES = {
    "nginx": "nginx",
    "wrk": "wrk",
    "store": "redis-server",
    "node": "nodejs npm",
    "nginx-lua": "libnginx-mod-http-lua",
}


def nginx_modules() -> Path | None:
    """The folder that has nginx' Lua module, or None."""
    folders = (Path(folder) for folder in NGINX_MODULES)
    return next((folder for folder in folders if (folder / "ngx_http_lua_module.so").exists()), None)


def missing_parts() -> set[str]:
    """Keys of `APT_PACKAGES` that this system lacks."""
    present = {
        "nginx": shutil.which("nginx"),
        "wrk": shutil.which("wrk"),
        "store": shutil.which("valkey-server") or shutil.which("redis-server"),
        "node": shutil.which("node") and shutil.which("npm"),
        "nginx-lua": nginx_modules(),
    }
    return {part for part, found in present.items() if not found}


def announce(missing: Iterable[str]) -> None:
    """One loud line for each part that is missing."""
    for part in sorted(missing):
        print(f"!!! bench: {part} is missing: apt install {APT_PACKAGES[part]}", file=sys.stderr)


def install_python_peers(processes: Processes) -> None:
    """
    One environment for all Python peers of parts 1 and 2, apart from the project's own.

    Raises:
        SubjectError: It could not be made; the message has pip's last words.
    """
    fill_environment(processes, "python", PEERS / "python" / "requirements.txt")


def fill_environment(processes: Processes, name: str, wanted: Path) -> None:
    """
    Makes the environment `bench/.peers/<name>` with what the requirements file says.

    Raises:
        SubjectError: It could not be made; the message has pip's last words.
    """
    folder = INSTALLED / name
    stamp = _stamp([wanted])
    if _is_current(folder, stamp):
        return
    print(f"bench: installing the peers of {wanted.parent.name}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    INSTALLED.mkdir(exist_ok=True)
    log = INSTALLED / f"{name}.log"
    python = str(folder / "bin" / "python")
    uv = shutil.which("uv")
    if uv is not None:
        make = [uv, "venv", "--python", sys.executable, str(folder)]
        fill = [uv, "pip", "install", "--python", python, "-r", str(wanted)]
    else:
        make = [sys.executable, "-m", "venv", str(folder)]
        fill = [python, "-m", "pip", "install", "--quiet", "-r", str(wanted)]
    for step in (make, fill):
        processes.run(f"install of {name}", step, log=log, timeout_s=INSTALL_S)
    (folder / ".stamp").write_text(stamp)


def install_node_peer(processes: Processes, name: str, source: Path) -> None:
    """
    Makes `bench/.peers/<name>`, which the peer runs in: its files and its `node_modules`.

    Args:
        source: A folder with a `package-lock.json`.

    Raises:
        SubjectError: npm failed.
    """
    folder = INSTALLED / name
    files = sorted(path for path in source.iterdir() if path.is_file())
    stamp = _stamp(files)
    if _is_current(folder, stamp):
        return
    print(f"bench: installing {name}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy2(file, folder / file.name)
    argv = ["npm", "ci", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"]
    processes.run(f"install of {name}", argv, log=INSTALLED / f"{name}.log", timeout_s=INSTALL_S)
    (folder / ".stamp").write_text(stamp)


def install_peers(processes: Processes, missing: set[str]) -> dict[str, str]:
    """
    Installs what can be installed of the peers of parts 1 and 2.

    Returns:
        What cannot be measured, and why: the peer's folder name, or `python` for all Python peers.
    """
    failed: dict[str, str] = {}
    try:
        install_python_peers(processes)
    except SubjectError as error:
        failed["python"] = str(error)
    for name in ("fastify", "rate_limiter_flexible"):
        if "node" in missing:
            failed[name] = f"node is missing: apt install {APT_PACKAGES['node']}"
            continue
        try:
            install_node_peer(processes, name, PEERS / name)
        except SubjectError as error:
            failed[name] = str(error)
    _announce_failed(failed)
    return failed


def install_job_peers(processes: Processes, missing: set[str], names: Iterable[str]) -> dict[str, str]:
    """
    Installs job queues, each into an environment of its own.

    Args:
        names: Folders of `bench/job_peers`.

    Returns:
        What cannot be measured, and why.
    """
    failed: dict[str, str] = {}
    for name in names:
        source = JOB_PEERS / name
        wanted = source / "requirements.txt"
        if not wanted.exists() and "node" in missing:
            failed[name] = f"node is missing: apt install {APT_PACKAGES['node']}"
            continue
        try:
            if wanted.exists():
                fill_environment(processes, f"jobs_{name}", wanted)
            else:
                install_node_peer(processes, f"jobs_{name}", source)
        except SubjectError as error:
            failed[name] = str(error)
    _announce_failed(failed)
    return failed


def _announce_failed(failed: dict[str, str]) -> None:
    for name, why in failed.items():
        print(f"!!! bench: {name} is not measured: {why}", file=sys.stderr)


def peer_versions() -> dict[str, str]:
    """The exact versions of what the peers stand on, for the result."""
    lines = (PEERS / "python" / "requirements.txt").read_text().splitlines()
    found = dict(line.split("==", 1) for line in lines if "==" in line)
    names = (
        "limits",
        "throttled-py",
        "pyrate-limiter",
        "fastapi",
        "slowapi",
        "httpx",
        "uvicorn",
        "aiohttp",
        "redis",
    )
    versions = {name: found[name] for name in names}
    for peer in ("fastify", "rate_limiter_flexible"):
        versions.update(_node_versions(PEERS / peer / "package.json"))
    return versions


def job_peer_versions() -> dict[str, str]:
    """The exact versions of the job queues and of their clients of Redis."""
    versions = _node_versions(JOB_PEERS / "bullmq" / "package.json")
    for wanted in sorted(JOB_PEERS.glob("*/requirements.txt")):
        found = dict(line.split("==", 1) for line in wanted.read_text().splitlines() if "==" in line)
        name = {"bullmq_python": "bullmq"}.get(wanted.parent.name, wanted.parent.name)
        clients = {
            client: found[client] for client in ("taskiq-redis", "redis", "coredis") if client in found
        }
        versions[name] = f"{found[name]} ({', '.join(f'{n} {v}' for n, v in clients.items())})"
    return versions


def _node_versions(package: Path) -> dict[str, str]:
    wanted: dict[str, str] = json.loads(package.read_text())["dependencies"]
    return {f"{name} (Node)": version for name, version in wanted.items()}


def _stamp(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _is_current(folder: Path, stamp: str) -> bool:
    path = folder / ".stamp"
    return path.exists() and path.read_text() == stamp
