"""tools.tick: sends a signed tick over HTTP."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from shop.runtime.wsgi import wsgi
from tests.harness import ShopHarness
from tests.ledger_postings import insert_posting
from tools.local_platform.servers import free_port
from tools.tick import main


class _NoLogHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: the app logs each request."""


def _with_bounded_body(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The app with a request body that ends at Content-Length, which wsgiref does not provide."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        return app({**environ, "wsgi.input": io.BytesIO(body)}, start_response)

    return application


@contextmanager
def served(shop: ShopHarness, function: str) -> Generator[str]:
    """Serves a function over HTTP; yields the URL of its events."""
    app = _with_bounded_body(wsgi(shop.apps[function]))
    with make_server("127.0.0.1", 0, app, handler_class=_NoLogHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/events"
        finally:
            server.shutdown()
            thread.join()


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
def test_rejected_or_undelivered_tick_exits_with_one(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(shop, "settle") as url:
        unknown = main(["no-such-schedule", url])
        monkeypatch.setenv("EVENT_SIGNING_KEY", shop.secrets.event_keys["ordering"])
        foreign = main(["close-days", url])
    monkeypatch.setenv("EVENT_SIGNING_KEY", shop.secrets.event_keys["clock"])
    unreachable = main(["close-days", f"http://127.0.0.1:{free_port()}/events"])

    assert (unknown, unreachable) == (1, 1)
    assert "no response from" in capsys.readouterr().err
    assert foreign == 2


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("arguments", [[], ["close-days"], ["close-days", "https://else.example"]])
def test_invalid_arguments_exit_with_two(arguments: list[str]) -> None:
    assert main(arguments) == 2
