"""Messages to webhooks reach public addresses only, at the address that was checked."""

from __future__ import annotations

import asyncio
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest

from shop.primitives.webhook_signatures import headers_of
from shop.runtime import webhook_client
from shop.runtime.webhook_client import DeliveryError, NotReachable, is_allowed, parse_networks
from tests.certificates import write_self_signed
from tools.webhook_receiver import running_receiver

NAME = "hooks.example.kr"
PRIVATE = (
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.251",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:a9fe:a9fe",
    "::ffff:0:127.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::a00:1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
)


@pytest.mark.parametrize("address", PRIVATE)
def test_address_that_is_not_public_is_not_allowed(address: str) -> None:
    assert not is_allowed(ip_address(address), ())


@pytest.mark.parametrize("address", ["8.8.8.8", "211.249.220.24", "2606:4700::1111"])
def test_public_address_is_allowed(address: str) -> None:
    assert is_allowed(ip_address(address), ())


def test_network_that_is_allowed_allows_its_addresses_only() -> None:
    networks = parse_networks("127.0.0.0/8, fd00::/8")

    allowed = [a for a in PRIVATE if is_allowed(ip_address(a), networks)]

    assert allowed == ["127.0.0.1", "127.255.255.254", "fd00:ec2::254"]
    assert parse_networks("") == ()


def resolve(url: str) -> list[str]:
    with ThreadPoolExecutor(1) as executor:
        return asyncio.run(webhook_client.resolve(url, (), executor))


def test_name_with_one_address_that_is_not_public_is_not_reachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def two_addresses(_host: str, _port: int) -> list[str]:
        return ["8.8.8.8", "10.0.0.1"]

    monkeypatch.setattr(webhook_client, "_addresses", two_addresses)

    with pytest.raises(NotReachable) as refused:
        resolve(f"https://{NAME}/")

    assert refused.value.reason == DeliveryError.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "0",
        "127.1",
        "0177.0.0.1",
        "0x7f.1",
        "2130706433",
        "①②⑦.0.0.1",
        "[::1]",
        "[::]",
        "[::ffff:7f00:1]",
        "[::ffff:0:127.0.0.1]",
    ],
)
def test_every_spelling_of_the_own_machine_is_not_reachable(host: str) -> None:
    with pytest.raises(NotReachable) as refused:
        resolve(f"http://{host}/")

    assert refused.value.reason == DeliveryError.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize("host", ["[fe80::1%251]", "[fe80::1%1]", "[::1%251]"])
def test_address_with_a_zone_is_not_reachable(host: str) -> None:
    with pytest.raises(NotReachable):
        resolve(f"http://{host}/")


def test_name_that_does_not_exist_is_not_resolved() -> None:
    with pytest.raises(NotReachable) as refused:
        resolve("https://no-such-name.invalid/")

    assert refused.value.reason == DeliveryError.NAME_NOT_RESOLVED


def test_signature_is_that_of_the_published_example() -> None:
    # the test vector of the Standard Webhooks libraries
    headers = headers_of(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        [
            bytes.fromhex(
                "31f2 90f6 bf06 298a ab4f 08d4 3c3f 082c f648 a362 da2d a4b0".replace(" ", "")
            )
        ],
    )

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a key and a certificate of ``NAME``, signed by itself."""
    return write_self_signed(tmp_path / "receiver.pem", NAME)


class TlsReceiver:
    """Accepts one connection over TLS; records the name of its SNI and what was sent."""

    def __init__(self, certificate: Path) -> None:
        self.names: list[str | None] = []
        self.sent = b""
        self.port = 0
        self._listens = threading.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._context.sni_callback = lambda sock, name, context: self.names.append(name)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> TlsReceiver:
        self._thread.start()
        assert self._listens.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    async def _serve(self) -> None:
        done = asyncio.Event()

        async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.sent = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
            done.set()

        def failed(_loop: asyncio.AbstractEventLoop, _context: dict[str, object]) -> None:
            done.set()

        server = await asyncio.start_server(respond, "127.0.0.1", 0, ssl=self._context)
        asyncio.get_running_loop().set_exception_handler(failed)
        self.port = server.sockets[0].getsockname()[1]
        self._listens.set()
        async with asyncio.timeout(10):
            await done.wait()
        server.close()


def test_connection_is_pinned_to_the_address_and_keeps_the_name(certificate: Path) -> None:
    context = ssl.create_default_context(cafile=certificate)
    with TlsReceiver(certificate) as receiver:
        url = f"https://{NAME}:{receiver.port}/shop"
        head = webhook_client.head_of(url, {"webhook-id": "1"}, b"{}")
        reply = asyncio.run(webhook_client.post(url, ["127.0.0.1"], head, b"{}", context=context))

    assert (reply.status, reply.error) == (204, None)
    assert receiver.names == [NAME]
    assert f"host: {NAME}:{receiver.port}\r\n".encode() in receiver.sent


def test_certificate_of_another_name_gets_no_message(certificate: Path) -> None:
    context = ssl.create_default_context(cafile=certificate)
    with TlsReceiver(certificate) as receiver:
        url = f"https://other.example.kr:{receiver.port}/"
        head = webhook_client.head_of(url, {}, b"{}")
        reply = asyncio.run(webhook_client.post(url, ["127.0.0.1"], head, b"{}", context=context))
        # one that is trusted ends the receiver
        trusted = f"https://{NAME}:{receiver.port}/"
        asyncio.run(webhook_client.post(trusted, ["127.0.0.1"], head, b"{}", context=context))

    assert (reply.status, reply.error) == (None, DeliveryError.TLS_FAILED)


def test_second_address_is_used_when_the_first_one_refuses() -> None:
    with running_receiver() as receiver:
        url = receiver.url()
        head = webhook_client.head_of(url, {"webhook-id": "1"}, b"{}")
        reply = asyncio.run(
            webhook_client.post(url, ["127.0.0.9", "127.0.0.1"], head, b"{}", context=None)
        )

    assert reply.status == 204


def test_head_without_end_is_an_invalid_response() -> None:
    async def run() -> webhook_client.Reply:
        async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while not writer.transport.is_closing():
                writer.write(b"x-header: " + b"x" * 1000 + b"\r\n")
                await writer.drain()

        server = await asyncio.start_server(respond, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        head = webhook_client.head_of(url, {}, b"")
        reply = await webhook_client.post(url, ["127.0.0.1"], head, b"", context=None)
        server.close()
        return reply

    reply = asyncio.run(run())

    assert (reply.status, reply.error) == (None, DeliveryError.INVALID_RESPONSE)
