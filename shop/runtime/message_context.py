"""What is known of one message while it is handled: the log, the metrics and the trace tell of it.

A message is a request, an event, a tick or a dead letter; one thread handles it.  Nothing here
counts or sends: a finished record is handed to ``telemetry``, which does that after the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shop.runtime import trace

STEPS_MAX = 200

TAKEN, DUPLICATE, NOOP, REFUSED, RETRIED = "taken", "duplicate", "noop", "refused", "retried"

_threads = threading.local()


class Span:
    """A piece of the work that is worth a span: a transaction, a publication, a provider call."""

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

    def __init__(self, name: str, kind: str, parent: str, attributes: dict[str, Any]) -> None:
        self.name = name
        self.kind = kind
        self.parent = parent
        self.traceparent = trace.continue_or_start(parent)
        self.attributes = attributes
        self.outcome = ""
        self.began_ns = time.time_ns()
        self.ended_ns = 0

    @property
    def seconds(self) -> float:
        """How long it took, by the wall clock."""
        return max(0, self.ended_ns - self.began_ns) / 1e9


class MessageContext:
    """One message: when it came, whose story it continues, and what became of it."""

    __slots__ = (
        "_clock",
        "began_ns",
        "cold_start_seconds",
        "event_id",
        "event_type",
        "function",
        "links",
        "method",
        "outcomes",
        "parent",
        "route",
        "running",
        "seconds",
        "spill",
        "status",
        "steps",
        "traceparent",
    )

    def __init__(
        self,
        function: str,
        method: str,
        header: str,
        spill: Callable[[list[Span]], None] | None = None,
    ) -> None:
        """``spill`` takes steps away when they become many; without it none are kept."""
        self.function = function
        self.method = method
        self.route = "unmatched"
        self.parent = header if trace.id_of(header) else ""
        self.traceparent = trace.continue_or_start(header)
        self.links: list[str] = []
        self.steps: list[Span] = []
        self.running: Span | None = None
        self.spill = spill
        self.event_id: str | None = None
        self.event_type: str | None = None
        self.outcomes: dict[str, str] = {}
        self.status = 0
        self.cold_start_seconds: float | None = None
        self.seconds = 0.0
        self.began_ns = time.time_ns()
        self._clock = time.monotonic()

    def continue_trace(self, event_type: str, traceparent: str) -> None:
        """An authentic event: its story is continued, the delivery that brought it is linked."""
        self.event_type = event_type
        if trace.id_of(traceparent) is None:
            return
        if self.parent and trace.id_of(self.parent) != trace.id_of(traceparent):
            self.links.append(self.parent)
        self.parent = traceparent
        self.traceparent = trace.continue_or_start(traceparent)

    def finish(self, status: int) -> None:
        """The answer is known; an event that nobody took is named by what the broker will do."""
        self.seconds = time.monotonic() - self._clock
        self.status = status
        if self.event_id is not None and status >= 300:
            self.outcomes[self.function] = RETRIED if status >= 500 else REFUSED

    @property
    def outcome(self) -> str | None:
        """What became of an event; where several functions take it, each by its name."""
        if len(self.outcomes) <= 1:
            return next(iter(self.outcomes.values()), None)
        return ",".join(f"{consumer}={outcome}" for consumer, outcome in self.outcomes.items())

    @property
    def is_duplicate(self) -> bool:
        """True for a redelivery: everybody here had taken the event before."""
        return bool(self.outcomes) and set(self.outcomes.values()) == {DUPLICATE}


def current() -> MessageContext | None:
    """The message this thread handles."""
    handling: MessageContext | None = getattr(_threads, "handling", None)
    return handling


def begin(handling: MessageContext) -> None:
    """This thread handles ``handling`` from now on."""
    _threads.handling = handling


def end() -> None:
    """This thread handles nothing any more."""
    _threads.handling = None


def traceparent_now() -> str:
    """What a call to the outside carries: the running step, or the message; empty for neither."""
    handling = current()
    if handling is None:
        return ""
    return handling.running.traceparent if handling.running else handling.traceparent


@contextmanager
def span(name: str, kind: str = "internal", parent: str = "", **attributes: Any) -> Iterator[Span]:
    """A step of the message this thread handles, from here to the end of the block.

    ``parent`` is another story than the message's own.  The block may set ``outcome``; an error
    sets its name.  Kept only where somebody wants to know.
    """
    handling = current()
    if handling is None or handling.spill is None:
        yield _UNWATCHED
        return
    made = Span(name, kind, parent or handling.traceparent, attributes)
    before, handling.running = handling.running, made
    try:
        yield made
    except BaseException as error:
        made.outcome = type(error).__name__
        raise
    finally:
        handling.running = before
        made.ended_ns = time.time_ns()
        handling.steps.append(made)
        if len(handling.steps) >= STEPS_MAX:
            taken, handling.steps = handling.steps, []
            handling.spill(taken)


_UNWATCHED = Span("unwatched", "internal", "", {})
