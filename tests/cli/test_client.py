"""What the commands say when the other end is not there, or not what it should be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from breaker.cli.app import app
from breaker.policy.environ import COMMANDS
from tests.cli.command import breaker
from tests.gateway.gateway_process import free_ports

CONFIG = Path(__file__).parents[2] / "config"
SCOPE = ("jobs", "cancel", "--operation", "billing.charge", "--all", "--reason", "x")


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """A peer that answers each request so, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def reply(status: str, body: bytes, *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_a_gateway_that_cannot_be_reached_is_named_with_the_options() -> None:
    """At 3 a.m. the first question is: which one did it try?"""
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    for words in (("jobs", "list"), ("ops", "list"), SCOPE):
        said = await breaker(url, *words)
        assert (said.status, said.out) == (1, "")
        assert all(part in said.err for part in (url, "refused", "--admin URL", "BREAKER_ADMIN_URL"))


async def test_the_option_goes_before_the_variable() -> None:
    """As everywhere."""
    async with answering(reply("200 OK", b'{"operations": []}')) as url:
        said = await breaker("http://127.0.0.1:1", "ops", "list", "--json", "--admin", url)
        assert (said.status, said.json) == (0, {"operations": []})


@pytest.mark.parametrize("url", ["127.0.0.1:8081", "ftp://x", "http://", "http://x:port", "http://[x"])
async def test_an_address_that_is_none_is_refused_with_an_example(url: str) -> None:
    """It is the command line that is wrong, not the gateway."""
    said = await breaker(url, "ops", "list")
    assert (said.status, url in said.err, "http://127.0.0.1:8081" in said.err) == (2, True, True)


@pytest.mark.parametrize(
    "answer",
    [
        reply("502 Bad Gateway", b"<html>"), reply("404 Not Found", b'{"error": "x"}'), reply("403 No", b"[]"),
        reply("200 OK", b"<html>"), reply("200 OK", b"{", "Content-Type: application/json"), b"", b"SSH-2.0\r\n",
    ],
)  # fmt: skip
async def test_an_answer_that_is_not_the_gateways_is_told_without_a_traceback(answer: bytes) -> None:
    """Somebody named the callers' port, or a proxy answered."""
    async with answering(answer) as url:
        said = await breaker(url, "ops", "list")
        assert (said.status, said.out, said.err.count("\n")) == (1, "", 1)
        assert url in said.err
        assert "--admin" in said.err


@pytest.mark.parametrize(
    "body",
    [
        b'{"stage": "cancelling", "done": 2, "total": 9}\n',
        b'{"stage": "cancelling", "done": 2, "total": 9}\n{"stage": "do',
    ],
)
async def test_a_stream_that_breaks_off_is_never_taken_for_the_end(body: bytes) -> None:
    """A gateway that dies midway has not done it all."""
    whole = b"%x\r\n%b\r\n" % (len(body), body)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/x-ndjson\r\n\r\n"
    for answer in (head + whole, head + whole + b"0\r\n\r\n"):
        async with answering(answer) as url:
            said = await breaker(url, *SCOPE)
            assert (said.status, said.out) == (3, "2 of 9 jobs cancelled\n")
            assert "the connection to the gateway ended" in said.err


async def test_the_variables_of_the_commands_are_no_concern_of_the_configuration() -> None:
    """Who exports the address for on-call must be able to start a gateway in the same shell."""
    given = {"BREAKER_OPERATOR_KEY_FILE": "/nowhere"}
    said = await breaker("http://127.0.0.1:1", "config", "validate", "--config", str(CONFIG), **given)
    assert (said.status, "BREAKER_" in said.err) == (0, False)
    said = await breaker(
        "http://127.0.0.1:1", "config", "validate", "--config", str(CONFIG), BREAKER_ADMIN_URI="x"
    )
    assert (said.status, "unknown variable BREAKER_ADMIN_URI" in said.err) == (2, True)
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    ops = root.commands["ops"]
    assert isinstance(ops, TyperGroup)
    read = {param.envvar for param in ops.commands["list"].params if param.envvar}
    assert read == COMMANDS | {"USER"}


async def test_a_name_that_could_forge_a_header_is_made_harmless() -> None:
    """`$USER` is whatever the environment says."""
    async with answering(reply("200 OK", b'{"operations": []}')) as url:
        assert (await breaker(url, "ops", "list", USER="ann\r\nBreaker-Key: x")).status == 0
        assert (await breaker(url, "ops", "list", USER="Zoë 你好")).status == 0
