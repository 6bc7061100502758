"""The fault proxy: each thing that is wrong with the network, in its direction, switched while it runs."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.proxy import HEALTHY, Poison, Proxy, Way, address_of, proxy

SOON_S = 5.0


class Talk:
    """A connection through a proxy to a server that says everything back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, words: bytes) -> float:
        """Say it and hear it again; how many seconds that took."""
        began = time.monotonic()
        self.writer.write(words)
        heard = await asyncio.wait_for(self.reader.readexactly(len(words)), SOON_S)
        assert heard == words
        return time.monotonic() - began


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()
    writer.close()


@pytest.fixture
async def between() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with proxy(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as made:
        yield made
    server.close()


@asynccontextmanager
async def talk(between: Proxy) -> AsyncIterator[Talk]:
    host, _, port = between.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    yield Talk(reader, writer)
    writer.close()


async def test_a_healthy_proxy_passes_everything_on_as_it_is(between: Proxy) -> None:
    """What a drill measures must be the fault, not the tool."""
    async with talk(between) as one, talk(between) as two:
        await one.say(bytes(range(256)) * 4_096)
        assert await two.say(b"hello") < 0.5
        assert (between.accepted, between.connections) == (2, 2)


@pytest.mark.parametrize("way", list(Way))
async def test_latency_delays_one_direction_and_not_the_throughput(between: Proxy, way: Way) -> None:
    """Ten things that are said one after the other come 100 ms late, not a second."""
    async with talk(between) as one:
        between.poison(Poison(latency_ms=100), way)
        began = time.monotonic()
        for number in range(10):
            one.writer.write(b"%d" % number)
            await asyncio.sleep(0.005)
        assert await asyncio.wait_for(one.reader.readexactly(10), SOON_S) == b"0123456789"
        assert 0.145 <= time.monotonic() - began < 0.6
        between.heal()
        assert await one.say(b"fast again") < 0.09


async def test_jitter_comes_from_the_seed_and_keeps_the_order(between: Proxy) -> None:
    """A stream stays a stream, however unevenly it comes."""
    async with talk(between) as one:
        between.poison(Poison(latency_ms=20, jitter_ms=20))
        words = [b"%06d" % number for number in range(100)]
        for word in words:
            one.writer.write(word)
            await asyncio.sleep(0)
        assert await asyncio.wait_for(one.reader.readexactly(600), SOON_S) == b"".join(words)


async def test_a_black_hole_holds_what_is_sent_until_it_is_taken_out(between: Proxy) -> None:
    """A partition: nobody hears, and what was sent into it arrives afterwards, when nobody wants it any more."""
    async with talk(between) as one:
        await one.say(b"before")
        between.poison(Poison(is_black_hole=True), Way.UPSTREAM)
        one.writer.write(b"into the hole")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.reader.read(1), 0.2)
        between.poison(HEALTHY, Way.UPSTREAM)
        assert await asyncio.wait_for(one.reader.readexactly(13), SOON_S) == b"into the hole"


async def test_a_black_hole_in_one_direction_lets_the_question_through() -> None:
    """The server did it, and nobody knows: the answer alone is lost."""
    heard = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        heard.set()
        writer.write(b"done")

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with proxy(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as way, talk(way) as one:
        way.poison(Poison(is_black_hole=True), Way.DOWNSTREAM)
        one.writer.write(b"question")
        await asyncio.wait_for(heard.wait(), SOON_S)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.reader.read(1), 0.1)
        way.heal()
        assert await asyncio.wait_for(one.reader.readexactly(4), SOON_S) == b"done"
    server.close()


async def test_bandwidth_lets_so_many_bytes_through_a_second(between: Proxy) -> None:
    """A large answer over a thin line: deadlines have to end it."""
    async with talk(between) as one:
        between.poison(Poison(bandwidth=100_000), Way.DOWNSTREAM)
        assert 0.35 <= await one.say(b"x" * 40_000) < 2


async def test_a_slicer_cuts_everything_small(between: Proxy) -> None:
    """Whoever reads must not believe that one read is one message."""
    async with talk(between) as one:
        between.poison(Poison(slice_bytes=3, slice_ms=10), Way.DOWNSTREAM)
        one.writer.write(b"123456789")
        first = await asyncio.wait_for(one.reader.read(100), SOON_S)
        assert 3 <= len(first) < 9
        assert first + await asyncio.wait_for(one.reader.readexactly(9 - len(first)), SOON_S) == b"123456789"


async def test_a_connection_is_reset_in_the_middle_of_an_answer(between: Proxy) -> None:
    """So many bytes come, and then a reset: not an end that looks like one."""
    async with talk(between) as one:
        between.poison(Poison(resets_after=10), Way.DOWNSTREAM)
        one.writer.write(b"x" * 100)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(one.reader.readexactly(11), SOON_S)
        between.heal()
    async with talk(between) as other:
        await other.say(b"whoever connects afterwards is served")


async def test_one_client_is_cut_off_and_the_others_are_not(between: Proxy) -> None:
    """The one bad node: its connections are reset, and so are those that it makes anew."""
    async with talk(between) as bad, talk(between) as good:
        await bad.say(b"before")
        ports = {bad.writer.get_extra_info("sockname")[1]}
        between.cut_off(lambda port: port in ports)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(bad.reader.readexactly(1), SOON_S)
        await good.say(b"still here")
        between.cut_off(lambda port: port != good.writer.get_extra_info("sockname")[1])
        async with talk(between) as again:
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(again.reader.readexactly(1), SOON_S)
        await good.say(b"still here")
        between.heal()
        async with talk(between) as again:
            await again.say(b"back")


async def test_down_resets_all_and_refuses_new_ones_until_it_is_up_again(between: Proxy) -> None:
    """On the same address: whoever comes back finds it where it was."""
    address = between.address
    async with talk(between) as one:
        await one.say(b"before")
        await between.down()
        assert between.connections == 0
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(one.reader.read(1), SOON_S)
    with pytest.raises(ConnectionRefusedError):
        async with talk(between):
            pass
    await between.up()
    assert between.address == address
    async with talk(between) as other:
        await other.say(b"after")


async def test_a_proxy_whose_server_is_gone_ends_what_connects(tmp_path: Path) -> None:
    """As a port-forward does; it neither hangs nor dies itself."""
    async with proxy(address_of(f"unix://{tmp_path}/nobody")) as made, talk(made) as one:
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(one.reader.readexactly(1), SOON_S)
        assert made.connections == 0


async def test_a_proxy_stands_before_a_unix_socket_too(tmp_path: Path) -> None:
    """The stores of these drills listen on one."""
    server = await asyncio.start_unix_server(echo, tmp_path / "s")
    async with proxy(address_of(f"unix://{tmp_path}/s")) as made, talk(made) as one:
        await one.say(b"hello")
    server.close()


@pytest.mark.parametrize(
    ("url", "address"),
    [("http://127.0.0.1:80/x", "127.0.0.1:80"), ("redis://h:1", "h:1"), ("unix:///run/s", "/run/s")],
)
def test_an_address_is_read_from_a_url(url: str, address: str) -> None:
    """Judges, gateways and stores tell theirs in different ways."""
    assert address_of(url) == address
