"""A collector, a provider that keeps what it is asked, and processes of our own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.functions.test_runtime_processes import House
from tests.harness import cloned_database
from tests.tools.payment_simulator.simulator_process import SimulatorProcess
from tools.local_platform.function_environment import Endpoints
from tools.local_platform.secrets import Secrets


class Server:
    """A small HTTP server that answers POST and GET with ``answer``."""

    def __init__(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): text for name, text in self.headers.items()}
                status, answer = server.answer(self.command, self.path, headers, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        return 200, b""

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Collector(Server):
    """Takes OTLP and keeps it; ``hangs`` until told otherwise when it is told to."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: dict[str, Any] = {}
        self.resources: list[dict[str, str]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        super().__init__()

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        self.may_answer.wait(30)
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                attributes = resource.resource.attributes
                self.resources.append({a.key: a.value.string_value for a in attributes})
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        if path == "/v1/metrics":
            for each in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics |= {m.name: m for scope in each.scope_metrics for m in scope.metrics}
        return 200, b""

    def span(self, name: str) -> Any:
        """The one span of this name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found


class Overhearing(Server):
    """Passes everything on to the sandbox and keeps which story each request told."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self._behind = simulator.url.split("//")[1]
        self.asked: list[tuple[str, str]] = []
        super().__init__()

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        self.asked.append((path, headers.get("traceparent", "")))
        connection = HTTPConnection(self._behind, timeout=10)
        passed = {n: headers[n] for n in ("authorization", "content-type") if n in headers}
        connection.request(method, path, body or None, passed)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, answer


@pytest.fixture
def collector() -> Iterator[Collector]:
    """An OTLP endpoint."""
    made = Collector()
    yield made
    made.may_answer.set()
    made.close()


@pytest.fixture
def overhearing(simulator: SimulatorProcess) -> Iterator[Overhearing]:
    """The provider, with an ear in between."""
    made = Overhearing(simulator)
    yield made
    made.close()


@pytest.fixture(scope="module")
def house(
    postgres_url: str,
    template_url: str,
    redis_url: str,
    simulator: SimulatorProcess,
    secrets: Secrets,
) -> Iterator[House]:
    """Where real processes run, on a database of the module's own."""
    with cloned_database(postgres_url, template_url) as url:
        yield House(
            Endpoints(
                admin_url=url,
                redis_url=redis_url,
                broker_url="",
                provider_url=simulator.url,
                secrets=secrets,
                has_own_database=True,
            )
        )
