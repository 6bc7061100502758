"""Where the store is: every way to write it, and what is said about the rest."""

from pathlib import Path

import pytest

from breaker.policy.load import load
from breaker.policy.store_url import check_store_url, is_tls, with_tls
from tests.policy.conftest import Problems, Write

GOOD = [
    "embedded",
    "redis://h",
    "rediss://h:1/0",
    "unix:///s",
    "redis+sentinel://a:1/orders",
    "redis+sentinel://a:1,b:2/or.de_rs-1",
    "rediss+sentinel://[::1]:26379,10.0.0.1:26379/orders/0",
    "redis+sentinel://a:1/orders/999",
    "redis+cluster://a:1",
    "redis+cluster://a:1/",
    "rediss+cluster://a:1,b:1,[::1]:65535",
    "redis+cluster://" + ",".join(f"h:{port}" for port in range(1, 17)),
]
BAD = [
    ("embeded", "is not a URL that can be used here"),
    ("redis://", "has no host: write redis://host:6379"),
    ("unix://", "has no path"),
    ("http://h", "redis\\+sentinel://, rediss\\+sentinel://, redis\\+cluster://"),
    ("redis-sentinel://h:1/s", "is not a URL that can be used here"),
    ("redis://a:1,b:1", "several addresses: with Sentinel write redis\\+sentinel://host:port,host:port/<service>"),
    ("redis+sentinel", "is not a URL: write redis\\+sentinel://host:port,host:port/<service>"),
    ("redis+sentinel:/a:1/s", "is not a URL"),
    ("redis+sentinel://", "lacks an address: write redis\\+sentinel://host:port,host:port/<service>"),
    ("redis+sentinel:///s", "lacks an address"),
    ("redis+sentinel://a:1,/s", "lacks an address"),
    ("redis+sentinel://a/s", "'a' is not host:port"),
    ("redis+sentinel://a:1,b:x/s", "'b:x' is not host:port"),
    ("redis+sentinel://a:0/s", "port 0"),
    ("redis+sentinel://a:65536/s", "'a:65536' is not host:port"),
    ("redis+sentinel://a:1,a:1/s", "names one address twice"),
    ("redis+sentinel://a:1", "names no service"),
    ("redis+sentinel://a:1//0", "names no service"),
    ("redis+sentinel://a:1/s p", "has a space"),
    ("redis+sentinel://a:1/s!", "'s!' is no name of a service"),
    ("redis+sentinel://a:1/s/", "'' is no number of a database"),
    ("redis+sentinel://a:1/s/x", "'x' is no number of a database"),
    ("redis+sentinel://a:1/s/1000", "'1000' is no number of a database"),
    ("redis+sentinel://a:1/s?db=1", "has a query"),
    ("rediss+cluster://", "write rediss\\+cluster://host:port,host:port$"),
    ("redis+cluster://a:1/0", "has '/0': a Cluster has one database"),
    ("redis+cluster://a:1#x", "has a query or fragment"),
    ("redis+cluster://" + ",".join(f"h:{port}" for port in range(1, 18)), "names 17 addresses: at most 16"),
]  # fmt: skip


@pytest.mark.parametrize("url", GOOD)
def test_an_address_of_a_store_is_taken_as_it_stands(url: str) -> None:
    """One server, a socket, Sentinels with a service, some nodes of a Cluster."""
    assert check_store_url(url) == url


@pytest.mark.parametrize(("url", "says"), BAD)
def test_what_is_no_address_of_a_store_is_refused_with_the_way_out(url: str, says: str) -> None:
    """At two in the morning nobody knows by heart where the name of the service stands."""
    with pytest.raises(ValueError, match=says):
        check_store_url(url)


@pytest.mark.parametrize("url", ["redis://u:hunter2@h", "redis+sentinel://u:hunter2@a:1,b:1/s", "redis+cluster://:hunter2@a:1", "redis://u:hunter2@a,b"])  # fmt: skip
def test_a_password_in_the_address_of_a_store_is_refused_and_not_repeated(url: str) -> None:
    """Messages end up in logs and tickets."""
    with pytest.raises(ValueError, match="carries a user or password") as caught:
        check_store_url(url)
    assert "hunter2" not in str(caught.value)


def test_the_environment_may_carry_the_password_of_every_kind_of_store(folder: Path) -> None:
    """It is taken apart there, with several addresses, too."""
    url = "rediss+sentinel://anna:hunt%40r2@a:1,[::1]:2/orders/3"
    store = load(folder, {"BREAKER_STORE__URL": url}).gateway.store
    assert store.url == "rediss+sentinel://a:1,[::1]:2/orders/3"
    assert (store.username, store.password) == ("anna", "hunt@r2")


@pytest.mark.parametrize(
    ("url", "over_tls"),
    [
        ("redis://h", "rediss"),
        ("redis+sentinel://a:1/s", "rediss+sentinel"),
        ("redis+cluster://a:1", "rediss+cluster"),
        ("embedded", "rediss"),
    ],
)
def test_authorities_are_of_addresses_over_tls_only(
    url: str, over_tls: str, write: Write, problems: Problems
) -> None:
    """Who states `ca_file` believes to be encrypted; the way out is the scheme of the same kind."""
    assert (with_tls(url), is_tls(url), is_tls(f"{over_tls}://h")) == (over_tls, False, True)
    write("gateway.yaml", f"store: {{url: '{url}', ca_file: gateway.yaml}}\n")
    (found,) = problems()
    assert f"`ca_file` has no effect on {url}: write {over_tls}:// or leave it out" in found


def test_what_is_said_about_an_absent_store_arrives(folder: Path, write: Write) -> None:
    """From the file or from the environment, where a chart knows the number of replicas."""
    gateway = load(folder, {}).gateway
    assert (gateway.replicas_expected, gateway.store.needed_at_start) == (1, True)
    write("gateway.yaml", "replicas_expected: 3\nstore: {needed_at_start: false}\n")
    gateway = load(folder, {}).gateway
    assert (gateway.replicas_expected, gateway.store.needed_at_start) == (3, False)
    gateway = load(
        folder, {"BREAKER_REPLICAS_EXPECTED": "5", "BREAKER_STORE__NEEDED_AT_START": "true"}
    ).gateway
    assert (gateway.replicas_expected, gateway.store.needed_at_start) == (5, True)
