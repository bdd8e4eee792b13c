"""Crash windows: named points where a process can be told to die, to prove that dying is harmless.

``SHOP_CRASH=<function>:<window>:<nth>`` kills the process with SIGKILL when it passes the window
for the nth time.  Nothing is caught, flushed or rolled back: what is left is what a power cut
leaves.  Without the setting a point is one call that looks at one name; ``prod`` refuses it.

| window | between |
|---|---|
| W0 | request read, BEGIN |
| W1 | row of the inbox or of the idempotency key inserted, order locked |
| W2 | rows changed, COMMIT sent |
| W3 | COMMIT sent, its reply read |
| W4 | COMMIT known, own events published |
| W5 | published, marked sent |
| W6 | everything done, HTTP answer written |
| W7 | intent committed, provider called |
| W8 | provider executed, its answer used |
| W9 | provider's answer read, COMMIT of what it came to |
| W10 | first half of the HTTP answer written, second half |

A message with several transactions passes W2, W3 and W4 several times.  Of a provider call the
transaction before it has W2, the one after it W9; both have W3 and W4.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time

from events.records import frozen

WINDOWS = tuple(f"W{number}" for number in range(11))
HALF_AN_ANSWER = "W10"
PLAN = re.compile(r"([a-z][a-z0-9_]*):(W[0-9]|W10):([1-9][0-9]{0,8})")
# the server writes the first half from a thread of its own
SENDING_SECONDS = 0.3


@frozen
class Plan:
    """Which function dies, in which window, and at which passing of it (the first is 1)."""

    function: str
    window: str
    nth: int


class Armed:
    """Counts the passings of one window; thread-safe."""

    def __init__(self, plan: Plan, parent: int | None) -> None:
        self.plan = plan
        self._parent = parent
        self._passed = 0
        self._lock = threading.Lock()

    def pass_by(self, window: str) -> None:
        """Dies here if this is the window and the time."""
        if window != self.plan.window:
            return
        with self._lock:
            self._passed += 1
            is_time = self._passed == self.plan.nth
        if is_time:
            self._die()

    def _die(self) -> None:
        if self.plan.window == HALF_AN_ANSWER:
            time.sleep(SENDING_SECONDS)
        os.write(2, self._last_words())
        # the parent first: it would go on holding the port for a process that is no more
        for process in filter(None, (self._parent, os.getpid())):
            os.kill(process, signal.SIGKILL)

    def _last_words(self) -> bytes:
        words = {
            "event": "crash",
            "function": self.plan.function,
            "window": self.plan.window,
            "nth": self.plan.nth,
            "pid": os.getpid(),
        }
        return json.dumps(words, separators=(",", ":")).encode() + b"\n"


_armed: Armed | None = None


def parse(text: str) -> Plan:
    """The plan that ``SHOP_CRASH`` spells; ValueError when it spells none."""
    match = PLAN.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return Plan(match[1], match[2], int(match[3]))


def arm(text: str, *, parent: int | None = None) -> None:
    """From now on the process may die; an empty ``text`` disarms.

    ``parent`` is a process that must not outlive this one.
    """
    global _armed
    _armed = Armed(parse(text), parent) if text else None


def point(window: str) -> None:
    """The process passes ``window``; it may be its last step."""
    if _armed is not None:
        _armed.pass_by(window)


def is_armed(window: str) -> bool:
    """True when the process is to die in this window, so that it has to be passed on purpose."""
    return _armed is not None and _armed.plan.window == window
