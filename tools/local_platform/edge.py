"""The public HTTP port: forwards requests on the routes of the specs to their functions.

Paths are compared byte for byte: no decoding, no dot segments, no trailing slash, so a path has
exactly one spelling.  Headers in which a client claims an identity or an origin are removed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from shop.primitives.cors import response_headers
from shop.primitives.spec import FunctionSpec
from tools.local_platform.activator import Activator
from tools.local_platform.activities import Activity, ActivityKind
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.http_listener import (
    NO_BODY,
    Application,
    Receive,
    Scope,
    Send,
    TooLarge,
    read_body,
    reply,
)
from tools.local_platform.http_messages import Headers, HttpRequest, HttpResponse
from tools.local_platform.problem import problem
from tools.render.envoy import HEADERS_KIB_MAX

HEADERS_COUNT_MAX = 100
# of a path in the live view
DETAIL_LENGTH_MAX = 80
# RFC 9110 section 7.2: a name or an address, with or without a port
HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
BODY_BYTES_MAX = 64 * 1024 + 1024
# /actuator is where clients of the replaced system look; only the edges for development serve it
HEALTH = ("/health/liveness", "/actuator/health")
METRICS = "/actuator/prometheus"
PARAMETER = re.compile(r"\{[A-Za-z]+\}")
SEGMENT = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
PRIVATE = frozenset(("/events", "/metrics"))
HOP_BY_HOP = frozenset(
    b"connection keep-alive te trailer transfer-encoding upgrade proxy-connection "
    b"proxy-authenticate proxy-authorization content-length expect".split()
)
IDENTITY_HEADERS = (
    b"forwarded",
    b"x-forwarded",
    b"x-user",
    b"x-role",
    b"x-auth",
    b"x-real-ip",
    b"x-original-",
    b"x-rewrite-",
    b"x-http-method",
    b"x-method-override",
)


@dataclass(frozen=True)
class Match:
    """The functions of a path by method; empty for an unknown path."""

    functions: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def allow(self) -> str:
        """The value of the Allow header."""
        extra = ("HEAD", "OPTIONS") if "GET" in self.functions else ("OPTIONS",)
        return ", ".join(sorted((*self.functions, *extra)))

    def function(self, method: str) -> str | None:
        """The function that serves a method; HEAD is served by the function of GET."""
        return self.functions.get("GET" if method == "HEAD" else method)


class RouteTable:
    """Maps method and path to a function; literal paths take precedence over patterns."""

    def __init__(self, specs: Iterable[FunctionSpec]) -> None:
        self._literal: dict[str, Match] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], Match]] = {}
        for spec in specs:
            for route in spec.routes:
                if route.path not in PRIVATE:
                    self._match_for(route.path).functions[route.method] = spec.name

    def find(self, raw_path: str) -> Match:
        """The functions of an undecoded path."""
        if raw_path in self._literal:
            return self._literal[raw_path]
        for pattern, match in self._patterns.values():
            if pattern.fullmatch(raw_path):
                return match
        return Match()

    def _match_for(self, path: str) -> Match:
        if not PARAMETER.search(path):
            return self._literal.setdefault(path, Match())
        expression = SEGMENT.join(re.escape(part) for part in PARAMETER.split(path))
        return self._patterns.setdefault(expression, (re.compile(expression), Match()))[1]


def edge(
    routes: RouteTable,
    activator: Activator,
    activity_log: ActivityLog,
    on_traffic: Callable[[], None],
    cors_origins: frozenset[str] = frozenset(),
) -> Application:
    """The ASGI application of the public port.

    Scripts of ``cors_origins`` may read its own responses, as functions allow for theirs.
    """

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        activity_log.count("requests")
        on_traffic()
        response = _own_resource(activity_log, scope)
        if response is None:
            began = time.monotonic()
            response = await _respond(routes, activator, scope, receive)
            activity_log.observe(_activity(routes, scope, response, time.monotonic() - began))
        if cors_origins:
            response = _with_cors(response, cors_origins, scope)
        await reply(send, _without_hop_by_hop(response), is_head=scope["method"] == "HEAD")

    return application


def _activity(routes: RouteTable, scope: Scope, response: HttpResponse, seconds: float) -> Activity:
    """The request by its function, not by its path, of which there is an unlimited number."""
    function = routes.find(scope["raw_path"].decode("latin-1")).function(scope["method"]) or ""
    return Activity(
        kind=ActivityKind.REQUEST,
        function=function,
        subject=scope["method"],
        code=response.status,
        seconds=seconds,
        detail=scope["raw_path"].decode("latin-1")[:DETAIL_LENGTH_MAX],
    )


def _with_cors(response: HttpResponse, origins: frozenset[str], scope: Scope) -> HttpResponse:
    """The response with the headers of CORS that it does not have yet."""
    received = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    present = {name.lower() for name, _ in response.headers}
    added = [
        (name.encode(), value.encode())
        for name, value in response_headers(origins, scope["method"], received).items()
        if name.encode() not in present
    ]
    return HttpResponse(response.status, [*response.headers, *added], response.body)


def _own_resource(activity_log: ActivityLog, scope: Scope) -> HttpResponse | None:
    """The response to a request for the edge's own health or counters, None for another."""
    raw_path = scope["raw_path"].decode("latin-1")
    if scope["method"] not in ("GET", "HEAD"):
        return None
    if raw_path in HEALTH:
        return HttpResponse(200, [(b"content-type", b"application/json")], b'{"status":"UP"}')
    if raw_path == METRICS:
        media_type = b"text/plain; version=0.0.4; charset=utf-8"
        return HttpResponse(200, [(b"content-type", media_type)], activity_log.metrics().encode())
    return None


