"""The application of one process: from an HTTP request to its response.

The policies of a request, in this order: health probes, size limits, routing, then those of
``http_pipeline`` or ``event_pipeline``.  Errors become problem documents, and every request one
line in the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from shop.primitives import failpoints
from shop.primitives.errors import (
    ClientError,
    Unavailable,
    is_out_of_resources,
    out_of_resources,
)
from shop.primitives.failpoints import Failpoint
from shop.runtime import log, message_context, trace
from shop.runtime.http_messages import (
    BrokenOff,
    HttpRequest,
    HttpResponse,
    check_limits,
    problem,
)
from shop.runtime.routing import Router, allow_header, method_not_allowed
from shop.runtime.telemetry import Telemetry
from shop.runtime.waiting import WaitingLimit, WaitingRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from shop.primitives.spec import FunctionSpec
    from shop.runtime.message_context import MessageContext
    from shop.runtime.services import Services

HEALTH_PATHS = frozenset({"/health/liveness", "/health/readiness", "/_/health", "/_/ready"})
EVENTS_PATH = "/events"
CLIENT_LEFT = 499  # in the log only, as of nginx
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SECURITY_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


class App:
    """Serves every HTTP request of a process that runs one or more functions."""

    def __init__(self, specs: tuple[FunctionSpec, ...], services: Services) -> None:
        self.specs = specs
        self.services = services
        self.telemetry = Telemetry(tuple(spec.name for spec in specs), services)
        # from the start of the process until it was ready, set by the server
        self.ready_seconds: float | None = None
        self.router = Router(specs)
        self.waiting = WaitingLimit(sum(spec.scale.waiting_max for spec in specs))
        self._cors = _cors_of(services)
        self._receives_events = any(spec.receives_events for spec in specs)
        self.has_responded = False

    def warm(self) -> None:
        """Imports what the first request certainly needs.

        That is every handler, and the models only where all routes need one: importing pydantic
        takes 30 to 45 ms, which a first ``GET /orders/{orderId}`` does not have to wait for.
        """
        operations = self.router.operations
        needs_models = all(each.route.body or each.route.query for each in operations)
        for operation in operations:
            _ = operation.handler
            if needs_models:
                _ = operation.body_model, operation.query_model
        for spec in self.specs:
            if spec.receives_events:
                import_module(f"functions.{spec.name}.handler")
                import_module("shop.runtime.event_pipeline")

    def answer(self, http_request: HttpRequest) -> HttpResponse:
        """The response to one request, waited for in this thread; never raises."""
        result = self.start(http_request)
        while isinstance(result, WaitingRequest):
            time.sleep(result.next_pause_seconds())
            result = self.resume(result)
        return result

    def start(self, http_request: HttpRequest) -> HttpResponse | WaitingRequest:
        """The response to one request, or the request if it waits for one; never raises."""
        if http_request.path in HEALTH_PATHS and http_request.method in ("GET", "HEAD"):
            self.telemetry.on_probe()
            return HttpResponse(200, b'{"status":"UP"}', {"content-type": "application/json"})
        message = self.telemetry.begin(
            http_request.method, http_request.headers.get("traceparent", "")
        )
        message_context.begin(message)
        response = self._run(http_request, message, lambda: self._handle(http_request, message))
        pending = response.pending
        if pending is not None and self.waiting.admit(pending.account):
            message.wait()
            message_context.end()
            deadline = time.monotonic() + pending.seconds
            return WaitingRequest(http_request, message, pending, response.headers, deadline)
        if pending is not None:
            response.headers.pop("preference-applied", None)
        return self._conclude(http_request, message, response)

    def resume(
        self, waiting: WaitingRequest, *, is_last: bool = False
    ) -> HttpResponse | WaitingRequest:
        """Looks again for a final response; gives the preliminary one at the deadline."""
        message_context.begin(waiting.message)
        response = self._run(waiting.http_request, waiting.message, waiting.pending.again)
        is_late = is_last or time.monotonic() >= waiting.deadline
        if response.pending is not None and not is_late:
            message_context.end()
            return waiting
        self.waiting.release(waiting.pending.account)
        response.headers = {**waiting.headers, **response.headers}
        return self._conclude(waiting.http_request, waiting.message, response)

    def abandon(self, waiting: WaitingRequest) -> None:
        """Ends a request whose client left while it waited."""
        self.waiting.release(waiting.pending.account)
        message_context.begin(waiting.message)
        self._conclude(waiting.http_request, waiting.message, HttpResponse(CLIENT_LEFT))

    def _handle(self, http_request: HttpRequest, message: MessageContext) -> HttpResponse:
        check_limits(http_request)
        response = self._dispatch(http_request, message)
        if http_request.method not in SAFE_METHODS:
            failpoints.hit(Failpoint.BEFORE_RESPONSE)
        return response

    def _run(
        self, http_request: HttpRequest, message: MessageContext, act: Callable[[], HttpResponse]
    ) -> HttpResponse:
        """The response, or the problem document of the error that was raised instead."""
        try:
            return act()
        except ClientError as error:
            return problem(error, http_request)
        except Unavailable as error:
            log.unavailable("unavailable", error, route=message.route)
            return problem(unavailable(error), http_request)
        except Exception as error:
            return problem(_unexpected(error, message.route), http_request)

    def reject(self, http_request: HttpRequest, error: ClientError) -> HttpResponse:
        """The server's own error in response to a request that is not begun."""
        message = self.telemetry.begin(
            http_request.method, http_request.headers.get("traceparent", "")
        )
        message_context.begin(message)
        return self._conclude(http_request, message, problem(error, http_request))

    def _dispatch(self, http_request: HttpRequest, message: MessageContext) -> HttpResponse:
        """Routes the request to its pipeline; notes the route for the log and the metrics."""
        if http_request.path == EVENTS_PATH and self._receives_events:
            message.route = EVENTS_PATH
            return self._receive_event(http_request, message)
        matches = self.router.operations_at(http_request.path)
        methods = {operation.route.method for operation, _ in matches}
        if http_request.method == "OPTIONS":
            return HttpResponse(204, headers=allow_header(methods))
        method = "GET" if http_request.method == "HEAD" else http_request.method
        for operation, path in matches:
            if operation.route.method == method:
                message.route, message.function = operation.scope, operation.spec.name
                # imported here: a function that only consumes events never needs it
                from shop.runtime.http_pipeline import handle_request

                return handle_request(
                    self.services, operation, http_request, path, message.traceparent
                )
        raise method_not_allowed(methods, "this path has no such method")

    def _receive_event(self, http_request: HttpRequest, message: MessageContext) -> HttpResponse:
        if http_request.method == "OPTIONS":
            return HttpResponse(204, headers=allow_header(["POST"]))
        if http_request.method != "POST":
            raise method_not_allowed(["POST"], "events are POSTed")
        # imported here: most functions consume no events
        from shop.runtime.event_pipeline import handle_delivery

        return handle_delivery(self.services, self.specs, http_request, message)

    def _conclude(
        self, http_request: HttpRequest, message: MessageContext, response: HttpResponse
    ) -> HttpResponse:
        """Writes the request's line to the log and passes its record to metrics and traces."""
        for name, text in SECURITY_HEADERS.items():
            response.headers.setdefault(name, text)
        if self._cors is not None:
            vary = response.headers.get("vary")
            response.headers |= self._cors(http_request.method, http_request.headers)
            if vary is not None:
                response.headers["vary"] += f", {vary}"
        is_first, self.has_responded = not self.has_responded, True
        message.finish(response.status)
        if is_first and self.ready_seconds is not None and message.handled_seconds is not None:
            # idle time before the first request is excluded, and what a client asked to wait
            message.cold_start_seconds = self.ready_seconds + message.handled_seconds
        log.write(
            "answered",
            function=message.function,
            method=message.method,
            route=message.route,
            status=response.status,
            milliseconds=round(message.seconds * 1000, 1),
            trace=trace.id_of(message.traceparent),
            cold=is_first or None,
            startup_ms=_milliseconds(message.cold_start_seconds),
            event=message.event_id,
            type=message.event_type,
            outcome=message.outcome,
            retry_after=response.headers.get("retry-after"),
        )
        message_context.end()
        self.telemetry.finish(message)
        if response.parts is not None:
            response.parts = _with_logged_errors(response.parts, message.route)
        return response


