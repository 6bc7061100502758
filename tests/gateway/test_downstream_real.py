"""
The client against real servers: TLS with an authority of its own, nginx, and uvloop instead of asyncio's loop.
"""

import asyncio
import datetime as dt
import ipaddress
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from breaker.core.model import Tls
from breaker.gateway.downstream import ConnectFailed, Disconnected, Pool
from tests.gateway.raw_downstream import Peer, answering, call, pool_to, raw_downstream, whole

HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
MIB = 1_048_576


def certificate(folder: Path, name: str, *, issuer: Path | None = None) -> Path:
    """Write `name`.pem and .key: an authority, or a certificate of one for the host `name` and 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, issuer_name = key, subject
    if issuer is not None:
        signer_key = serialization.load_pem_private_key(issuer.with_suffix(".key").read_bytes(), None)
        assert isinstance(signer_key, ec.EllipticCurvePrivateKey)
        signer, issuer_name = signer_key, x509.load_pem_x509_certificate(issuer.read_bytes()).subject
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=issuer is None, crl_sign=issuer is None, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    if issuer is not None:
        hosts = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    path = folder / f"{name}.pem"
    path.write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates: two authorities, of which one has signed a server and a client."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = certificate(folder, "authority")
    certificate(folder, "stranger")
    certificate(folder, "desk.internal", issuer=authority)
    certificate(folder, "gateway.internal", issuer=authority)
    return folder


def serving(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "desk.internal.pem", folder / "desk.internal.key")
    return context


async def test_tls_downstream_of_a_trusted_authority_is_used(folder: Path) -> None:
    """An internal authority is enough, by address or by the name that we are told to expect."""
    names: list[str | None] = []
    context = serving(folder)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    ca_file = str(folder / "authority.pem")
    async with raw_downstream(answering(HI), context) as downstream:
        for tls in (Tls(ca_file=ca_file), Tls(ca_file=ca_file, server_name="desk.internal")):
            async with pool_to(downstream.url, tls=tls) as pool:
                for _ in range(2):
                    assert (await call(pool)).body == b"hi"
                assert (pool.idle, pool.opened) == (1, 1)
        assert names == [None, "desk.internal"]


@pytest.mark.parametrize(
    ("authority", "server_name"), [("stranger", None), (None, None), ("authority", "elsewhere.internal")]
)
async def test_tls_downstream_that_is_not_who_it_should_be_is_refused(
    folder: Path, authority: str | None, server_name: str | None
) -> None:
    """Credentials and customers' data go to nobody else; nothing was sent."""
    tls = Tls(ca_file=str(folder / f"{authority}.pem") if authority else None, server_name=server_name)
    async with (
        raw_downstream(answering(HI), serving(folder)) as downstream,
        pool_to(downstream.url, tls=tls) as pool,
    ):
        with pytest.raises(ConnectFailed, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await call(pool, method=b"POST", body=b"secret")
        assert (caught.value.sent, pool.busy, pool.opened) == (False, 0, 0)


async def test_tls_downstream_sees_our_certificate(folder: Path) -> None:
    """A downstream that admits only known clients can admit us."""
    context = serving(folder)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(folder / "authority.pem")
    ours = folder / "gateway.internal.pem"
    tls = Tls(
        ca_file=str(folder / "authority.pem"), cert_file=str(ours), key_file=str(ours.with_suffix(".key"))
    )
    async with raw_downstream(answering(HI), context) as downstream, pool_to(downstream.url, tls=tls) as pool:
        assert (await call(pool)).body == b"hi"


async def test_body_until_close_over_tls_needs_a_proper_close(folder: Path) -> None:
    """Anybody on the path can cut a connection; only the downstream can say that it was done."""
    await check_close_over_tls(folder)


async def check_close_over_tls(folder: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhi")
        if peer.number == 1:
            peer.writer.transport.abort()

    tls = Tls(ca_file=str(folder / "authority.pem"))
    async with (
        raw_downstream(script, serving(folder)) as downstream,
        pool_to(downstream.url, tls=tls) as pool,
    ):
        with pytest.raises(Disconnected):
            await whole(await call(pool))
        assert await whole(await call(pool)) == b"hi"


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[str]:
    """A real server: its url."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    assert program is not None, "these tests need nginx: install the package of that name"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "big").write_bytes(b"x" * MIB)
    temp = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}"
        f"http {{ access_log off; {temp} client_max_body_size 1k; server {{ listen 127.0.0.1:{port};"
        "location /ok { return 200 '$request_method $request_uri $http_x_a'; }"
        f"location /big {{ root {tmp_path}; if_modified_since off; }}"
        "location /limited { root /nowhere; dav_methods PUT; } } }"
    )
    server = await asyncio.create_subprocess_exec(
        program, "-e", tmp_path / "error.log", "-c", tmp_path / "nginx.conf"
    )
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                assert server.returncode is None, (tmp_path / "error.log").read_text()
                await asyncio.sleep(0.01)
            else:
                writer.close()
                await writer.wait_closed()
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        await server.wait()


async def megabytes(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * MIB


async def everything(pool: Pool) -> None:
    """The usual kinds of call, one after another on the same pool."""
    answers = await asyncio.gather(
        *(call(pool, target=b"/ok?n=%d" % n, headers=b"X-A: %d\r\n" % n) for n in range(64))
    )
    assert [answer.body for answer in answers] == [b"GET /ok?n=%d %d" % (n, n) for n in range(64)]
    assert len(await whole(await call(pool, target=b"/big"))) == MIB
    head = await call(pool, method=b"HEAD", target=b"/big")
    assert (head.body, dict(head.headers)[b"Content-Length"]) == (b"", b"1048576")
    assert (await call(pool, target=b"/none")).status == 404
    opened = pool.opened
    assert (opened, pool.busy) == (64, 0)
    for content_length in (None, 8 * MIB):
        refused = await call(
            pool, method=b"PUT", target=b"/limited", body=megabytes(8), content_length=content_length
        )
        assert refused.status == 413
        assert pool.busy == 0


async def test_nginx_is_understood(nginx: str) -> None:
    """The server that most downstreams stand behind."""
    async with pool_to(nginx) as pool:
        await everything(pool)


async def test_nodelay_is_set(nginx: str) -> None:
    """Small requests leave at once instead of waiting for the last one's acknowledgement."""
    async with pool_to(nginx) as pool:
        await call(pool, target=b"/ok")
        (connection,) = pool._open
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_uvloop_carries_the_same_calls(nginx: str, folder: Path) -> None:
    """The gateway runs on uvloop where there is one: its transports differ in detail."""

    async def scenario() -> None:
        async with pool_to(nginx) as pool:
            await everything(pool)
        tls = Tls(ca_file=str(folder / "authority.pem"))
        async with (
            raw_downstream(answering(HI), serving(folder)) as downstream,
            pool_to(downstream.url, tls=tls) as pool,
        ):
            assert (await call(pool)).body == b"hi"
        await check_close_over_tls(folder)

    await asyncio.to_thread(uvloop.run, scenario())