async def _respond(
    routes: RouteTable, activator: Activator, scope: Scope, receive: Receive
) -> HttpResponse:
    raw_path, method = scope["raw_path"].decode("latin-1"), scope["method"]
    if refused := _refused_head(scope["headers"], raw_path):
        return refused
    match = routes.find(raw_path)
    if not match.functions:
        return problem(404, "NOT_FOUND", "There is nothing at this path", raw_path)
    if method == "OPTIONS":
        return HttpResponse(204, [(b"allow", match.allow.encode())])
    function = match.function(method)
    if function is None:
        return problem(
            405, "METHOD_NOT_ALLOWED", f"{method} is not possible here", raw_path, allow=match.allow
        )
    try:
        body = await read_body(receive, BODY_BYTES_MAX)
    except TooLarge:
        return problem(
            413, "TOO_LARGE", "The body is longer than 64 KiB", raw_path, connection="close"
        )
    except TimeoutError:
        return problem(
            408, "REQUEST_TIMEOUT", "The body did not arrive in time", raw_path, connection="close"
        )
    request = HttpRequest(method, _target(scope), _forwarded_headers(scope), body)
    return await _send_while_connected(activator, function, request, receive)


async def _send_while_connected(
    activator: Activator, function: str, request: HttpRequest, receive: Receive
) -> HttpResponse:
    """The function's response; drops the request when the client disconnects before it.

    A request that has not begun then does not run: the queue forgets it, or the function sees that
    its connection was closed.
    """
    sending = asyncio.ensure_future(activator.send(function, request))
    leaving = asyncio.ensure_future(receive())  # after the body the next message is a disconnect
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            return HttpResponse(499)  # nginx's status of a client that left; nothing is sent
        return await sending
    finally:
        sending.cancel()
        leaving.cancel()


def _refused_head(headers: Headers, raw_path: str) -> HttpResponse | None:
    """400 or 431 for headers that the edge of a deployment rejects (``tools.render.envoy``)."""
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
        return problem(400, "BAD_REQUEST", "One valid Host is needed", raw_path, connection="close")
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    if size > HEADERS_KIB_MAX * 1024 or len(headers) > HEADERS_COUNT_MAX:
        return problem(
            431, "HEADERS_TOO_LARGE", "The headers are too long", raw_path, connection="close"
        )
    return None


def _target(scope: Scope) -> bytes:
    query: bytes = scope["query_string"]
    path: bytes = scope["raw_path"]
    return path + b"?" + query if query else path


def _forwarded_headers(scope: Scope) -> Headers:
    """The client's headers without identity headers, and with ``x-forwarded-for`` extended.

    A name with an underscore is dropped: WSGI maps it to the same name with a hyphen.
    """
    received: Headers = scope["headers"]
    listed = b",".join(value for name, value in received if name == b"connection").lower()
    dropped = HOP_BY_HOP | {token.strip() for token in listed.split(b",")}
    kept = [
        (name, value)
        for name, value in received
        if name not in dropped and b"_" not in name and not name.startswith(IDENTITY_HEADERS)
    ]
    hops = [value for name, value in received if name == b"x-forwarded-for"]
    hops.append(scope["client"][0].encode("ascii"))
    return [*kept, (b"x-forwarded-for", b", ".join(hops)), (b"x-forwarded-proto", b"http")]


def _without_hop_by_hop(response: HttpResponse) -> HttpResponse:
    is_bodyless = response.status in NO_BODY
    keep = (b"content-length",) if not is_bodyless else ()
    headers = [
        (name, value)
        for name, value in response.headers
        if name in keep or name not in HOP_BY_HOP or (name, value) == (b"connection", b"close")
    ]
    return HttpResponse(response.status, headers, response.body)
