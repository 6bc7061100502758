"""A store for each drill: it is killed and paused, and nobody else may be hurt."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from breaker.store.server_binary import find_server
from tests.store.replicas import Server


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(asyncio.run(find_server()), tmp_path_factory.mktemp("store"))
    yield server
    server.process.send_signal(signal.SIGCONT)  # a drill that failed may have left it standing still
    server.close()
