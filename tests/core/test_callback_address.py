"""Callback addresses: which URLs a caller may name, and which addresses a name may lead to."""

import pytest

from breaker.core.callback_address import URL_MAX, allowed, entry_of, is_public

ALLOW = ("hooks.example.com", "*.partner.example", "https://hooks.example.com:8443", "http://127.0.0.1:9110")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com/",
        "https://hooks.example.com:443/a/b%20c?token=1&at=a@b://c",
        "HTTPS://Hooks.Example.COM/x",
        "https://hooks.example.com:8443/x",
        "https://hooks.example.com?x",
        "https://eu.partner.example/",
        "https://a.b.partner.example/",
        "http://127.0.0.1:9110/x",
        "https://hooks.example.com/" + "x" * (URL_MAX - 26),
    ],
)
def test_what_an_entry_names_is_allowed(url: str) -> None:
    """A caller names the receiver that the operator has agreed to."""
    assert allowed(url, ALLOW) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://hooks.example.com:80/",
        "https://hooks.example.com:8444/",
        "http://hooks.example.com:8443/",
        "https://example.com/",
        "https://hooks.example.com.evil.example/",
        "https://evil-hooks.example.com/",
        "https://partner.example/",
        "https://evilpartner.example/",
        "http://127.0.0.1/",
        "https://127.0.0.1:9110/",
        "http://127.0.0.2:9110/",
        "http://localhost:9110/",
        "http://[::1]:9110/",
        "http://[::ffff:127.0.0.1]:9110/",
        "http://[::ffff:7f00:1]:9110/",
    ],
)
def test_what_no_entry_names_is_not_in_the_list(url: str) -> None:
    """Anywhere else is where an attacker would have the gateway knock."""
    reason = allowed(url, ALLOW)
    assert reason is not None
    assert "not in the allow-list" in reason


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://user@hooks.example.com/", "no user or password"),
        ("https://user:secret@hooks.example.com/", "no user or password"),
        ("https://hooks.example.com@evil.example/", "no user or password"),
        ("https://evil.example\\@hooks.example.com/", "no user or password"),
        ("https://hooks.example.com/#x", "no fragment"),
        ("https://evil.example#@hooks.example.com/", "no fragment"),
        ("https://hooks.example.com/\r\nHost: evil.example", "visible ASCII"),
        ("https://hooks.example.com/\x00", "visible ASCII"),
        ("https://hooks.example.com/a b", "visible ASCII"),
        ("https://hooks.example.com/\n", "visible ASCII"),
        ("https://h\u00f6\u00f6ks.example.com/", "punycode"),
        ("https://hooks.example.com\uff0fx/", "punycode"),
        ("https://hooks.example.com\\x/", "looks like"),
        ("https://*.partner.example/", "looks like"),
        ("https:hooks.example.com/", "looks like"),
        ("ftp://hooks.example.com/", "looks like"),
        ("file:///etc/passwd", "looks like"),
        ("//hooks.example.com/", "looks like"),
        ("hooks.example.com", "looks like"),
        ("", "looks like"),
        ("https://hooks.example.com:/", "looks like"),
        ("https://hooks.example.com:443x/", "looks like"),
        ("https://hooks.example.com:0/", "no port 0"),
        ("https://hooks.example.com:65536/", "no port 65536"),
        ("http://127.1:9110/", "in its usual form"),
        ("http://2130706433:9110/", "in its usual form"),
        ("http://0x7f000001:9110/", "in its usual form"),
        ("http://0177.0.0.1:9110/", "in its usual form"),
        ("http://127.0.0.1.:9110/", "in its usual form"),
        ("http://[127.0.0.1]:9110/", "in its usual form"),
        ("https://hooks..example.com/", "in its usual form"),
        ("https://hooks.example.com./", "in its usual form"),
        ("https://-x.partner.example/", "in its usual form"),
        (f"https://{'a' * 64}.partner.example/", "in its usual form"),
        ("https://hooks.example.com/" + "x" * (URL_MAX - 25), "at most 2048"),
    ],
)
def test_url_that_two_programs_could_read_differently_is_refused(url: str, says: str) -> None:
    """The check and the connection must mean the same host, and a header must stay one header."""
    reason = allowed(url, (*ALLOW, "http://evil.example"))
    assert reason is not None
    assert says in reason


def test_reason_does_not_repeat_the_path() -> None:
    """The reason goes into answers and logs; the path of a receiver is often its password."""
    for url in (
        "https://evil.example/s3cret?s3cret",
        "https://x:s3cret@evil.example/",
        "https://evil.example/#s3cret",
    ):
        assert "s3cret" not in (allowed(url, ALLOW) or "s3cret")


def test_ipv6_address_is_allowed_in_any_spelling() -> None:
    """fd00::1 and fd00:0::0:1 are one address."""
    assert allowed("https://[FD00:0::0:1]:8443/x", ["https://[fd00::1]:8443"]) is None
    for other in ("fd00::2", "fd01::1", "fd00::1:1"):
        assert allowed(f"https://[{other}]:8443/x", ["https://[fd00::1]:8443"]) is not None
    assert allowed("https://[fd00::1]/x", ["[fd00::1]"]) is None


def test_empty_list_allows_nothing() -> None:
    assert allowed("https://hooks.example.com/", ()) is not None


@pytest.mark.parametrize(
    "entry",
    [
        "", "*", "*.com", "**.example.com", "a.*.example.com", "https://*", "hooks.example.com:8443",
        "hooks.example.com/path", "https://hooks.example.com/", "ftp://hooks.example.com",
        "https://user@hooks.example.com", "https://hooks.example.com:0", "https://hooks.example.com:70000",
        "127.1", "*.0.0.1", "10.0.0.0/8", "hooks.example.com ", "hooks_example.com", "h\u00f6oks.example.com",
    ],
)  # fmt: skip
def test_malformed_entry_is_named(entry: str) -> None:
    """An entry that quietly allowed nothing, or too much, would be found out at the worst time."""
    with pytest.raises(ValueError, match="allow-list entry") as caught:
        entry_of(entry)
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
        "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0",
        "198.17.255.255", "198.20.0.0", "223.255.255.255", "2606:4700::1111", "2001:200::", "2003::1", "2000::", "3ffe:ffff::1",
        "::ffff:1.1.1.1", "2002:101:101::1", "64:ff9b::1.1.1.1",
    ],
)  # fmt: skip
def test_public_address_is_public(address: str) -> None:
    """A receiver on the Internet is reached; also through NAT64, where there is no IPv4."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.100.100.200", "100.127.255.255",
        "127.0.0.1", "127.255.255.255", "169.254.0.0", "169.254.169.254", "172.16.0.0", "172.31.255.255",
        "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.0", "192.168.255.255", "198.18.0.0", "198.19.255.255",
        "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "168.63.129.16",
        "::", "::1", "::127.0.0.1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
        "100::1", "2001::1", "2001:db8::1", "3fff::1", "4000::1", "5f00::1", "64:ff9b:1::1.1.1.1", "64:ff9b::1:0:1.1.1.1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1",
        "2002:c0a8:101::1", "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::10.0.0.1",
        "hooks.example.com", "",
    ],
)  # fmt: skip
def test_address_that_the_internet_does_not_reach_is_not_public(address: str) -> None:
    """Behind these are databases, metadata services and admin listeners that trust whoever can reach them."""
    assert not is_public(address)
