"""
Stores of several servers, on loopback: a primary with its replica and sentinels, and a Cluster.
"""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from breaker.store.address import Node
from breaker.store.server_binary import ServerBinary
from breaker.store.slots import SLOTS, slot_of
from tests.gateway.gateway_process import free_ports
from tests.store.job_servers import Pair, StoreServer, wait_until

SERVICE = "orders"


class Sentinel:
    """One sentinel that looks after a primary, and is quick to tell that it is down."""

    def __init__(self, binary: ServerBinary, folder: Path, primary: int, quorum: int, *lines: str) -> None:
        folder.mkdir()
        self.port = free_ports(1)[0]
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 1000\n"
            + "".join(f"{line}\n" for line in lines)
        )
        self.process = subprocess.Popen(
            [str(binary.path), str(config), "--sentinel"], stdout=subprocess.DEVNULL
        )
        password = next((line.split()[1] for line in lines if line.startswith("requirepass ")), None)
        self.client = Redis("127.0.0.1", self.port, password=password, protocol=2)
        wait_until(lambda: answers(self.client))
        # Its own rhythm is made for networks: seconds until it knows the others, and ten until it looks again.
        self.client.execute_command(
            "SENTINEL", "DEBUG", "INFO-PERIOD", 100, "PING-PERIOD", 100, "PUBLISH-PERIOD", 100, "ASK-PERIOD", 100
        )  # type: ignore[no-untyped-call]  # fmt: skip

    def told(self) -> dict[bytes, bytes]:
        """What it says of the primary."""
        flat: list[bytes] = self.client.execute_command("SENTINEL", "MASTER", SERVICE)  # type: ignore[no-untyped-call]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


class SentinelStore:
    """A primary, its replica, and so many sentinels of which more than half must agree."""

    def __init__(self, binary: ServerBinary, folder: Path, sentinels: int, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self.pair = Pair(binary, folder, *options)
        self.sentinels = [
            Sentinel(binary, folder / f"sentinel{at}", self.pair.primary.port, sentinels // 2 + 1)
            for at in range(sentinels)
        ]
        self.url = sentinel_url(*(sentinel.port for sentinel in self.sentinels))
        others = str(sentinels - 1).encode()
        for sentinel in self.sentinels:
            wait_until(lambda told=sentinel.told: told()[b"num-slaves"] == b"1")  # type: ignore[misc]
            wait_until(lambda told=sentinel.told: told()[b"num-other-sentinels"] == others)  # type: ignore[misc]

    def close(self) -> None:
        for sentinel in self.sentinels:
            sentinel.close()
        if self.pair.primary.process.poll() is None:
            self.pair.primary.resume()
        self.pair.close()


def sentinel_url(*ports: int) -> str:
    return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}/{SERVICE}"


class ClusterStore:
    """Three nodes that share the slots evenly."""

    def __init__(self, binary: ServerBinary, folder: Path, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self._binary, self._folder, self._options = binary, folder, options
        self.nodes = [self._start(f"node{at}") for at in range(3)]
        share = SLOTS // 3
        ranges = [(0, share - 1), (share, 2 * share - 1), (2 * share, SLOTS - 1)]
        for at, (node, slots) in enumerate(zip(self.nodes, ranges, strict=True)):
            command(node, "CLUSTER", "ADDSLOTSRANGE", *slots)
            command(node, "CLUSTER", "SET-CONFIG-EPOCH", at + 1)
        for node in self.nodes:
            for other in self.nodes:
                if node is not other:
                    self.meet(node, other)
        wait_until(self.is_well)

    @property
    def url(self) -> str:
        """Two of the three are named; the third is found."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port},127.0.0.1:{self.nodes[1].port}"

    def _start(self, name: str) -> StoreServer:
        (bus,) = free_ports(1)
        node = StoreServer(
            self._binary, self._folder / name, "--cluster-enabled", "yes", "--cluster-port", str(bus),
            "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no", *self._options,
        )  # fmt: skip
        self.buses = {**getattr(self, "buses", {}), node.port: bus}
        return node

    def meet(self, node: StoreServer, other: StoreServer) -> None:
        command(node, "CLUSTER", "MEET", "127.0.0.1", other.port, self.buses[other.port])

    def is_well(self) -> bool:
        """All nodes know each other, and that all slots are served."""
        return all(
            (found := info(node))["cluster_state"] == "ok"
            and found["cluster_slots_ok"] == str(SLOTS)
            and found["cluster_known_nodes"] == str(len(self.nodes))
            for node in self.nodes
        )

    def owner(self, operation: str) -> StoreServer:
        """The node that the Cluster itself says has an operation's keys."""
        slot = slot_of(f"{{{operation}}}".encode())
        for first, last, primary, *_ in command(self.nodes[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        raise AssertionError(f"nobody serves slot {slot}")

    def operations(self) -> list[str]:
        """A name of an operation for each node, in their order."""
        found: dict[int, str] = {}
        for number in range(1_000):
            name = f"billing.op{number}"
            found.setdefault(self.owner(name).port, name)
            if len(found) == len(self.nodes):
                break
        return [found[node.port] for node in self.nodes]

    def add_replica(self, of: StoreServer) -> StoreServer:
        """A fourth node, which takes over when that one dies."""
        made = self._start("replica")
        self.nodes.append(made)
        for node in self.nodes[:-1]:
            self.meet(made, node)
        wait_until(self.is_well)
        command(made, "CLUSTER", "REPLICATE", node_id(of))
        wait_until(lambda: of.client.wait(1, 100) == 1)
        return made

    def close(self) -> None:
        for node in self.nodes:
            node.close()


def command(node: StoreServer, *words: Any) -> Any:
    return node.client.execute_command(*words)  # type: ignore[no-untyped-call]


def info(node: StoreServer) -> dict[str, str]:
    reply = command(node, "CLUSTER", "INFO")
    if isinstance(reply, dict):
        return {str(name): str(value) for name, value in reply.items()}
    return dict(line.split(":", 1) for line in reply.decode().split("\r\n") if line)


def node_id(node: StoreServer) -> str:
    reply = command(node, "CLUSTER", "MYID")
    return str(reply.decode() if isinstance(reply, bytes) else reply)


def place_of(node: StoreServer) -> Node:
    return Node("127.0.0.1", node.port)


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False
