"""One process's functions: finds the route, applies the policies in order, answers.

Order of a request: health, limits, token, rate limit, JSON, schema, transaction, idempotency,
handler, answer, commit, publish.  Whatever is refused on the way becomes a problem document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

from events.records import frozen
from shop.primitives import failpoints
from shop.primitives.errors import ClientError, Unavailable
from shop.runtime import log, message_context, trace
from shop.runtime.http_messages import HttpRequest, HttpResponse, check_limits, problem
from shop.runtime.telemetry import Telemetry

if TYPE_CHECKING:
    from shop.primitives.spec import FunctionSpec, Route
    from shop.runtime.message_context import MessageContext
    from shop.runtime.services import Services

HEALTH_PATHS = frozenset({"/health/liveness", "/health/readiness", "/_/health", "/_/ready"})
EVENTS_PATH = "/events"
READING = ("GET", "HEAD", "OPTIONS")
SEGMENT = r"(?P<{}>[A-Za-z0-9._~-]{{1,200}})"
# Python has no type for these: a thread that cannot start, a library that cannot be loaded.
STARVED = ("can't start new thread", "failed to map segment", "Cannot allocate memory")
SECURITY_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


@frozen
class Operation:
    """A route of a function with its code: handler and models are imported when first needed."""

    spec: FunctionSpec
    route: Route
    pattern: re.Pattern[str]

    @cached_property
    def handler(self) -> Callable[..., Any]:
        """The function of ``handler.py`` that the route names."""
        handler: Callable[..., Any] = getattr(self._module("handler"), self.route.handler)
        return handler

    @cached_property
    def body_model(self) -> Any:
        """The model of the JSON body, or None."""
        return getattr(self._module("schema"), self.route.body) if self.route.body else None

    @cached_property
    def query_model(self) -> Any:
        """The model of the query string, or None."""
        return getattr(self._module("schema"), self.route.query) if self.route.query else None

    @property
    def scope(self) -> str:
        """The scope of idempotency keys: method and route."""
        return f"{self.route.method} {self.route.path}"

    def _module(self, name: str) -> Any:
        return import_module(f"functions.{self.spec.name}.{name}")


class App:
    """Answers every HTTP request of a process that serves one or more functions."""

    def __init__(self, specs: tuple[FunctionSpec, ...], services: Services) -> None:
        self.specs = specs
        self.services = services
        self._operations = [
            Operation(spec, route, _pattern(route.path)) for spec in specs for route in spec.routes
        ]
        self.telemetry = Telemetry(tuple(spec.name for spec in specs), services)
        # from the start of the process until it could answer; whoever serves us says it
        self.ready_seconds: float | None = None
        self._answered = False

    def warm(self) -> None:
        """Imports what the first request is sure to need.

        That is every handler, and the models where no route does without: pydantic costs 30 to
        45 ms that a first ``GET /orders/{orderId}`` need not wait for.
        """
        needs_models = all(op.route.body or op.route.query for op in self._operations)
        for operation in self._operations:
            _ = operation.handler
            if needs_models:
                _ = operation.body_model, operation.query_model
        for spec in self.specs:
            if spec.receives_events:
                import_module(f"functions.{spec.name}.handler")
                import_module("shop.runtime.event_pipeline")

    def answer(self, wire: HttpRequest) -> HttpResponse:
        """The answer to one request; never raises."""
        if wire.path in HEALTH_PATHS and wire.method in ("GET", "HEAD"):
            self.telemetry.probed()
            return HttpResponse(200, b'{"status":"UP"}', {"content-type": "application/json"})
        message = self.telemetry.begin(wire.method, wire.headers.get("traceparent", ""))
        message_context.begin(message)
        try:
            check_limits(wire)
            answer = self._find(wire, message)()
            if wire.method not in READING:
                failpoints.point("W6")
        except ClientError as refusal:
            answer = problem(refusal, instance=wire.path[:200])
        except Unavailable as error:
            answer = problem(unavailable(error), instance=wire.path[:200])
        except Exception as error:
            answer = problem(_as_refusal(error, message.route), instance=wire.path[:200])
        for name, text in SECURITY_HEADERS.items():
            answer.headers.setdefault(name, text)
        self._conclude(message, answer)
        return answer

    def _find(self, wire: HttpRequest, message: MessageContext) -> Callable[[], HttpResponse]:
        """What answers the request; notes the route that the log and the numbers name."""
        if wire.path == EVENTS_PATH and any(spec.receives_events for spec in self.specs):
            message.route = EVENTS_PATH
            return self._receiver(wire, message)
        matches = [(op, m) for op in self._operations if (m := op.pattern.fullmatch(wire.path))]
        if not matches:
            raise ClientError(404, "NOT_FOUND", "there is nothing at this path")
        # a literal segment wins over a parameter: /orders/me is not an order's id
        most_literal = max(op.route.path.count("/") - op.route.path.count("{") for op, _ in matches)
        matches = [
            (op, m)
            for op, m in matches
            if op.route.path.count("/") - op.route.path.count("{") == most_literal
        ]
        methods = sorted({op.route.method for op, _ in matches})
        if wire.method == "OPTIONS":
            return lambda: HttpResponse(204, headers={"allow": _allow(methods)})
        wanted = "GET" if wire.method == "HEAD" else wire.method
        for operation, match in matches:
            if operation.route.method == wanted:
                message.route, message.function = operation.scope, operation.spec.name
                return self._performer(wire, operation, match.groupdict(), message.traceparent)
        raise ClientError(
            405,
            "METHOD_NOT_ALLOWED",
            "this path has no such method",
            headers={"allow": _allow(methods)},
        )

    def _performer(
        self, wire: HttpRequest, operation: Operation, path: dict[str, str], traceparent: str
    ) -> Callable[[], HttpResponse]:
        from shop.runtime.http_pipeline import (
            handle_request,  # here: a receiver of events alone needs it not
        )

        return lambda: handle_request(self.services, operation, wire, path, traceparent)

    def _receiver(self, wire: HttpRequest, message: MessageContext) -> Callable[[], HttpResponse]:
        from shop.runtime.event_pipeline import (
            handle_delivery,  # here: most functions receive no events
        )

        allow = {"allow": _allow(["POST"])}
        if wire.method == "OPTIONS":
            return lambda: HttpResponse(204, headers=allow)
        if wire.method != "POST":
            raise ClientError(405, "METHOD_NOT_ALLOWED", "events are POSTed", headers=allow)
        return lambda: handle_delivery(self.services, self.specs, wire, message)

    def _conclude(self, message: MessageContext, answer: HttpResponse) -> None:
        """Ends the message: one line in the log, and the record for the numbers and the trace."""
        cold, self._answered = not self._answered, True
        message.finish(answer.status)
        if cold and self.ready_seconds is not None:
            # without the time that a process which was ready waited for somebody to come
            message.cold_start_seconds = self.ready_seconds + message.seconds
        log.write(
            "answered",
            function=message.function,
            method=message.method,
            route=message.route,
            status=answer.status,
            milliseconds=round(message.seconds * 1000, 1),
            trace=trace.id_of(message.traceparent),
            cold=cold or None,
            startup_ms=_milliseconds(message.cold_start_seconds),
            event=message.event_id,
            type=message.event_type,
            outcome=message.outcome,
            retry_after=answer.headers.get("retry-after"),
        )
        message_context.end()
        self.telemetry.finish(message)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def unavailable(error: Unavailable) -> ClientError:
    """The 503 a caller sees when something we stand on does not answer."""
    return ClientError(
        503,
        "UNAVAILABLE",
        error.message,
        headers={"retry-after": str(error.retry_after_seconds)},
    )


def _as_refusal(error: Exception, route: str) -> ClientError:
    """503 where this process has nothing left to work with, else 500; the log says which."""
    log.bug(error, route=route)
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in STARVED):
        return unavailable(Unavailable("this process has no memory or threads left"))
    return ClientError(500, "INTERNAL", "something went wrong on our side")


def _pattern(path: str) -> re.Pattern[str]:
    escaped = re.escape(path).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(re.sub(r"\{(\w+)\}", lambda m: SEGMENT.format(m[1]), escaped))


def _allow(methods: Sequence[str]) -> str:
    with_head = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return ", ".join(sorted(with_head))
