"""
Pictures: draws the previews of `docs/images/` anew, from the scene: `python -m tests.grafana.pictures` (`make previews`).
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

from breaker.store.server_binary import find_server
from grafana.preview.__main__ import draw_all
from tests.grafana.scene import demonstration
from tests.store.replicas import Server

SECONDS = 150.0
HISTORY_ENDS_S = 600.0


async def draw(out: Path, seconds: float) -> None:
    binary = await find_server()
    with tempfile.TemporaryDirectory(prefix="brk-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "scene").mkdir()
        with contextlib.closing(await asyncio.to_thread(Server, binary, Path(folder))) as store:
            began = time.time()
            async with demonstration(Path(folder) / "scene", store.url) as scene:
                await asyncio.sleep(seconds)
                # The weeks of the planning end before the load began, which would outdo them.
                await asyncio.to_thread(
                    draw_all, scene.prometheus, out, operation="support.create-ticket",
                    span=f"{int(seconds)}s", planned_at=began - HISTORY_ENDS_S,
                )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.grafana.pictures")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    asyncio.run(draw(given.out, given.seconds))
