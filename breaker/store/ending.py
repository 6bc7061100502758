"""
Ending tasks that talk to the store.

redis-py swallows a cancellation that comes while it connects, and its task then goes on as if
nobody had asked: so it is asked until it has ended.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 0.05


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel these tasks, as often as it takes."""
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=AGAIN_S)
