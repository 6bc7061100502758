"""
The callback client against real receivers.

Names are given addresses at `getaddrinfo`, the edge of the network. `is_public` is replaced where a test
needs a receiver that a name may lead to: all that can be reached here is loopback.
"""

import asyncio
import base64
import contextlib
import datetime as dt
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop
from aiohttp import web
from standardwebhooks import Webhook

from breaker.core.callback_address import is_public
from breaker.gateway import callback_client
from breaker.gateway.callback_client import CallbackClient, Delivered, Failed
from tests.gateway.test_downstream_real import certificate

SECRETS = ["whsec_" + base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2)]
BODY = b'{"specversion":"1.0"}'
NOW_S = 1_767_225_600  # 2026-01-01

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Receiver:
    """A real server on loopback, and what it was sent."""

    port: int = 0
    peers: set[object] = field(default_factory=set)
    calls: list[tuple[web.Request, bytes]] = field(default_factory=list)


@contextlib.asynccontextmanager
async def receiver(
    answer: Handler | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    seen = Receiver()

    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        seen.peers.add(request.transport.get_extra_info("peername"))
        seen.calls.append((request, await request.read()))
        return await answer(request) if answer else web.Response(status=204)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    seen.port = runner.addresses[0][1]
    try:
        yield seen
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def client(*allow: str, timeout_s: float = 10.0) -> AsyncIterator[CallbackClient]:
    made = CallbackClient(allow, timeout_s=timeout_s)
    try:
        yield made
    finally:
        await made.close()


async def deliver(to: CallbackClient, url: str, *, timestamp_s: int = NOW_S) -> Delivered | Failed:
    return await to.deliver(url, id="01J_1_succeeded", timestamp_s=timestamp_s, body=BODY, secrets=SECRETS)


async def deliver_once(url: str, *allow: str, timeout_s: float = 10.0) -> Delivered | Failed:
    async with client(*allow, timeout_s=timeout_s) as made:
        return await deliver(made, url)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names lead to: one address for each time that one is asked, the last one for ever."""
    led: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def lead(host: str, port: int, *args: object, **kwargs: object) -> object:
        if host not in led:
            return real(host, port, *args, **kwargs)  # type: ignore[arg-type]
        address = led[host].pop(0) if len(led[host]) > 1 else led[host][0]
        if ":" in address:
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", lead)
    return led


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback counts as public."""
    monkeypatch.setattr(callback_client, "is_public", lambda _address: True)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An authority that this machine trusts."""
    path = certificate(tmp_path, "authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    callback_client._trust.cache_clear()
    yield path
    callback_client._trust.cache_clear()


def serving(authority: Path, name: str) -> ssl.SSLContext:
    path = certificate(authority.parent, name, issuer=authority)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path, path.with_suffix(".key"))
    return context


# What is sent.


async def test_callback_arrives_signed_by_both_secrets() -> None:
    """A receiver that follows the guide accepts it, before, while and after the secret is exchanged."""
    async with receiver() as there, client(f"http://127.0.0.1:{there.port}") as made:
        url = f"http://127.0.0.1:{there.port}/hook?token=%7E1"
        assert await deliver(made, url, timestamp_s=int(time.time())) == Delivered(status=204)
    [(request, body)] = there.calls
    assert (request.method, request.path, request.query["token"]) == ("POST", "/hook", "~1")
    assert request.headers["Content-Type"] == "application/cloudevents+json"
    for secret in SECRETS:
        assert Webhook(secret).verify(body, dict(request.headers)) == {"specversion": "1.0"}


async def test_connection_is_used_again() -> None:
    """A receiver of a thousand callbacks is not asked for a thousand handshakes."""
    answering = receiver(lambda _: _answer(200, body=b"x" * 60_000))
    async with answering as there, client(f"http://127.0.0.1:{there.port}") as made:
        for _ in range(3):
            assert await deliver(made, f"http://127.0.0.1:{there.port}/") == Delivered(status=200)
    assert (len(there.calls), len(there.peers)) == (3, 1)


@pytest.mark.usefixtures("anywhere")
async def test_cookies_of_a_receiver_are_forgotten(names: dict[str, list[str]]) -> None:
    """What a receiver says in the callback of one tenant must not be said back in that of another."""
    names["hooks.example.com"] = ["127.0.0.1"]
    answering = receiver(lambda _: _answer(200, {"Set-Cookie": "seen=acme"}))
    async with answering as there, client(f"http://hooks.example.com:{there.port}") as made:
        for _ in range(2):
            await deliver(made, f"http://hooks.example.com:{there.port}/")
    assert ["Cookie" in request.headers for request, _ in there.calls] == [False, False]


@pytest.mark.usefixtures("anywhere")
async def test_proxies_of_the_environment_are_not_used(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would connect for us to what we refuse."""
    names["hooks.example.com"] = ["127.0.0.1"]
    async with receiver() as proxy, receiver() as there:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        origin = f"http://hooks.example.com:{there.port}"
        assert await deliver_once(f"{origin}/", origin) == Delivered(status=204)
    assert (len(proxy.calls), len(there.calls)) == (0, 1)


# What the answer means.


async def _answer(
    status: int, headers: dict[str, str] | None = None, body: bytes = b""
) -> web.StreamResponse:
    return web.Response(status=status, headers=headers, body=body)


@pytest.mark.parametrize(
    ("status", "headers", "becomes"),
    [
        (200, {}, Delivered(status=200)),
        (299, {"Retry-After": "5"}, Delivered(status=299)),
        (300, {}, Failed(detail="the receiver answered 300; redirects are not followed")),
        (400, {}, Failed(detail="the receiver answered 400")),
        (404, {"Retry-After": "5"}, Failed(detail="the receiver answered 404")),
        (410, {"Retry-After": "5"}, Failed(permanent=True, detail="the receiver answered 410")),
        (429, {}, Failed(detail="the receiver answered 429")),
        (429, {"Retry-After": "7"}, Failed(retry_after_s=7, detail="the receiver answered 429")),
        (500, {"Retry-After": "5"}, Failed(detail="the receiver answered 500")),
        (503, {"Retry-After": "0"}, Failed(retry_after_s=0, detail="the receiver answered 503")),
        (503, {"Retry-After": "86401"}, Failed(retry_after_s=86_400, detail="the receiver answered 503")),
        (503, {"Retry-After": "9" * 5_000}, Failed(retry_after_s=86_400, detail="the receiver answered 503")),
        (503, {"Retry-After": "-1"}, Failed(detail="the receiver answered 503")),
        (503, {"Retry-After": "soon"}, Failed(detail="the receiver answered 503")),
        (503, {"Retry-After": "1.5"}, Failed(detail="the receiver answered 503")),
    ],
)  # fmt: skip
async def test_answer_decides(status: int, headers: dict[str, str], becomes: Delivered | Failed) -> None:
    """A receiver says in HTTP's own words whether to come again, and when; never when is one of them."""
    async with receiver(lambda _: _answer(status, headers)) as there:
        origin = f"http://127.0.0.1:{there.port}"
        assert await deliver_once(f"{origin}/", origin) == becomes


@pytest.mark.parametrize(("offset_s", "becomes"), [(90, 90.0), (-90, 0.0), (200_000, 86_400.0)])
async def test_retry_after_may_be_a_date(offset_s: int, becomes: float) -> None:
    """It is one by default in several servers, and is counted from the moment of the attempt."""
    date = dt.datetime.fromtimestamp(NOW_S + offset_s, tz=dt.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    async with receiver(lambda _: _answer(503, {"Retry-After": date})) as there:
        origin = f"http://127.0.0.1:{there.port}"
        answer = await deliver_once(f"{origin}/", origin)
    assert answer == Failed(retry_after_s=becomes, detail="the receiver answered 503")


async def test_receiver_that_is_silent_is_given_up() -> None:
    """One that hangs must not hold the callbacks of others."""
    hangs = asyncio.Event()

    async def hang(_request: web.Request) -> web.StreamResponse:
        await hangs.wait()
        return web.Response()

    async with receiver(hang) as there:
        origin = f"http://127.0.0.1:{there.port}"
        assert await deliver_once(f"{origin}/", origin, timeout_s=0.2) == Failed(detail="no answer in time")
        hangs.set()


async def test_answer_that_breaks_off_after_its_status_is_delivered() -> None:
    """The receiver has said that it has it; telling it again would only double its work."""

    async def stall(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"so far")
        assert request.transport is not None
        request.transport.abort()
        return answer

    async with receiver(stall) as there:
        origin = f"http://127.0.0.1:{there.port}"
        assert await deliver_once(f"{origin}/", origin) == Delivered(status=200)


async def test_endless_answer_is_cut_off() -> None:
    """A receiver must not fill our memory, nor keep us reading."""
    cut = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"x" * 16_384)
        except ConnectionError:
            cut.set()
            raise

    async with receiver(stream) as there, client(f"http://127.0.0.1:{there.port}", timeout_s=60) as made:
        async with asyncio.timeout(5):
            assert await deliver(made, f"http://127.0.0.1:{there.port}/") == Delivered(status=200)
            await cut.wait()


async def test_receiver_that_hangs_up_or_does_not_listen_has_failed() -> None:
    """Said in words, without the token that the URL may carry."""

    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with receiver(hang_up) as there:
        origin = f"http://127.0.0.1:{there.port}"
        answer = await deliver_once(f"{origin}/?s3cret", origin)
    assert isinstance(answer, Failed)
    assert answer.detail.startswith("no answer that could be read (")
    answer = await deliver_once(f"{origin}/?s3cret", origin)
    assert isinstance(answer, Failed)
    assert answer.detail.startswith("cannot connect to 127.0.0.1: ")
    assert "s3cret" not in answer.detail


# Where it may go.


async def test_redirect_to_loopback_is_not_followed() -> None:
    """A receiver that is allowed must not be able to send us somewhere that is not."""
    async with receiver() as inside:
        location = {"Location": f"http://127.0.0.1:{inside.port}/admin"}
        async with receiver(lambda _: _answer(307, location)) as there:
            allow = [f"http://127.0.0.1:{port}" for port in (there.port, inside.port)]
            answer = await deliver_once(f"{allow[0]}/", *allow)
    assert answer == Failed(detail="the receiver answered 307; redirects are not followed")
    assert (len(there.calls), len(inside.calls)) == (1, 0)


async def test_name_that_leads_elsewhere_when_it_is_asked_again_is_refused(
    names: dict[str, list[str]],
) -> None:
    """DNS rebinding: public while somebody looks, loopback when the connection is made."""
    names["hooks.example.com"] = ["93.184.215.14", "127.0.0.1"]
    async with receiver() as inside:
        [first] = socket.getaddrinfo("hooks.example.com", inside.port)
        assert is_public(str(first[4][0]))
        # The address itself is allowed; a name that leads to it is not the same thing.
        origin = f"http://hooks.example.com:{inside.port}"
        answer = await deliver_once(f"{origin}/", origin, f"http://127.0.0.1:{inside.port}")
    assert answer == Failed(detail="cannot connect to hooks.example.com: 127.0.0.1 is not a public address")
    assert not inside.calls


@pytest.mark.parametrize("address", ["::1", "::ffff:127.0.0.1", "0.0.0.0", "64:ff9b::7f00:1"])
async def test_name_that_leads_to_this_machine_in_disguise_is_refused(
    names: dict[str, list[str]], address: str
) -> None:
    """Each of these is loopback, or may be, to some machine."""
    names["hooks.example.com"] = [address]
    async with receiver() as inside:
        origin = f"http://hooks.example.com:{inside.port}"
        answer = await deliver_once(f"{origin}/", origin)
    assert answer == Failed(detail=f"cannot connect to hooks.example.com: {address} is not a public address")
    assert not inside.calls


def test_name_that_leads_to_loopback_is_refused_on_uvloop_too() -> None:
    """Production runs on uvloop, whose sockets are made elsewhere; `localhost` is asked of the machine itself."""

    async def refused() -> None:
        async with receiver() as inside:
            origin = f"http://localhost:{inside.port}"
            answer = await deliver_once(f"{origin}/", origin)
            assert isinstance(answer, Failed)
            assert "is not a public address" in answer.detail
            assert await deliver_once(
                f"http://127.0.0.1:{inside.port}/", f"http://127.0.0.1:{inside.port}"
            ) == Delivered(status=204)
        assert len(inside.calls) == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(refused())


@pytest.mark.parametrize("host", ["[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::1]", "localhost", "127.0.0.2"])
async def test_address_that_no_entry_names_is_not_called(host: str) -> None:
    """An entry allows the very address that it names, not others that lead to the same machine."""
    async with receiver() as inside:
        allow = f"http://127.0.0.1:{inside.port}"
        answer = await deliver_once(f"http://{host}:{inside.port}/", allow)
    assert isinstance(answer, Failed)
    assert "not in the allow-list" in answer.detail
    assert not inside.calls


@pytest.mark.parametrize("host", ["[::ffff:127.0.0.1]", "127.0.0.1"])
async def test_socket_is_refused_to_addresses_that_no_entry_names(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the URL got past the list: the socket is what counts."""
    monkeypatch.setattr(callback_client, "allowed", lambda _url, _allow: None)
    async with receiver() as inside, receiver() as there:
        answer = await deliver_once(f"http://{host}:{inside.port}/", f"http://127.0.0.1:{there.port}")
    assert isinstance(answer, Failed)
    assert "is not the address that the allow-list names" in answer.detail
    assert not inside.calls


async def test_url_that_is_no_longer_allowed_is_not_called() -> None:
    """An operator who takes a host off the list has taken it off for the jobs that wait, too."""
    async with receiver() as there:
        answer = await deliver_once(f"http://127.0.0.1:{there.port}/", "hooks.example.com")
    assert answer == Failed(
        detail=f"callbacks to http://127.0.0.1:{there.port} are not in the allow-list of this operation"
    )
    assert not there.calls


async def test_malformed_entry_is_an_error_at_once() -> None:
    """Not when the first job has ended."""
    with pytest.raises(ValueError, match=r"allow-list entry '127\.1'"):
        CallbackClient(["hooks.example.com", "127.1"])


# TLS.


@pytest.mark.usefixtures("anywhere")
async def test_certificate_of_a_trusted_authority_is_accepted(
    names: dict[str, list[str]], authority: Path
) -> None:
    """The company's own authority is enough, as for all programs of the machine."""
    names["hooks.example.com"] = ["127.0.0.1"]
    async with receiver(tls=serving(authority, "hooks.example.com")) as there:
        origin = f"https://hooks.example.com:{there.port}"
        assert await deliver_once(f"{origin}/", origin) == Delivered(status=204)


@pytest.mark.usefixtures("anywhere")
async def test_certificate_of_another_name_or_authority_is_refused(
    names: dict[str, list[str]], authority: Path, tmp_path: Path
) -> None:
    """Whoever answers in the receiver's place learns nothing, not even which job ended."""
    names["hooks.example.com"] = ["127.0.0.1"]
    (tmp_path / "stranger").mkdir()
    stranger = certificate(tmp_path / "stranger", "stranger")
    for context in (serving(authority, "other.example.com"), serving(stranger, "hooks.example.com")):
        async with receiver(tls=context) as there:
            origin = f"https://hooks.example.com:{there.port}"
            answer = await deliver_once(f"{origin}/", origin)
        assert isinstance(answer, Failed)
        assert answer.detail.startswith("cannot connect to hooks.example.com: ")
        assert "certificate" in answer.detail.lower()
        assert not there.calls