def _cors_of(services: Services) -> Callable[[str, Mapping[str, str]], dict[str, str]] | None:
    """What makes the headers of CORS, None where no origin is allowed."""
    if not services.settings.cors_origins:
        return None
    from shop.primitives import cors

    origins = cors.parse_origins(services.settings.cors_origins)
    return partial(cors.response_headers, origins)


def _with_logged_errors(parts: Iterator[bytes], route: str) -> Iterator[bytes]:
    """The parts of a body; ``BrokenOff`` for an error, since a part may have been sent."""
    try:
        yield from parts
    except (ClientError, Unavailable) as error:
        log.unavailable("response broken off", error, route=route)
        raise BrokenOff from error
    except Exception as error:
        log.unexpected(error, route=route)
        raise BrokenOff from error


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def unavailable(error: Unavailable) -> ClientError:
    """503 with Retry-After."""
    return ClientError(
        503,
        "UNAVAILABLE",
        error.message,
        headers={"retry-after": str(error.retry_after_seconds)},
    )


def _unexpected(error: Exception, route: str) -> ClientError:
    """503 where the process is out of resources, else 500 with the trace; logs the error."""
    log.unexpected(error, route=route)
    if is_out_of_resources(error):
        return unavailable(out_of_resources())
    current = message_context.current()
    trace_id = trace.id_of(current.traceparent) if current is not None else None
    extra = {"traceId": trace_id} if trace_id else {}
    return ClientError(500, "INTERNAL", "something went wrong on our side", extra=extra)
