"""What is recorded about one message while it is handled, for the log, the metrics and the trace.

A message is a request, an event, a clock tick or a dead letter; one thread handles it.  Nothing
here counts or sends: ``telemetry`` does that with the finished record after the response.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal

from shop.runtime import trace

SPANS_MAX = 200

Outcome = Literal["taken", "duplicate", "noop", "refused", "retried"]
TAKEN: Outcome = "taken"
DUPLICATE: Outcome = "duplicate"
NOOP: Outcome = "noop"
REFUSED: Outcome = "refused"
RETRIED: Outcome = "retried"

SpanKind = Literal["internal", "client", "producer", "server", "consumer"]

_threads = threading.local()


class Span:
    """One timed operation: a transaction, a publication or a provider call."""

    __slots__ = (
        "attributes",
        "began_ns",
        "ended_ns",
        "kind",
        "name",
        "outcome",
        "parent",
        "traceparent",
    )

    def __init__(
        self, name: str, kind: SpanKind, parent: str, attributes: dict[str, object]
    ) -> None:
        self.name = name
        self.kind: SpanKind = kind
        self.parent = parent
        self.traceparent = trace.continue_or_start(parent)
        self.attributes = attributes
        self.outcome = ""
        self.began_ns = time.time_ns()
        self.ended_ns = 0

    @property
    def seconds(self) -> float:
        """Duration by the wall clock."""
        return max(0, self.ended_ns - self.began_ns) / 1e9


ExportSpans = Callable[[list[Span]], None]


class MessageContext:
    """The record of one message: when it arrived, its trace, its spans and its outcome."""

    __slots__ = (
        "_clock",
        "began_ns",
        "cold_start_seconds",
        "current_span",
        "event_id",
        "event_type",
        "export_spans",
        "function",
        "handled_seconds",
        "links",
        "method",
        "outcomes",
        "parent",
        "route",
        "seconds",
        "spans",
        "status",
        "traceparent",
    )

    def __init__(
        self,
        function: str,
        method: str,
        traceparent_header: str,
        export_spans: ExportSpans | None = None,
    ) -> None:
        """``export_spans`` takes the first spans of a long message; without it none are kept."""
        self.function = function
        self.method = method
        self.route = "unmatched"
        self.parent = traceparent_header if trace.id_of(traceparent_header) else ""
        self.traceparent = trace.continue_or_start(traceparent_header)
        self.links: list[str] = []
        self.spans: list[Span] = []
        self.current_span: Span | None = None
        self.export_spans = export_spans
        self.event_id: str | None = None
        self.event_type: str | None = None
        self.outcomes: dict[str, Outcome] = {}
        self.status = 0
        self.cold_start_seconds: float | None = None
        self.handled_seconds: float | None = None
        self.seconds = 0.0
        self.began_ns = time.time_ns()
        self._clock = time.monotonic()

    def continue_trace(self, event_type: str, traceparent: str) -> None:
        """Continues the trace of a verified event and links that of the delivery."""
        self.event_type = event_type
        if trace.id_of(traceparent) is None:
            return
        if self.parent and trace.id_of(self.parent) != trace.id_of(traceparent):
            self.links.append(self.parent)
        self.parent = traceparent
        self.traceparent = trace.continue_or_start(traceparent)

    def wait(self) -> None:
        """Records that a preliminary response was ready: from here on the request waits."""
        self.handled_seconds = time.monotonic() - self._clock

    def finish(self, status: int) -> None:
        """Records the response; a rejected event's outcome says whether the broker retries it."""
        self.seconds = time.monotonic() - self._clock
        if self.handled_seconds is None:
            self.handled_seconds = self.seconds
        self.status = status
        if self.event_id is not None and status >= 300:
            self.outcomes[self.function] = RETRIED if status >= 500 else REFUSED

    @property
    def outcome(self) -> str | None:
        """The outcome of an event; with several consumers, each one's by name."""
        if len(self.outcomes) <= 1:
            return next(iter(self.outcomes.values()), None)
        return ",".join(f"{consumer}={outcome}" for consumer, outcome in self.outcomes.items())

    @property
    def is_duplicate(self) -> bool:
        """True when every consumer had already consumed the event."""
        return bool(self.outcomes) and set(self.outcomes.values()) == {DUPLICATE}


def current() -> MessageContext | None:
    """The message that this thread handles, or None."""
    return getattr(_threads, "message", None)


def begin(message: MessageContext) -> None:
    """Makes ``message`` the one that this thread handles."""
    _threads.message = message


def end() -> None:
    """Ends the message of this thread."""
    _threads.message = None


def traceparent_now() -> str:
    """The ``traceparent`` of an outgoing call: the current span's, the message's, or empty."""
    message = current()
    if message is None:
        return ""
    return message.current_span.traceparent if message.current_span else message.traceparent


@contextmanager
def span(
    name: str, kind: SpanKind = "internal", parent: str = "", **attributes: object
) -> Generator[Span]:
    """Records the block as a span of this thread's message.

    ``parent`` is the parent span when it is not the message's.  The block may set ``outcome``; an
    exception sets it to the exception's name.  Nothing is recorded where telemetry is off.
    """
    message = current()
    if message is None or message.export_spans is None:
        yield _UNRECORDED
        return
    recorded = Span(name, kind, parent or message.traceparent, attributes)
    enclosing, message.current_span = message.current_span, recorded
    try:
        with _timed(recorded):
            yield recorded
    finally:
        message.current_span = enclosing
        message.spans.append(recorded)
        if len(message.spans) >= SPANS_MAX:
            full, message.spans = message.spans, []
            message.export_spans(full)


@contextmanager
def background_span(
    export_spans: ExportSpans | None, name: str, kind: SpanKind, parent: str, **attributes: object
) -> Generator[Span]:
    """Records the block as a span that may end after its message, and exports it."""
    if export_spans is None:
        yield _UNRECORDED
        return
    recorded = Span(name, kind, parent, attributes)
    try:
        with _timed(recorded):
            yield recorded
    finally:
        export_spans([recorded])


@contextmanager
def _timed(recorded: Span) -> Generator[None]:
    """Ends the span with the block; an exception is its outcome."""
    try:
        yield
    except BaseException as error:
        recorded.outcome = type(error).__name__
        raise
    finally:
        recorded.ended_ns = time.time_ns()


_UNRECORDED = Span("unrecorded", "internal", "", {})
