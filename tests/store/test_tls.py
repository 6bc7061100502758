"""The store over TLS, with verification on, and with a password."""

import datetime as dt
import shutil
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis import Redis
from redis.exceptions import RedisError

from breaker.core.config import StoreSettings
from breaker.core.errors import StartError
from breaker.store.checks import check_store
from tests.gateway.gateway_process import free_ports

PASSWORD = "correct horse battery staple"


def write_certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest.fixture(scope="module")
def tls_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Debian's Redis, because the embedded server has no TLS."""
    server = shutil.which("redis-server")
    assert server, "redis-server with TLS is needed: apt-get install redis-server"
    folder, port = tmp_path_factory.mktemp("tls"), free_ports(1)[0]
    write_certificate(folder)
    process = subprocess.Popen(
        [server, "--port", "0", "--tls-port", str(port), "--tls-cert-file", str(folder / "ca.pem"),
         "--tls-key-file", str(folder / "key.pem"), "--tls-ca-cert-file", str(folder / "ca.pem"),
         "--tls-auth-clients", "no", "--requirepass", PASSWORD, "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    client = Redis("127.0.0.1", port, ssl=True, ssl_ca_certs=str(folder / "ca.pem"), password=PASSWORD)
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            break
        except RedisError:
            assert time.monotonic() < deadline, "the server with TLS did not start"
            time.sleep(0.02)
    yield port, folder
    client.close()
    process.terminate()
    process.wait()


def settings(port: int, *, ca_file: Path | None, password: str | None = PASSWORD) -> StoreSettings:
    return StoreSettings(
        url=f"rediss://127.0.0.1:{port}",
        timeout_ms=500,
        password=password,
        ca_file=str(ca_file) if ca_file else None,
    )


async def test_a_store_is_reached_over_tls_with_its_own_authority(tls_store: tuple[int, Path]) -> None:
    port, folder = tls_store
    facts = await check_store(settings(port, ca_file=folder / "ca.pem"))
    assert facts.name.startswith("redis 7")
    assert any("appendonly is off" in warning for warning in facts.warnings)


async def test_a_store_that_nobody_vouches_for_is_refused(tls_store: tuple[int, Path]) -> None:
    """Verification is on: capacity is not held in whatever answers on the port."""
    with pytest.raises(StartError, match=r"certificate verify failed|CERTIFICATE_VERIFY_FAILED"):
        await check_store(settings(tls_store[0], ca_file=None))


async def test_a_wrong_password_is_said_to_be_that(tls_store: tuple[int, Path]) -> None:
    """Not "cannot be reached": on-call would look at the network."""
    port, folder = tls_store
    with pytest.raises(StartError, match=r"refused the password.*store.password_file"):
        await check_store(settings(port, ca_file=folder / "ca.pem", password="wrong"))
