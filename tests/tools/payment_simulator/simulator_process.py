"""The payment simulator as a process, a receiver of webhooks, and calls to send."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

from shop.adapters.payment_provider.protocol import ChargeCall, RefundCall
from shop.adapters.payment_provider.simulator import SimulatorProvider

API_KEY = "simulator-key-of-a-test"
SECRET = "webhook-secret-of-a-test"
WAIT_SECONDS = 10.0


class SimulatorProcess:
    """``python -m tools.payment_simulator`` on a free port, which can be killed and restarted."""

    def __init__(
        self, data: Path, webhook_url: str | None = None, public_url: str | None = None
    ) -> None:
        self.data = data
        self.webhook_url = webhook_url
        self.public_url = public_url
        self.start()

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tools.payment_simulator",
            "--port",
            "0",
            "--data",
            str(self.data),
        ]
        if self.webhook_url:
            command += ["--webhook-url", self.webhook_url]
        if self.public_url:
            command += ["--public-url", self.public_url]
        environment = {
            **os.environ,
            "PAYMENT_PROVIDER_API_KEY": API_KEY,
            "PAYMENT_WEBHOOK_SECRET": SECRET,
        }
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        assert ready.startswith("sandbox ready "), ready
        self.url = ready.split()[-1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(WAIT_SECONDS)

    def provider(self, timeout_seconds: float = 5.0) -> SimulatorProvider:
        return SimulatorProvider(url=self.url, api_key=API_KEY, timeout_seconds=timeout_seconds)

    def request(
        self, method: str, path: str, body: Any = None, *, api_key: str = API_KEY
    ) -> tuple[int, Any]:
        connection = HTTPConnection(self.url.split("//")[1], timeout=WAIT_SECONDS)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Authorization": f"Bearer {api_key}"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def set_faults(self, **settings: Any) -> None:
        status, response = self.request("POST", "/faults", settings)
        assert status == 200, response

    def act(self, path: str, **body: Any) -> dict[str, Any]:
        """What staff, customers or other shops do in the provider's dashboard."""
        status, response = self.request("POST", f"/dashboard/{path}", body)
        assert status == 200, response
        return response

    def records(self) -> dict[str, Any]:
        status, records = self.request("GET", "/records")
        assert status == 200
        return records

    def captures(self, key: str) -> int:
        entries = self.records()["entries"]
        return sum(entry["kind"] == "charge" and entry["key"] == key for entry in entries)


@contextmanager
def running_simulator(
    data: Path, webhook_url: str | None = None, public_url: str | None = None
) -> Generator[SimulatorProcess]:
    simulator = SimulatorProcess(data, webhook_url, public_url)
    try:
        yield simulator
    finally:
        simulator.stop(signal.SIGKILL)


class WebhookReceiver:
    """An HTTP server that records webhooks and responds with ``statuses``, then with 204."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((dict(self.headers), body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Does not log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/payments/webhook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.received]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def charge_call(
    payment_method: str = "CARD",
    amount_minor: int = 10_000,
    charge_not_after: datetime | None = None,
    key: str | None = None,
) -> ChargeCall:
    payment_id = str(uuid4())
    return ChargeCall(
        key=key or f"shop:{payment_id}",
        amount_minor=amount_minor,
        currency="KRW",
        payment_method=payment_method,
        order_id=str(uuid4()),
        payment_id=payment_id,
        charge_not_after=charge_not_after or datetime(2100, 1, 1, tzinfo=UTC),
    )


def refund_call(call: ChargeCall, provider_ref: str, amount_minor: int) -> RefundCall:
    return RefundCall(f"refund:{uuid4()}", call.key, provider_ref, amount_minor, call.currency)
