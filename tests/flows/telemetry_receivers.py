"""HTTP servers that receive telemetry: an OTLP collector and a recording proxy of the provider."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.tools.payment_simulator.simulator_process import SimulatorProcess


class HttpServer:
    """An HTTP server that responds to POST and GET with the result of ``respond``."""

    def __init__(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = b"".join(self._parts())
                headers = {name.lower(): text for name, text in self.headers.items()}
                status, payload = server.respond(self.command, self.path, headers, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def do_GET(self) -> None:
                self.do_POST()

            def _parts(self) -> Iterator[bytes]:
                """The body; Envoy sends it in chunks."""
                if self.headers.get("Transfer-Encoding") != "chunked":
                    yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    return
                while size := int(self.rfile.readline(), 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            def log_message(self, format: str, *args: object) -> None:
                """Logs nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def respond(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        return 200, b""

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


AnyMessage = TypeVar("AnyMessage", bound=Message)
IDS = ("traceId", "spanId", "parentSpanId")


def _parse(body: bytes, message: AnyMessage) -> AnyMessage:
    """OTLP's JSON by OpenTelemetry's own definition; an unknown member is an error.

    OTLP writes ids in hexadecimal, unlike the JSON of other protocol buffers (base64).
    """
    pairs = json.loads(body, object_pairs_hook=_with_ids_in_base64)
    return json_format.ParseDict(pairs, message)


def _with_ids_in_base64(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        name: base64.b64encode(bytes.fromhex(value)).decode() if name in IDS else value
        for name, value in pairs
    }


class Collector(HttpServer):
    """Stores received OTLP; does not respond while ``may_respond`` is cleared."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: dict[str, Metric] = {}
        self.resources: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.may_respond = threading.Event()
        self.may_respond.set()
        super().__init__()

    def respond(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        self.may_respond.wait(30)
        self.headers.append(headers)
        if path == "/v1/traces":
            assert headers["content-type"] == "application/json"
            for resource in _parse(body, ExportTraceServiceRequest()).resource_spans:
                attributes = resource.resource.attributes
                self.resources.append({a.key: a.value.string_value for a in attributes})
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        if path == "/v1/metrics":
            for each in _parse(body, ExportMetricsServiceRequest()).resource_metrics:
                self.metrics |= {m.name: m for scope in each.scope_metrics for m in scope.metrics}
        return 200, b""

    def span(self, name: str) -> Span:
        """The one span of this name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found


class RecordingProxy(HttpServer):
    """Forwards requests to the payment simulator and records their paths and ``traceparent``."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self._upstream = simulator.url.split("//")[1]
        self.requests: list[tuple[str, str]] = []
        super().__init__()

    def respond(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        self.requests.append((path, headers.get("traceparent", "")))
        connection = HTTPConnection(self._upstream, timeout=10)
        forwarded = {n: headers[n] for n in ("authorization", "content-type") if n in headers}
        connection.request(method, path, body or None, forwarded)
        response = connection.getresponse()
        payload = response.read()
        connection.close()
        return response.status, payload
