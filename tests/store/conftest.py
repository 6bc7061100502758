"""What the tests of the store share."""

import pytest
from redis import Redis

from tests.store.world import World


@pytest.fixture
def world(redis: Redis, cluster: str) -> World:
    return World(redis, cluster)
