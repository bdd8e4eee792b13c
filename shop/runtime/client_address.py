"""The network of a client, which limits count by: an IPv4 address, or the /64 of an IPv6 address.

Proxies append the address that they saw to ``X-Forwarded-For`` or to ``Forwarded`` (RFC 7239), in
various forms: with a port, in brackets, quoted, or as an IPv4-mapped IPv6 address.  Only the
entries that trusted hops appended are used.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from shop.runtime import log

if TYPE_CHECKING:
    from shop.runtime.config import Settings
    from shop.runtime.http_messages import HttpRequest

# The bucket of all clients whose address cannot be read.
UNKNOWN = "unknown"

_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = re.compile(rf"({_BYTE}(?:\.{_BYTE}){{3}})(?::[0-9]{{1,5}})?")
IPV6 = re.compile(r"\[([0-9A-Fa-f:.]+)(?:%[^\]]*)?\](?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)(?:%.*)?")
# one element of Forwarded, and its parameter "for"; a quoted value may contain commas
ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
FOR = re.compile(r'(?i:(?:^|;)\s*for)=(?:"([^"]*)"|([^;\s]*))')

_has_warned = threading.Event()


def client_network(http_request: HttpRequest, settings: Settings) -> str:
    """The network that the outermost trusted hop saw; what clients wrote before it is ignored.

    The peer's without a trusted hop, or when fewer hops than trusted have appended an entry.
    """
    hops = _hops(http_request.headers.get(settings.forwarded_header, ""), settings)
    trusted = settings.trusted_hops
    return network_of(hops[-trusted] if 0 < trusted <= len(hops) else http_request.peer)


def network_of(address: str) -> str:
    """The network of an address in any of the forms above; ``UNKNOWN``, logged once, for others."""
    if match := IPV4.fullmatch(address):
        return match[1]
    network = _ipv6_network(address)
    if network is None:
        if not _has_warned.is_set():
            _has_warned.set()
            log.write("client_address_unreadable", limits="all such clients share one")
        return UNKNOWN
    return network


def _hops(header: str, settings: Settings) -> list[str]:
    if settings.forwarded_header == "x-forwarded-for":
        return [hop.strip() for hop in header.split(",") if hop.strip()]
    found = [FOR.search(element.strip()) for element in ELEMENT.findall(header) if element.strip()]
    return [(match[1] or match[2] or "") if match else "" for match in found]


def _ipv6_network(address: str) -> str | None:
    match = IPV6.fullmatch(address)
    if match is None:
        return None
    import ipaddress  # needed for IPv6 clients only

    try:
        parsed = ipaddress.IPv6Address(match[1] or match[2])
    except ValueError:
        return None
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))
