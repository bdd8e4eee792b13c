"""Sends a message to an address that an administrator has entered, and to nothing of our networks.

A name is resolved once, every address is checked, and the connection is opened to the address that
was checked: a name that is resolved again could have another one.  SNI, the certificate's name and
``Host`` are those of the URL.  Redirects are not followed, and of a response only the head is read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from httptools import HttpParserError, HttpResponseParser

from events.records import frozen

if TYPE_CHECKING:
    from concurrent.futures import Executor

SECONDS_MAX = 10.0
HEAD_BYTES_MAX = 16 * 1024
LOGGED_CHARACTERS_MAX = 2_000
ADDRESSES_MAX = 3
# headers of responses that may hold a secret of the receiver's
NOT_LOGGED = (b"set-cookie", b"authorization", b"proxy-authorization", b"www-authenticate")

Network = IPv4Network | IPv6Network
# is_global misses these: metadata of Azure and Oracle, multicast, and IPv6 that contains IPv4
NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "168.63.129.16/32",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "224.0.0.0/4",
            "2001::/32",
            "2002::/16",
        ),
    )
)
# The only unicast addresses of IPv6 that are assigned (RFC 4291 section 2.4).  Outside of it are
# addresses that contain one of IPv4: mapped, compatible, translated (RFC 2765) and NAT64.
IPV6_PUBLIC = ip_network("2000::/3")


class DeliveryError(StrEnum):
    """Why a message got no response."""

    NAME_NOT_RESOLVED = "NAME_NOT_RESOLVED"
    ADDRESS_NOT_ALLOWED = "ADDRESS_NOT_ALLOWED"
    CONNECTION_FAILED = "CONNECTION_FAILED"
    TLS_FAILED = "TLS_FAILED"
    TIMEOUT = "TIMEOUT"
    INVALID_RESPONSE = "INVALID_RESPONSE"


class NotReachable(Exception):
    """A URL without an address to which it may be sent."""

    def __init__(self, reason: DeliveryError) -> None:
        super().__init__(reason)
        self.reason = reason


@frozen(kw_only=True)
class Reply:
    """What came back: a status and the head of the response, or the reason why there is none."""

    status: int | None = None
    error: DeliveryError | None = None
    head: str = ""
    milliseconds: int = 0

    @property
    def is_success(self) -> bool:
        """Whether the receiver has the message: it responded with a status of 200 to 299."""
        return self.status is not None and 200 <= self.status < 300


def is_allowed(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    """Whether messages may be sent to an address: a public one, or one of ``networks``."""
    if any(address in network for network in networks):
        return True
    if address.version == 6 and address not in IPV6_PUBLIC:
        return False
    return address.is_global and not any(address in network for network in NOT_PUBLIC)


def parse_networks(text: str) -> tuple[Network, ...]:
    """The networks of WEBHOOK_NETWORKS_ALLOWED."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


async def resolve(url: str, networks: Sequence[Network], executor: Executor) -> list[str]:
    """The addresses of a URL's host, of which every one must be allowed.

    Raises ``NotReachable``.  A resolver that does not respond takes a thread of the executor.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", port_of(parts)
    loop = asyncio.get_running_loop()
    call = loop.run_in_executor(executor, _addresses, host, port)
    try:
        async with asyncio.timeout(SECONDS_MAX):
            addresses = await call
    except (OSError, UnicodeError) as error:  # a TimeoutError is an OSError
        raise NotReachable(DeliveryError.NAME_NOT_RESOLVED) from error
    if not all(is_allowed(ip_address(address), networks) for address in addresses):
        raise NotReachable(DeliveryError.ADDRESS_NOT_ALLOWED)
    return addresses


def port_of(url: SplitResult) -> int:
    """The port of an http or https URL."""
    return url.port or (443 if url.scheme == "https" else 80)


def head_of(url: str, headers: Mapping[str, str], body: bytes) -> str:
    """The head of a request, up to and without the empty line."""
    parts = urlsplit(url)
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    lines = {
        "host": parts.netloc,
        **headers,
        "content-length": str(len(body)),
        "connection": "close",
    }
    return "\r\n".join(
        (f"POST {path} HTTP/1.1", *(f"{name}: {text}" for name, text in lines.items()))
    )


async def post(
    url: str, addresses: Sequence[str], head: str, body: bytes, *, context: ssl.SSLContext | None
) -> Reply:
    """Sends one message to the first of the addresses that can be connected; never raises.

    Takes ``SECONDS_MAX`` at most.  ``context`` is that of TLS, None for http.
    """
    started = monotonic()
    reply = Reply(error=DeliveryError.TIMEOUT)
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS_MAX):
            reply = await _post(urlsplit(url), addresses, head, body, context)
    milliseconds = int((monotonic() - started) * 1000)
    return Reply(status=reply.status, error=reply.error, head=reply.head, milliseconds=milliseconds)


async def _post(
    url: SplitResult,
    addresses: Sequence[str],
    head: str,
    body: bytes,
    context: ssl.SSLContext | None,
) -> Reply:
    writer: asyncio.StreamWriter | None = None
    try:
        reader, writer = await _connect(url, addresses, context)
        writer.write(head.encode("latin-1") + b"\r\n\r\n" + body)
        await writer.drain()
        return await _read_reply(reader)
    except (ssl.SSLError, ssl.CertificateError):
        return Reply(error=DeliveryError.TLS_FAILED)
    except TimeoutError:
        raise
    except (OSError, EOFError):
        return Reply(error=DeliveryError.CONNECTION_FAILED)
    except (HttpParserError, ValueError):
        return Reply(error=DeliveryError.INVALID_RESPONSE)
    finally:
        if writer is not None:
            writer.transport.abort()


async def _connect(
    url: SplitResult, addresses: Sequence[str], context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    name = url.hostname if context is not None else None
    failure: OSError = ConnectionError()
    for address in addresses[:ADDRESSES_MAX]:
        try:
            return await asyncio.open_connection(
                address, port_of(url), ssl=context, server_hostname=name
            )
        except (ssl.SSLError, TimeoutError):
            raise
        except OSError as error:
            failure = error
    raise failure


class _Head:
    """The head of the final response, as the parser reports it."""

    def __init__(self) -> None:
        self.is_complete = False
        self.lines: list[bytes] = []
        self._reason = b""
        self.parser = HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.lines = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() not in NOT_LOGGED:
            self.lines.append(name + b": " + value)

    def on_headers_complete(self) -> None:
        # statuses below 200 are interim (RFC 9110 section 15.2)
        self.is_complete = self.parser.get_status_code() >= 200


async def _read_reply(reader: asyncio.StreamReader) -> Reply:
    """The response's status and head; its body is not read."""
    head, size = _Head(), 0
    while not head.is_complete:
        data = await reader.read(4096)
        if not data:
            raise EOFError
        size += len(data)
        if size > HEAD_BYTES_MAX + 4096:
            raise ValueError("the head is too long")
        try:
            head.parser.feed_data(data)
        except HttpParserError:
            # what follows a complete head does not matter
            if not head.is_complete:
                raise
    status = head.parser.get_status_code()
    text = b"\r\n".join((f"HTTP {status}".encode(), *head.lines)).decode("latin-1")
    return Reply(status=status, head=text.replace("\0", "")[:LOGGED_CHARACTERS_MAX])


def _addresses(host: str, port: int) -> list[str]:
    """The distinct addresses of a host, in the order of preference; without their scopes."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))
