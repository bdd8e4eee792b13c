"""The rendered Envoy configuration in front of function processes: what it forwards and rejects."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from shop.api_keys import SHOWN_LENGTH, new_key
from shop.primitives.http_limits import EDGE_TIMEOUT
from shop.registry import all_specs
from shop.runtime import trace
from tests.flows.envoy_process import ENVOY, Edge, echo, edge
from tests.flows.telemetry_receivers import HttpServer
from tests.flows.test_cors import (
    MAY_CALL,
    MAY_NOT,
    MAY_READ,
    OTHER,
    OURS,
    PREFLIGHT,
    cors_in,
)
from tests.function_process import ProcessHarness, running_function
from tests.harness import cloned_database
from tests.tools.payment_simulator.simulator_process import SimulatorProcess
from tests.waiting import wait_for
from tools.local_platform.function_environment import Endpoints
from tools.local_platform.secrets import Secrets
from tools.render.envoy import BODY_BYTES_MAX, CLAIMS, render

ROOT = Path(__file__).resolve().parents[2]
TRACE = "0af7651916cd43dd8448eb211c80319c"
JWKS = "/.well-known/jwks.json"
# Envoy exports spans once it has so many, or after five seconds.
FLUSHED_SPANS = 5
REAL = ("login", "cart", "list_products")
ECHOING = "api_docs"


@dataclass
class Front:
    """An Envoy edge, accounts to call it with, and the paths that reached the echo function."""

    edge: Edge
    processes: ProcessHarness
    seen: list[str]

    def headers(self, **sent: str) -> dict[str, str]:
        """The headers that arrive for these."""
        status, _, body = self.edge.request("GET", "/api-docs", headers=sent)
        assert status == 200, body
        arrived: dict[str, str] = json.loads(body)["headers"]
        return arrived


@pytest.fixture(scope="module")
def front(
    postgres_url: str,
    template_url: str,
    redis_url: str,
    simulator: SimulatorProcess,
    secrets: Secrets,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    with ExitStack() as stack:
        processes = ProcessHarness(
            Endpoints(
                admin_url=stack.enter_context(cloned_database(postgres_url, template_url)),
                redis_url=redis_url,
                broker_url="",
                provider_url=simulator.url,
                secrets=secrets,
                has_own_database=True,
            )
        )
        port, seen = stack.enter_context(echo())
        addresses = {ECHOING: port}
        for name in REAL:
            function = stack.enter_context(
                running_function("container", name, processes.environment(name))
            )
            addresses[name] = function.port
        folder = tmp_path_factory.mktemp("edge")
        yield Front(stack.enter_context(edge(folder, addresses)), processes, seen)


def problem(answer: tuple[int, dict[str, str], bytes]) -> dict[str, Any]:
    """The problem document of an error response of the edge."""
    status, headers, body = answer
    document: dict[str, Any] = json.loads(body)
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"
    assert set(document) == {
        "type", "title", "status", "detail", "instance", "error", "message",
    }  # fmt: skip
    assert document["status"] == status
    return document


@pytest.mark.parametrize("path", render(), ids=str)
def test_envoy_accepts_the_rendered_configuration(path: Path) -> None:
    checked = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", str(ROOT / path), "-l", "warning"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
    assert "eprecated" not in checked.stderr


def test_envoy_rejects_a_broken_configuration(tmp_path: Path) -> None:
    text = (ROOT / "infra/edge/envoy.yaml").read_text()
    (tmp_path / "broken.yaml").write_text(text.replace("max_request_bytes", "max_request_byte"))

    checked = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", str(tmp_path / "broken.yaml")],
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert checked.returncode != 0


def test_public_route_reaches_its_function(front: Front) -> None:
    status, headers, body = front.edge.request("GET", "/products?limit=1")

    assert (status, len(json.loads(body))) == (200, 1)
    assert "server" not in headers
    assert not [name for name in headers if name.startswith("x-envoy")]


def test_valid_token_reaches_a_protected_route(front: Front) -> None:
    status, _, body = front.edge.request("GET", "/cart", headers=front.processes.customer())

    assert status == 200, body


@pytest.mark.parametrize("kind", ["none", "nonsense", "altered", "unsigned", "in the query"])
def test_invalid_token_gets_401_from_the_edge(front: Front, kind: str) -> None:
    head, body, signature = front.processes.customer()["Authorization"].split(".")
    none = "Bearer eyJhbGciOiJub25lIn0"
    tokens = {
        "nonsense": "Bearer a.b.c",
        "altered": f"{head}.{body}.{signature[:-6]}AAAAAA",
        "unsigned": f"{none}.{body}.",
    }
    path = "/cart"
    if kind == "in the query":
        path += "?access_token=" + f"{head}.{body}.{signature}".removeprefix("Bearer ")
    headers = {"Authorization": tokens[kind]} if kind in tokens else {}

    answer = front.edge.request("GET", path, headers=headers)

    document = problem(answer)
    assert (answer[0], document["error"], document["instance"]) == (401, "UNAUTHENTICATED", "/cart")
    assert answer[1]["www-authenticate"].startswith("Bearer")
    assert front.edge.line("/cart", 401)["why"].startswith("jwt_authn")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_scheme_of_a_token_is_compared_without_case(front: Front, scheme: str) -> None:
    token = front.processes.customer()["Authorization"].removeprefix("Bearer ")
    key = api_key_of(front, "cart:read")

    for credential in (token, key):
        sent = {"Authorization": f"{scheme} {credential}"}
        assert front.edge.request("GET", "/cart", headers=sent)[0] == 200


def api_key_of(front: Front, scope: str) -> str:
    """The API key of a new account, for one scope."""
    front.processes.customer()
    key = new_key()
    ((session_id,),) = front.processes.sql(
        "select session_id from shop.sessions order by user_id desc limit 1"
    )
    front.processes.sql(
        "insert into shop.api_keys (key_hash, session_id, prefix, scopes) values (%s, %s, %s, %s)",
        hashlib.sha256(key.encode()).digest(),
        session_id,
        key[:SHOWN_LENGTH],
        [scope],
    )
    return key


def test_api_key_is_checked_by_the_function_and_not_by_the_edge(front: Front) -> None:
    key = api_key_of(front, "cart:read")

    allowed = front.edge.request("GET", "/cart", headers={"Authorization": f"Bearer {key}"})
    other = front.edge.request("DELETE", "/cart", headers={"Authorization": f"Bearer {key}"})
    unknown = front.edge.request("GET", "/cart", headers={"Authorization": f"Bearer {new_key()}"})

    assert allowed[0] == 200, allowed
    assert (other[0], json.loads(other[2])["error"]) == (403, "INSUFFICIENT_SCOPE")
    assert (unknown[0], json.loads(unknown[2])["error"]) == (401, "UNAUTHENTICATED")
    assert front.edge.line("/cart", 403)["why"] == "via_upstream"


@pytest.mark.parametrize(
    "almost",
    ["msk_short", "msk_{key}x", "{key}.a.b", "xmsk_{key}", "msk_{key} x", "Bearer msk_{key}"],
)
def test_what_only_resembles_an_api_key_gets_401_from_the_edge(front: Front, almost: str) -> None:
    credential = almost.format(key=new_key().removeprefix("msk_"))
    path = "/cart/summary"

    answer = front.edge.request("GET", path, headers={"Authorization": f"Bearer {credential}"})

    assert (answer[0], problem(answer)["error"]) == (401, "UNAUTHENTICATED")
    assert front.edge.line(path, 401)["why"].startswith("jwt_authn")


def test_second_credential_does_not_hide_behind_an_api_key(front: Front) -> None:
    key = api_key_of(front, "cart:read")
    sent = b"".join(
        b"Authorization: %s\r\n" % value for value in (f"Bearer {key}".encode(), b"Bearer a.b.c")
    )

    received = front.edge.send_bytes(
        b"GET /cart HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n" + sent + b"\r\n"
    )

    assert received.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/events", "/metrics", "/stats/prometheus", "/_/health", "/products/",
        "//products",
        "/orders/../products", "/./products", "/products/..;/cart", "/Products",
        "/api-docs/.hidden",
        "/products%20", "/%70roducts", "/api-docs/a%2fb", "/api-docs\\a",
    ],
)  # fmt: skip
def test_other_paths_are_not_forwarded_in_any_spelling(front: Front, path: str) -> None:
    before = len(front.seen)

    answer = front.edge.request("GET", path)

    assert answer[0] in (400, 404), answer
    assert problem(answer)["error"] in ("NOT_FOUND", "BAD_REQUEST")
    assert len(front.seen) == before


def test_every_route_of_the_specs_is_forwarded(front: Front) -> None:
    """Routes of functions that do not run get 503, which an unknown route does not get."""
    for spec in all_specs():
        for route in spec.routes:
            if spec.name in (*REAL, ECHOING):
                continue
            path = re.sub(r"\{\w+\}", "7", route.path)
            answer = front.edge.request(route.method, path, b"{}", front.processes.customer())
            document = problem(answer)
            assert (answer[0], document["error"]) == (503, "UNAVAILABLE"), f"{route.method} {path}"
            assert answer[1]["retry-after"] == "1"


def test_unsupported_method_gets_405_with_the_allowed_methods(front: Front) -> None:
    refused = front.edge.request("PUT", "/products")
    asked = front.edge.request("OPTIONS", "/products")

    assert (refused[0], problem(refused)["error"]) == (405, "METHOD_NOT_ALLOWED")
    assert (asked[0], asked[2]) == (204, b"")
    assert refused[1]["allow"] == asked[1]["allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize("claim", CLAIMS)
def test_identity_headers_of_a_client_are_removed(front: Front, claim: str) -> None:
    name = (claim + ("id" if claim.endswith("-") else "")).title()

    arrived = front.headers(**{name: "1", f"{name}-Name": "admin", "X_User_Id": "1"})

    claimed = [header for header in arrived if header.startswith(claim) or "_" in header]
    own = {EDGE_TIMEOUT} if claim == "x-envoy-" else set[str]()
    assert set(claimed) == own, "the edge states its own timeout"


def test_function_learns_how_long_the_edge_waits(front: Front) -> None:
    arrived = front.headers(**{EDGE_TIMEOUT: "1"})

    assert arrived[EDGE_TIMEOUT] == "45000"


def test_peer_address_is_appended_to_x_forwarded_for(front: Front) -> None:
    arrived = front.headers(**{"X-Forwarded-For": "203.0.113.9"})

    # for a peer on its own machine Envoy names the machine's address, not the loopback's
    claimed, peer = arrived["x-forwarded-for"].replace(" ", "").split(",")
    assert claimed == "203.0.113.9"
    assert ip_address(peer) != ip_address(claimed)
    assert arrived["x-forwarded-proto"] == "http"


def test_trace_context_of_the_client_is_forwarded_and_logged(front: Front) -> None:
    arrived = front.headers(traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    own = front.headers()
    sent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    front.edge.request("GET", "/api-docs/app.js?token=secret", headers=sent)

    line = front.edge.line("/api-docs/app.js", 200)

    assert arrived["traceparent"].split("-")[1] == TRACE
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", own["traceparent"])
    assert (line["trace"], line["status"], line["client"]) == (TRACE, 200, "127.0.0.1")
    assert "secret" not in json.dumps(line)


class SpanReceiver(HttpServer):
    """Stores the names of spans in OTLP's binary form, which Envoy exports."""

    def __init__(self) -> None:
        self.services: set[str] = set()
        self.spans: list[str] = []
        super().__init__()

    def respond(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        assert (method, path) == ("POST", "/v1/traces")
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.services.add(attributes["service.name"])
            self.spans += [span.name for scope in resource.scope_spans for span in scope.spans]
        return 200, b""


@pytest.fixture
def span_receiver() -> Iterator[SpanReceiver]:
    made = SpanReceiver()
    yield made
    made.close()


@pytest.mark.parametrize("has_collector", [True, False])
def test_edge_exports_its_spans_only_where_a_collector_is_configured(
    secrets: Secrets, tmp_path: Path, span_receiver: SpanReceiver, *, has_collector: bool
) -> None:
    address = ("127.0.0.1", span_receiver.port)
    with echo({JWKS: secrets.jwks}) as (port, _):
        addresses = {spec.name: port for spec in all_specs()}
        with edge(tmp_path, addresses, collector=address if has_collector else None) as front:
            answers = [front.request("GET", "/api-docs")[0] for _ in range(FLUSHED_SPANS)]
            if has_collector:
                wait_for(lambda: len(span_receiver.spans) >= FLUSHED_SPANS, "the edge's spans")
            logged = front.log.with_suffix(".err").read_text()

    assert answers == [200] * FLUSHED_SPANS
    assert span_receiver.services == ({"edge"} if has_collector else set())
    assert logged == ""


@pytest.mark.parametrize("sent", ["", f"00-{TRACE[1:]}-b7ad6b7169203331-01", "01"])
def test_edge_starts_a_trace_for_a_request_without_a_valid_one(front: Front, sent: str) -> None:
    path = f"/api-docs/trace{len(sent)}"
    answer = front.edge.request("GET", path, headers={"traceparent": sent} if sent else {})
    arrived = json.loads(answer[2])["headers"]["traceparent"]

    assert trace.id_of(arrived) == front.edge.line(path, 200)["trace"]


def test_body_above_64_kib_gets_413_from_the_edge(front: Front) -> None:
    long = front.edge.request("POST", "/auth/login", b"[" + b" " * BODY_BYTES_MAX)
    longest = front.edge.request("POST", "/auth/login", b"[" + b" " * (BODY_BYTES_MAX - 1))

    assert (long[0], problem(long)["error"]) == (413, "TOO_LARGE")
    assert (longest[0], json.loads(longest[2])["error"]) == (400, "BAD_JSON")


def test_edge_has_a_liveness_path(front: Front) -> None:
    status, headers, body = front.edge.request("GET", "/health/liveness")

    assert (status, json.loads(body)) == (200, {"status": "UP"})
    assert headers["content-type"] == "application/json"


def test_requests_above_the_rate_of_one_address_get_429(front: Front, tmp_path: Path) -> None:
    addresses = {"login": front.edge.place.address_of(_login())[1]}
    with edge(tmp_path, addresses, client_burst=20, client_per_second=1) as narrow:
        answers = [narrow.request("GET", "/health/liveness") for _ in range(60)]

    refused = [answer for answer in answers if answer[0] == 429]
    assert 30 <= len(refused) <= 40
    assert problem(refused[0])["error"] == "RATE_LIMITED"
    assert refused[0][1]["retry-after"] == "1"


def test_scripts_of_allowed_origins_may_call_functions_and_read_the_edges_own_errors(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", f"{OURS}, http://localhost:3000")
    place = front.edge.place
    ports = {spec.name: place.address_of(spec)[1] for spec in all_specs()}
    addresses = {name: ports[name] for name in ("login", ECHOING)}
    with edge(tmp_path, addresses) as allowing:
        for method, path, status in (
            ("GET", "/api-docs", 200),
            ("GET", "/cart", 401),
            ("GET", "/nothing", 404),
            ("DELETE", "/products", 405),
            ("GET", "/products", 503),
        ):
            for origin, expected in ((OURS, MAY_READ), (OTHER, MAY_NOT)):
                seen, headers, _ = allowing.request(method, path, headers={"origin": origin})
                assert (seen, cors_in(headers)) == (status, expected), (path, origin)
        for origin, expected in ((OURS, MAY_CALL), (OTHER, MAY_NOT)):
            asked = {"origin": origin, **PREFLIGHT}
            seen, headers, _ = allowing.request("OPTIONS", "/products/1", headers=asked)
            assert (seen, cors_in(headers)) == (204, expected), origin


def test_edge_sends_no_header_of_cors_by_default(front: Front) -> None:
    for method in ("GET", "OPTIONS"):
        asked = {"origin": OURS, **PREFLIGHT}
        _, headers, _ = front.edge.request(method, "/cart", headers=asked)
        assert cors_in(headers) == {}


def test_metrics_port_serves_metrics_and_no_admin_path(
    front: Front,
) -> None:
    metrics = Edge(front.edge.process, front.edge.place, front.edge.log)
    metrics.port = front.edge.place.metrics_port

    assert b"envoy_http_downstream_rq_total" in metrics.request("GET", "/stats/prometheus")[2]
    assert metrics.request("POST", "/quitquitquit")[0] == 404
    assert metrics.request("GET", "/config_dump")[0] == 404


def test_every_order_of_a_flood_was_answered_with_201(front: Front, tmp_path: Path) -> None:
    """What got an error does not run afterwards, and gets it at once."""
    processes = front.processes
    environment = processes.environment("place_order", OPEN_ORDERS_MAX="0")
    ((product,),) = processes.sql("select max(product_id) from shop.products")
    processes.sql("update shop.stock set on_hand = on_hand + 1000 where product_id = %s", product)
    order = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    customer = processes.customer()
    answers: list[tuple[int, dict[str, str], bytes]] = []
    with ExitStack() as stack:
        function = stack.enter_context(running_function("container", "place_order", environment))
        addresses = {
            "place_order": function.port,
            "login": front.edge.place.address_of(_login())[1],
        }
        flooded = stack.enter_context(edge(tmp_path, addresses, scales=False))
        before = processes.sql(ORDERS)[0][0]
        start = threading.Barrier(FLOOD)

        def place() -> None:
            start.wait(30)
            answers.append(flooded.request("POST", "/orders", order, customer))

        clients = [threading.Thread(target=place) for _ in range(FLOOD)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(60)
        created = [answer for answer in answers if answer[0] == 201]
        at_once = processes.sql(ORDERS)[0][0] - before
        assert flooded.request("POST", "/orders", order, customer)[0] == 201
        later = processes.sql(ORDERS)[0][0] - before

    assert len(answers) == FLOOD
    assert (at_once, later) == (len(created), len(created) + 1)
    for status, headers, body in answers:
        assert status in (201, 503), body
        assert status == 201 or headers["retry-after"] == "1"
    assert not [header for _, headers, _ in answers for header in headers if "envoy" in header]


FLOOD = 150
ORDERS = "select count(*) from shop.orders"


def _login() -> Any:
    return next(spec for spec in all_specs() if spec.name == "login")
