"""tools.tick: sends a signed tick over HTTP."""

from __future__ import annotations

import io
import json
import ssl
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from shop.adapters import connection_attempts
from shop.primitives.http_limits import edge_seconds
from shop.registry import all_specs
from shop.runtime.wsgi import wsgi
from tests.counting_proxy import CountingProxy
from tests.harness import ShopHarness
from tests.ledger_postings import insert_posting
from tests.tools.local_platform.function_server import function_server
from tools.local_platform.servers import free_port
from tools.tick import TIMEOUT_SECONDS, main


class _NoLogHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: the app logs each request."""


def _with_bounded_body(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The app with a request body that ends at Content-Length, which wsgiref does not provide."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        return app({**environ, "wsgi.input": io.BytesIO(body)}, start_response)

    return application


def self_signed_certificate(folder: Path) -> Path:
    """A file with a certificate of localhost and its private key."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).add_extension(
        names, critical=False
    )
    certificate = builder.not_valid_after(now + timedelta(hours=1)).sign(key, None)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return file


@contextmanager
def served(shop: ShopHarness, function: str, certificate: Path | None = None) -> Generator[str]:
    """Serves a function over HTTP, or over TLS with a certificate; yields the URL of its events."""
    app = _with_bounded_body(wsgi(shop.apps[function]))
    with make_server("127.0.0.1", 0, app, handler_class=_NoLogHandler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            scheme = "https" if certificate else "http"
            yield f"{scheme}://localhost:{server.server_port}/events"
        finally:
            server.shutdown()
            thread.join()


def test_tick_waits_for_the_longest_request_of_a_function_with_a_schedule() -> None:
    longest = max(edge_seconds(spec) for spec in all_specs() if spec.schedules)

    assert longest == TIMEOUT_SECONDS


@pytest.fixture
def clock(shop: ShopHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a clock."""
    monkeypatch.setenv("SHOP_PROFILE", "local")
    monkeypatch.setenv("EVENT_SIGNING_KEY", shop.secrets.event_keys["clock"])
    monkeypatch.setenv("EVENT_KEYS", shop.secrets.event_key_set)


@pytest.mark.usefixtures("clock")
def test_tick_closes_finished_days(shop: ShopHarness) -> None:
    insert_posting(shop, "CAPTURE", 10_000, "2026-02-01 12:00+09")

    with served(shop, "settle") as url:
        status = main(["close-days", url])

    assert status == 0
    assert shop.sql("select captures_minor from shop.settlements") == [{"captures_minor": 10_000}]


@pytest.mark.usefixtures("clock")
def test_tick_over_tls_verifies_the_certificate(
    shop: ShopHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_posting(shop, "CAPTURE", 10_000, "2026-02-01 12:00+09")
    certificate = self_signed_certificate(tmp_path)

    with served(shop, "settle", certificate) as url:
        unknown_issuer = main(["close-days", url])
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        status = main(["close-days", url])

    assert (unknown_issuer, status) == (1, 0)
    assert shop.sql("select captures_minor from shop.settlements") == [{"captures_minor": 10_000}]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("status", "exit_status"), [(202, 0), (200, 1), (503, 1)])
def test_tick_that_a_queue_accepted_exits_with_zero(
    status: int, exit_status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with function_server(status) as (pattern, received):
        url = pattern.replace("{name}@", "") + "/async-function/shop-sweep/events"

        assert main(["sweep", url, "--json"]) == exit_status

    assert json.loads(capsys.readouterr().out) == {"schedule": "sweep", "status": status}
    assert [headers[":path"] for headers in received] == ["/async-function/shop-sweep/events"]


@pytest.mark.usefixtures("clock")
def test_rejected_or_undelivered_tick_exits_with_one(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(shop, "settle") as url:
        unknown = main(["no-such-schedule", url])
        monkeypatch.setenv("EVENT_SIGNING_KEY", shop.secrets.event_keys["ordering"])
        foreign = main(["close-days", url])
    monkeypatch.setenv("EVENT_SIGNING_KEY", shop.secrets.event_keys["clock"])
    monkeypatch.setattr("tools.tick.CONNECT_SECONDS", 0.05)
    unreachable = main(["close-days", f"http://127.0.0.1:{free_port()}/events"])

    assert (unknown, unreachable) == (1, 1)
    assert "no response from" in capsys.readouterr().err
    assert foreign == 2


@pytest.mark.usefixtures("clock")
def test_tick_is_sent_when_the_port_of_the_function_opens_late(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for the pod of a Job whose NetworkPolicy is not programmed yet."""
    with served(shop, "settle") as url, ExitStack() as opened:
        port, late = urlsplit(url).port or 0, free_port()

        def open_port(_pause: float) -> None:
            opened.enter_context(CountingProxy("127.0.0.1", port, late))

        monkeypatch.setattr(connection_attempts, "sleep", open_port)

        assert main(["close-days", f"http://127.0.0.1:{late}/events"]) == 0


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("arguments", [[], ["close-days"], ["close-days", "ftp://else.example"]])
def test_invalid_arguments_exit_with_two(arguments: list[str]) -> None:
    assert main(arguments) == 2
