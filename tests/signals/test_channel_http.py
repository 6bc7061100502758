"""What all channels do when the network or a receiver is not as it should be."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from breaker.core.alert_policy import Channel, ChannelType
from breaker.core.notify import Kind
from breaker.signals import channel_http
from breaker.signals.channel_http import Poster, Reply, seconds_of
from breaker.signals.channels import ANSWER_MAX, Answer, Later, Never, Taken
from breaker.signals.senders import sender_of
from tests.gateway.test_downstream_real import certificate
from tests.signals.alert_scene import message_of, noticed
from tests.signals.receivers import Failing, Receiver, serving

SECRET = "whsec_" + "c2VjcmV0" * 6
NOW_S = 1_767_225_600  # 2026-01-01
TYPES = [*ChannelType]


def channel(kind: ChannelType, url: str) -> Channel:
    secrets = {ChannelType.PAGERDUTY: ("s3cretkey",), ChannelType.WEBHOOK: (SECRET,)}.get(kind, ())
    return Channel(name="c", type=kind, url=f"{url}/s3cret", secrets=secrets)


async def send(kind: ChannelType, url: str, *, send_s: float = 10.0) -> Answer:
    """Send an alert to it; whatever comes of it, no secret is told."""
    sender = sender_of(channel(kind, url), send_s=send_s)
    try:
        answer = await sender.send(message_of(Kind.FIRING, noticed("BreakerStoreDown:critical")))
    finally:
        await sender.close()
    if not isinstance(answer, Taken):
        assert answer.detail
        assert answer.detail.isprintable()
        assert "s3cret" not in answer.detail
        assert SECRET not in answer.detail
    return answer


async def post(url: str, *, send_s: float = 10.0, now_s: float = NOW_S) -> Reply | Later:
    poster = Poster(url, send_s=send_s, now=lambda: now_s)
    try:
        return await poster.post(b"{}")
    finally:
        await poster.close()


async def hang(request: web.Request) -> web.StreamResponse:
    # Until the other side hangs up.
    while request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(0.01)
    return web.Response()


async def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("kind", TYPES)
async def test_receiver_that_is_silent_is_given_up(kind: ChannelType) -> None:
    """One that hangs must not keep the others from being told."""
    async with serving(Failing(how=hang)) as there:
        assert await send(kind, there.url, send_s=0.1) == Later("no answer within 0.1 s")


@pytest.mark.parametrize("kind", TYPES)
async def test_receiver_that_hangs_up_or_does_not_listen_is_tried_later(kind: ChannelType) -> None:
    """The outbox keeps the message; the log says why, without the address's path."""
    async with serving(Failing(how=reset)) as there:
        assert await send(kind, there.url) == Later("no answer that could be read (ServerDisconnectedError)")
    answer = await send(kind, there.url)
    assert isinstance(answer, Later)
    assert answer.detail.startswith("cannot connect to 127.0.0.1: ")


@pytest.mark.parametrize("kind", TYPES)
async def test_name_that_leads_nowhere_is_tried_later(kind: ChannelType) -> None:
    """DNS fails along with much else, and comes back."""
    answer = await send(kind, "http://pager.invalid")
    assert isinstance(answer, Later)
    assert answer.detail.startswith("cannot connect to pager.invalid: ")


@pytest.mark.parametrize("kind", TYPES)
async def test_redirect_is_not_followed(kind: ChannelType) -> None:
    """Alerts, and the key they are sent with, go where the file says and nowhere else."""
    async with serving(Receiver()) as elsewhere:
        planned = web.Response(status=307, headers={"Location": f"{elsewhere.url}/s3cret"})
        async with serving(Receiver(planned=[planned])) as there:
            assert await send(kind, there.url) == Later("answered 307; redirects are not followed")
    assert not elsewhere.requests


