"""
What tests share: one real server for all of them, each test with a key prefix of its own.

`BREAKER_TEST_STORE` names another server (`redis://...`); by default the one that
`breaker up` would start is started here, without fsync, because tests of durability start their own.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import hypothesis
import pytest
from redis import Redis

from breaker.store.server_binary import find_server

pytest.register_assert_rewrite("tests.model.twin", "tests.model.queue_twin")

hypothesis.settings.register_profile("fast", max_examples=100, deadline=None, derandomize=True)
hypothesis.settings.register_profile("thorough", max_examples=2_000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("BREAKER_HYPOTHESIS", "fast"))

_numbers = count()


@pytest.fixture(scope="session")
def store_url() -> Iterator[str]:
    """A real Valkey or Redis."""
    if given := os.environ.get("BREAKER_TEST_STORE"):
        yield given
        return
    server = asyncio.run(find_server())
    folder = Path(tempfile.mkdtemp(prefix="brk-"))
    socket = folder / "s"
    process = subprocess.Popen(
        [str(server.path), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder),
         "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            assert time.monotonic() < deadline, "the test store did not start"
            time.sleep(0.01)
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


@pytest.fixture
def redis(store_url: str) -> Iterator[Redis]:
    """A plain client, to look at what is in the store."""
    client = Redis.from_url(store_url)
    yield client
    client.close()


@pytest.fixture
def cluster() -> str:
    """A key prefix that no other test has."""
    return f"t{os.getpid()}n{next(_numbers)}"
