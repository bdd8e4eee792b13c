"""The one public port: knows the routes of the specs, and nothing else gets through.

Paths are matched as they came, byte for byte: no decoding, no dot segments, no trailing slash, so
no second spelling of a path can reach a function.  What a client says about who it is (other than
its token) and where it comes from is removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from shop.primitives.spec import FunctionSpec
from tools.local_platform.activator import Activator
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

BODY_BYTES_MAX = 64 * 1024 + 1024
LIVENESS = "/health/liveness"
PARAMETER = re.compile(r"\{[A-Za-z]+\}")
SEGMENT = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
PRIVATE = frozenset(("/events", "/metrics"))
HOP_BY_HOP = frozenset(
    b"connection keep-alive te trailer transfer-encoding upgrade proxy-connection "
    b"proxy-authenticate proxy-authorization content-length expect".split()
)
CLAIMS = (
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
    """What a path leads to: the function by method, empty for an unknown path."""

    functions: dict[str, str] = field(default_factory=dict)

    @property
    def allow(self) -> str:
        """The value of the Allow header."""
        extra = ("HEAD", "OPTIONS") if "GET" in self.functions else ("OPTIONS",)
        return ", ".join(sorted((*self.functions, *extra)))

    def function(self, method: str) -> str | None:
        """The function that serves a method; HEAD goes where GET goes."""
        return self.functions.get("GET" if method == "HEAD" else method)


class RouteTable:
    """Method and path to function; a path without parameters wins over one with."""

    def __init__(self, specs: Iterable[FunctionSpec]) -> None:
        self._literal: dict[str, Match] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], Match]] = {}
        for spec in specs:
            for route in spec.routes:
                if route.path not in PRIVATE:
                    self._place(route.path).functions[route.method] = spec.name

    def find(self, raw_path: str) -> Match:
        """The functions behind a path as it was on the wire."""
        if raw_path in self._literal:
            return self._literal[raw_path]
        for pattern, match in self._patterns.values():
            if pattern.fullmatch(raw_path):
                return match
        return Match()

    def _place(self, path: str) -> Match:
        if not PARAMETER.search(path):
            return self._literal.setdefault(path, Match())
        expression = SEGMENT.join(re.escape(part) for part in PARAMETER.split(path))
        return self._patterns.setdefault(expression, (re.compile(expression), Match()))[1]


def edge(
    routes: RouteTable,
    activator: Activator,
    activity_log: ActivityLog,
    on_traffic: Callable[[], None],
) -> Application:
    """The ASGI application of the public port."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        activity_log.count("requests")
        on_traffic()
        answer = await _answer(routes, activator, scope, receive)
        await reply(send, _without_hop_by_hop(answer), is_head=scope["method"] == "HEAD")

    return application


async def _answer(
    routes: RouteTable, activator: Activator, scope: Scope, receive: Receive
) -> HttpResponse:
    raw_path, method = scope["raw_path"].decode("latin-1"), scope["method"]
    if raw_path == LIVENESS and method in ("GET", "HEAD"):
        return HttpResponse(200, [(b"content-type", b"application/json")], b'{"status":"UP"}')
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
    return await activator.send(
        function, HttpRequest(method, _target(scope), forwarded(scope), body)
    )


def _target(scope: Scope) -> bytes:
    query: bytes = scope["query_string"]
    path: bytes = scope["raw_path"]
    return path + b"?" + query if query else path


def forwarded(scope: Scope) -> Headers:
    """The client's headers without its claims, and the addresses this request has come through.

    A name with an underscore is dropped: WSGI cannot tell it from the same name with a hyphen.
    """
    received: Headers = scope["headers"]
    listed = b",".join(value for name, value in received if name == b"connection").lower()
    dropped = HOP_BY_HOP | {token.strip() for token in listed.split(b",")}
    kept = [
        (name, value)
        for name, value in received
        if name not in dropped and b"_" not in name and not name.startswith(CLAIMS)
    ]
    hops = [value for name, value in received if name == b"x-forwarded-for"]
    hops.append(scope["client"][0].encode("ascii"))
    return [*kept, (b"x-forwarded-for", b", ".join(hops)), (b"x-forwarded-proto", b"http")]


def _without_hop_by_hop(answer: HttpResponse) -> HttpResponse:
    is_bodyless = answer.status in NO_BODY
    keep = (b"content-length",) if not is_bodyless else ()
    headers = [
        (name, value)
        for name, value in answer.headers
        if name in keep or name not in HOP_BY_HOP or (name, value) == (b"connection", b"close")
    ]
    return HttpResponse(answer.status, headers, answer.body)
