"""The client's network: every form that proxies write, and one bucket for the rest."""

# That a warning was logged is not visible otherwise.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import pytest

from shop.runtime import client_address
from shop.runtime.client_address import UNKNOWN, client_network, network_of
from shop.runtime.config import ForwardedHeader, Settings
from shop.runtime.http_messages import HttpRequest


def asked(header: str, text: str, *, peer: str = "198.51.100.9:1") -> HttpRequest:
    return HttpRequest("GET", "/", "", {header: text}, peer, lambda _: b"")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:49152", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:c000:201]:443", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:DB8:0:0:ffff::1", "2001:db8::/64"),
        ("[2001:db8::1]", "2001:db8::/64"),
        ("[2001:db8::1]:65535", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("[fe80::1%25eth0]:80", "fe80::/64"),
    ],
)
def test_network_of_an_address_with_and_without_port(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    "address",
    ["", "unknown", "_hidden", "256.0.0.1", "192.0.2.01", "192.0.2.1:", "192.0.2.1:1234567",
     "not:an:address", "[192.0.2.1]:80", "[::1", "::1]:80", "1" * 5_000, "example.com:80", "\n"],
)  # fmt: skip
def test_unreadable_addresses_share_one_bucket(address: str) -> None:
    assert network_of(address) == UNKNOWN


def test_unreadable_address_is_logged_once_and_without_its_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    client_address._has_warned.clear()

    for number in range(3):
        network_of(f"hunter{number}")

    (line,) = capsys.readouterr().out.splitlines()
    assert "client_address_unreadable" in line and "hunter" not in line


FORWARDED = 'for=203.0.113.66, for="[2001:db8:cafe::17]:4711";by="_a, b";proto=https'


@pytest.mark.parametrize(
    ("header", "text", "trusted", "network"),
    [
        ("x-forwarded-for", "203.0.113.66:1, 192.0.2.1:2", 1, "192.0.2.1"),
        ("x-forwarded-for", "203.0.113.66:1, 192.0.2.1:2", 2, "203.0.113.66"),
        ("x-forwarded-for", "203.0.113.66:1, 192.0.2.1:2", 3, "198.51.100.9"),
        ("x-forwarded-for", "192.0.2.1", 0, "198.51.100.9"),
        ("forwarded", FORWARDED, 1, "2001:db8:cafe::/64"),
        ("forwarded", FORWARDED, 2, "203.0.113.66"),
        ("forwarded", "proto=https;FOR=192.0.2.1:80 ; by=x", 1, "192.0.2.1"),
        ("forwarded", "for=192.0.2.1, proto=https", 1, UNKNOWN),
        ("forwarded", "for=unknown", 1, UNKNOWN),
        ("forwarded", 'x="for=192.0.2.1";for=_secret', 1, UNKNOWN),
        ("forwarded", "", 1, "198.51.100.9"),
    ],
)
def test_entry_of_the_outermost_trusted_hop_is_used(
    header: ForwardedHeader, text: str, trusted: int, network: str
) -> None:
    settings = Settings(trusted_hops=trusted, forwarded_header=header)

    assert client_network(asked(header, text), settings) == network


def test_only_the_configured_header_is_read() -> None:
    settings = Settings(trusted_hops=1)

    assert client_network(asked("forwarded", "for=192.0.2.1"), settings) == "198.51.100.9"
