"""The simulator's adapter with faulty HTTP peers, and the factory of providers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from shop.adapters.payment_provider.factory import open_provider
from shop.adapters.payment_provider.protocol import ChargeCall, RefundCall
from shop.adapters.payment_provider.simulator import SimulatorProvider
from shop.adapters.payment_provider.stripe_currency import amount_from_stripe, amount_to_stripe
from shop.primitives.errors import Unavailable

CALL = ChargeCall(
    "shop:1", 10_000, "KRW", "CARD", "order", "payment", datetime(2100, 1, 1, tzinfo=UTC)
)
REFUND = RefundCall("refund:1", "shop:1", "ch_1", 10_000, "KRW")
INTENT: dict[str, Any] = {
    "key": "shop:1", "provider_ref": "ch_1", "status": "captured", "amount_minor": 10_000,
    "currency": "KRW", "reason": None,
}  # fmt: skip


Respond = Callable[[socket.socket], None]


@contextmanager
def peer(respond: Respond) -> Generator[str]:
    """A TCP server that reads one request per connection and then calls ``respond``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(65_536)
                        respond(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def responding(status: int, body: bytes) -> Respond:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return lambda connection: connection.sendall(head.encode() + body)


def provider_at(url: str, timeout_seconds: float = 5.0) -> SimulatorProvider:
    return SimulatorProvider(url=url, api_key="k", timeout_seconds=timeout_seconds)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 408, 409, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [json.dumps(INTENT).encode(), b"{}", b"<html>", b""])
def test_status_other_than_200_is_unknown_for_any_body(status: int, body: bytes) -> None:
    with peer(responding(status, body)) as url:
        assert provider_at(url).cancel(CALL).kind == "unknown"
        assert provider_at(url).refund(REFUND).kind == "unknown"
        with pytest.raises(Unavailable):
            provider_at(url).list_since("", 10)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 200_000, b'{"status":"fine"}', b"1" * 9000],
)
def test_200_with_an_invalid_body_is_unknown(body: bytes) -> None:
    with peer(responding(200, body)) as url:
        assert provider_at(url).find(CALL).kind == "unknown"
        assert provider_at(url).find_refund(REFUND).kind == "unknown"
        with pytest.raises(Unavailable):
            provider_at(url).list_since("", 10)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key": "shop:2"}, "another key"),
        ({"key": None}, "another key"),
        ({"amount_minor": 10_001}, "another amount"),
        ({"amount_minor": "10000"}, "another amount"),
        ({"amount_minor": 10_000.0}, "another amount"),
        ({"amount_minor": None}, "another amount"),
        ({"currency": "USD"}, "another currency"),
        ({"currency": None}, "another currency"),
        ({"provider_ref": None}, "no provider_ref"),
    ],
)
@pytest.mark.parametrize("status", ["captured", "declined"])
def test_response_with_another_or_invalid_field_is_a_mismatch(
    status: str, change: dict[str, Any], reason: str
) -> None:
    with peer(responding(200, json.dumps({**INTENT, "status": status, **change}).encode())) as url:
        outcome = provider_at(url).find(CALL)
    assert (outcome.kind, outcome.reason) == ("mismatch", reason)


def test_tombstone_of_another_key_is_a_mismatch() -> None:
    body = {**INTENT, "status": "voided", "amount_minor": None, "currency": None}
    with peer(responding(200, json.dumps(body).encode())) as url:
        assert provider_at(url).cancel(CALL).kind == "voided"
    with peer(responding(200, json.dumps({**body, "key": "shop:2"}).encode())) as url:
        assert provider_at(url).cancel(CALL).kind == "mismatch"


def test_response_over_the_limit_is_unknown() -> None:
    body = json.dumps({**INTENT, "more": "x" * 1_100_000}).encode()
    with peer(responding(200, body)) as url:
        outcome = provider_at(url).find(CALL)
    assert (outcome.kind, outcome.reason) == ("unknown", "response too long")


def test_closed_connection_or_cut_response_is_unknown() -> None:
    def cut(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")

    def close(_: socket.socket) -> None:
        return

    def send_other_protocol(connection: socket.socket) -> None:
        connection.sendall(b"hello\r\n\r\n")

    for respond in (close, cut, send_other_protocol):
        with peer(respond) as url:
            assert provider_at(url).charge(CALL).kind == "unknown"


@pytest.mark.parametrize("head", ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\n", ""])
def test_slow_peer_is_unknown_after_the_total_timeout(head: str) -> None:
    stop = threading.Event()

    def send_slowly(connection: socket.socket) -> None:
        if head:
            connection.sendall(f"{head}Content-Length: 5000\r\n\r\n".encode())
        while not stop.wait(0.02):
            connection.sendall(b" ")

    with peer(send_slowly) as url:
        started = time.monotonic()
        outcome = provider_at(url, timeout_seconds=0.3).find(CALL)
        elapsed = time.monotonic() - started
        stop.set()
    assert (outcome.kind, outcome.reason) == ("unknown", "timeout")
    assert elapsed < 2


def test_port_without_listener_is_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    outcome = provider_at(f"http://127.0.0.1:{port}").charge(CALL)
    assert (outcome.kind, outcome.reason) == ("unknown", "ConnectionRefusedError")


def test_name_that_does_not_resolve_is_unknown() -> None:
    assert provider_at("http://provider.invalid").charge(CALL).kind == "unknown"


@pytest.mark.parametrize(
    ("kind", "url", "api_key", "timeout_seconds"),
    [
        ("paypal", "http://h", "k", 1),
        ("sandbox", "", "k", 1),
        ("sandbox", "ftp://h", "k", 1),
        ("sandbox", "http://h", "", 1),
        ("sandbox", "http://h", "k", 0),
        ("stripe", "", "", 1),
    ],
)
def test_invalid_settings_raise_value_error(
    kind: str, url: str, api_key: str, timeout_seconds: float
) -> None:
    with pytest.raises(ValueError, match=r"PAYMENT_PROVIDER"):
        open_provider(kind, url, api_key, timeout_seconds)


def test_simulator_adapter_does_not_import_stripe_or_requests() -> None:
    code = (
        "import sys; from shop.adapters.payment_provider.factory import open_provider; "
        "open_provider('sandbox', 'http://h', 'k'); import shop.adapters.payment_provider.webhook; "
        "print(sorted({'stripe', 'requests', 'httpx', 'pydantic'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert printed.stdout.strip() == b"[]"


@pytest.mark.parametrize(
    ("amount_minor", "currency", "at_stripe"),
    [(10_000, "KRW", 10_000), (1_999, "USD", 1_999), (500, "ISK", 50_000), (7, "UGX", 700)],
)
def test_stripe_amount_converts_in_both_directions(
    amount_minor: int, currency: str, at_stripe: int
) -> None:
    assert amount_to_stripe(amount_minor, currency) == at_stripe
    assert amount_from_stripe(at_stripe, currency) == amount_minor


def test_currency_that_stripe_cannot_express_raises_value_error() -> None:
    with pytest.raises(ValueError, match="MGA"):
        amount_to_stripe(100, "MGA")
    assert amount_from_stripe(100, "MGA") is None
    assert amount_from_stripe(50_001, "ISK") is None
