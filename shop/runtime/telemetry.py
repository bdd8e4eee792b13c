"""Numbers and traces, off the way to the customer: finished messages are put aside and told later.

While a message is handled it costs one ``append``.  The libraries (prometheus-client, and
OpenTelemetry where it is installed) are imported in the background after the first answer, or when
there was nothing to answer for a while, and only when METRICS_PORT or OTEL_EXPORTER_OTLP_ENDPOINT
asks for them.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from shop.runtime import log
from shop.runtime.message_context import MessageContext, Span

if TYPE_CHECKING:
    from shop.runtime.services import Services

FINISHED_MAX = 20_000
LOAD_AFTER_SECONDS = 0.2  # the first answer has left by then
UNASKED_SECONDS = 15.0  # a start is over by then
TELL_EVERY_SECONDS = 1.0
STOP_SECONDS = 2.0


class TelemetryExporter(Protocol):
    """Somebody who tells the world: a page for Prometheus, or OTLP."""

    def export(self, function: str, handling: MessageContext | None, steps: list[Span]) -> None:
        """One finished message with its steps, or steps of one that goes on (None)."""

    def close(self) -> None:
        """Sends what is left; may take long."""


class Telemetry:
    """What one process knows of its own messages."""

    def __init__(self, names: tuple[str, ...], services: Services) -> None:
        settings = services.settings
        self.names = names
        self.services = services
        self.is_on = bool(settings.metrics_port or settings.otel_exporter_otlp_endpoint)
        self.at_work: set[MessageContext] = set()
        self._finished: deque[tuple[str, MessageContext | None, list[Span]]] = deque(
            maxlen=FINISHED_MAX
        )
        self._tellers: list[TelemetryExporter] | None = None
        self._telling = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._born = time.monotonic()

    def begin(self, method: str, header: str) -> MessageContext:
        """A message has come; ``header`` is its ``traceparent``."""
        handling = MessageContext(
            self.names[0], method, header, self._spill if self.is_on else None
        )
        if self.is_on:
            self.at_work.add(handling)
        return handling

    def finish(self, handling: MessageContext) -> None:
        """The message is answered."""
        if not self.is_on:
            return
        self.at_work.discard(handling)
        self._finished.append((handling.function, handling, handling.steps))
        if self._thread is None:
            self._start()

    def probed(self) -> None:
        """The process is asked whether it lives: one without a message so far shows its page now.

        Otherwise Prometheus would take a function that nobody calls for a dead one.
        """
        is_idle = self._thread is None and time.monotonic() - self._born >= UNASKED_SECONDS
        if self.is_on and is_idle:
            self._start()

    def export(self) -> None:
        """Tells what has been put aside, once somebody can tell it."""
        with self._telling:
            if self._tellers is None:
                return
            for _ in range(len(self._finished)):
                function, handling, steps = self._finished.popleft()
                for teller in self._tellers:
                    teller.export(function, handling, steps)

    def stop(self) -> None:
        """Tells what is left, for at most two seconds: the end of the process."""
        if self._thread is None:
            return
        self._stopping.set()
        last = threading.Thread(target=self._close, daemon=True)
        last.start()
        last.join(STOP_SECONDS)

    def _spill(self, steps: list[Span]) -> None:
        self._finished.append((self.names[0], None, steps))

    def _start(self) -> None:
        with self._telling:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="telemetry")
                self._thread.start()

    def _work(self) -> None:
        self._stopping.wait(LOAD_AFTER_SECONDS)
        self._load()
        while not self._stopping.is_set():
            self.export()
            self._stopping.wait(TELL_EVERY_SECONDS)

    def _load(self) -> None:
        """Imports what tells; a failure costs its numbers and nothing else."""
        with self._telling:
            if self._tellers is None:
                made = (self._page(), self._push())
                self._tellers = [teller for teller in made if teller is not None]

    def _page(self) -> TelemetryExporter | None:
        port = self.services.settings.metrics_port
        if not port:
            return None
        try:
            from shop.runtime.prometheus import Page  # here: 83 ms that no customer waits for

            return Page(self, port)
        except (ImportError, OSError) as error:
            log.write("no metrics", error=str(error), port=port)
        return None

    def _push(self) -> TelemetryExporter | None:
        if not self.services.settings.otel_exporter_otlp_endpoint:
            return None
        try:
            from shop.runtime.otlp import Push  # here: an optional extra, 300 ms

            return Push(self.names)
        except ImportError as error:
            log.write("no traces", missing=error.name)
        return None

    def _close(self) -> None:
        self._load()
        self.export()
        for teller in self._tellers or ():
            teller.close()


def seconds_since_start(pid: int) -> float | None:
    """How long ago a process began, by the kernel's books; None where these cannot be read.

    proc(5): field 22 of ``stat`` is the start in clock ticks since boot, 10 ms each.
    """
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return now - int(fields[19]) / os.sysconf("SC_CLK_TCK")
