"""One store for all end-to-end tests of a module: a process of its own, on disk."""

import asyncio
from collections.abc import Iterator

import pytest

from breaker.store.server_binary import find_server
from tests.store.replicas import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(asyncio.run(find_server()), tmp_path_factory.mktemp("store"))
    yield server
    server.close()