@pytest.mark.parametrize("kind", TYPES)
async def test_proxies_of_the_environment_are_not_used(
    kind: ChannelType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy for people's browsers is no way to on-call, and may be what is broken."""
    async with serving(Receiver()) as proxy, serving(Receiver()) as there:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        await send(kind, there.url)
    assert (len(proxy.requests), len(there.requests)) == (0, 1)


@pytest.mark.parametrize("kind", TYPES)
async def test_echo_of_what_was_sent_tells_no_secret(kind: ChannelType) -> None:
    """Some gateways answer an error with the whole request; that must not end up in our log."""

    async def echo(request: web.Request) -> web.StreamResponse:
        said = f"{request.path} {dict(request.headers)} {await request.text()}"
        return web.Response(status=400, text=said)

    async with serving(Failing(how=echo)) as there:
        answer = await send(kind, f"{there.url}")
    assert isinstance(answer, Never)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An authority that this machine trusts."""
    path = certificate(tmp_path, "authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    channel_http._trust.cache_clear()
    yield path
    channel_http._trust.cache_clear()


def presenting(issuer: Path) -> ssl.SSLContext:
    path = certificate(issuer.parent, "pager.internal", issuer=issuer)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path, path.with_suffix(".key"))
    return context


async def test_only_a_certificate_of_a_trusted_authority_is_accepted(authority: Path, tmp_path: Path) -> None:
    """Whoever answers in the receiver's place gets neither the alert nor the key."""
    (tmp_path / "stranger").mkdir()
    stranger = certificate(tmp_path / "stranger", "stranger")
    async with serving(Receiver(), tls=presenting(authority)) as there:
        assert await send(ChannelType.WEBHOOK, there.url) == Taken()
    async with serving(Receiver(), tls=presenting(stranger)) as there:
        for kind in TYPES:
            answer = await send(kind, there.url)
            assert isinstance(answer, Later)
            assert answer.detail.startswith("cannot connect to 127.0.0.1: ")
            assert "certificate verify failed" in answer.detail
    assert not there.requests


async def test_certificate_of_another_name_is_refused(authority: Path) -> None:
    """It was given to somebody else."""
    async with serving(Receiver(), tls=presenting(authority)) as there:
        answer = await send(ChannelType.WEBHOOK, there.url.replace("127.0.0.1", "localhost"))
    assert isinstance(answer, Later)
    assert "certificate verify failed" in answer.detail
    assert not there.requests


@pytest.mark.parametrize(
    ("status", "headers", "becomes"),
    [
        (200, {}, Taken()),
        (202, {"Retry-After": "5"}, Taken()),
        (299, {}, Taken()),
        (300, {}, Later("answered 300; redirects are not followed")),
        (400, {"Retry-After": "5"}, Never("answered 400")),
        (404, {}, Never("answered 404")),
        (408, {}, Later("answered 408")),
        (410, {}, Never("answered 410")),
        (429, {}, Later("answered 429")),
        (429, {"Retry-After": "7"}, Later("answered 429", 7.0)),
        (499, {}, Never("answered 499")),
        (500, {"Retry-After": "5"}, Later("answered 500")),
        (503, {"Retry-After": "Thu, 01 Jan 2026 00:01:30 GMT"}, Later("answered 503", 90.0)),
        (503, {"Retry-After": "soon"}, Later("answered 503")),
        (599, {}, Later("answered 599")),
    ],
)
async def test_status_decides(status: int, headers: dict[str, str], becomes: Answer) -> None:
    """A receiver says in HTTP's own words whether to come again, and when."""
    async with serving(Receiver(planned=[web.Response(status=status, headers=headers)])) as there:
        reply = await post(there.url)
    assert isinstance(reply, Reply)
    assert reply.judged() == becomes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("3600", 3_600.0), ("3601", 3_600.0), ("9" * 5_000, 3_600.0), ("-1", 0.0), ("1.5", 0.0), ("", 0.0),
        ("Wed, 31 Dec 2025 23:59:00 GMT", 0.0), ("Thu, 01 Jan 2026 00:00:09 GMT", 9.0), ("Fri, 02 Jan 2026 00:00:00 GMT", 3_600.0),
    ],
)  # fmt: skip
def test_time_that_a_receiver_asks_for_is_bounded(text: str, seconds: float) -> None:
    """It may slow us down, not keep an alert from people for a day."""
    assert seconds_of(text, dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()) == seconds


@pytest.fixture
async def endless() -> AsyncIterator[Failing]:
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

    async with serving(Failing(how=stream)) as there:
        yield there
        async with asyncio.timeout(5):
            await cut.wait()


async def test_endless_answer_is_cut_off(endless: Failing) -> None:
    """A receiver must not fill our memory, nor keep us reading."""
    reply = await post(endless.url)
    assert reply == Reply(status=200, body=b"x" * ANSWER_MAX)


async def test_answer_that_breaks_off_after_its_status_counts() -> None:
    """The receiver has said that it has it; telling it again would wake people twice."""

    async def stall(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"so far")
        return await hang(request)

    async with serving(Failing(how=stall)) as there:
        assert await post(there.url, send_s=0.2) == Reply(status=200, body=b"so far")


async def test_deadline_is_of_the_attempt_and_not_of_each_post() -> None:
    """A receiver that takes its time over each of a hundred posts holds us up once."""
    async with serving(Receiver()) as there:
        poster = Poster(there.url, send_s=10.0)
        try:
            over = asyncio.get_running_loop().time()
            assert await poster.post(b"{}", deadline=over) == Later("no answer within 10 s")
            assert await poster.post(b"{}", deadline=over + 10) == Reply(status=204)
        finally:
            await poster.close()
    assert len(there.requests) == 1
