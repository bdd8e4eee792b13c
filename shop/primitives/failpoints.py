"""Failpoints: named points where a process can be killed, to prove that a crash there is harmless.

``SHOP_CRASH=<function>:<code>:<nth>`` kills the process with SIGKILL when it reaches the failpoint
with this code for the nth time.  Nothing is caught, flushed or rolled back, as after a power
failure.  Without the setting a failpoint is one call that compares one name; the ``prod`` profile
rejects the setting.

A message with several transactions reaches W2, W3 and W4 several times.  Around a provider call,
the transaction before it has W2 and the one after it W9; both have W3 and W4.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from enum import StrEnum

from events.records import frozen


class Failpoint(StrEnum):
    """Where a process can be killed; the value is the code that ``SHOP_CRASH`` takes."""

    MESSAGE_READ = "W0"
    """A request or an event has been read; BEGIN follows."""
    CLAIMED = "W1"
    """The row of the inbox or of the idempotency key is inserted."""
    BEFORE_COMMIT = "W2"
    """The rows have changed; COMMIT follows."""
    COMMIT_SENT = "W3"
    """COMMIT is sent; its reply has not been read."""
    COMMITTED = "W4"
    """The reply to COMMIT has been read; publication follows."""
    PUBLISHED = "W5"
    """The events are published, but not marked as sent."""
    BEFORE_RESPONSE = "W6"
    """All work is done; the HTTP response follows."""
    BEFORE_PROVIDER_CALL = "W7"
    """The intent is committed; the call to the provider, or the mail server, follows."""
    AFTER_PROVIDER_CALL = "W8"
    """The provider has executed the call, or the server has the mail; its reply is not used."""
    OUTCOME_WRITTEN = "W9"
    """The outcome of the provider call is written; COMMIT follows."""
    HALF_RESPONSE_SENT = "W10"
    """The first half of the response's body is sent."""


SETTING = re.compile(r"([a-z][a-z0-9_]*):(W[0-9]|W10):([1-9][0-9]{0,8})")
# the event loop sends the first half of a response
SEND_SECONDS = 0.3


@frozen
class CrashPlan:
    """Which function is killed, at which failpoint, and at which pass of it (the first is 1)."""

    function: str
    failpoint: Failpoint
    nth: int


class _Armed:
    """Counts the passes of one failpoint and kills the process at the planned one; thread-safe."""

    def __init__(self, plan: CrashPlan) -> None:
        self.plan = plan
        self._passes = 0
        self._lock = threading.Lock()

    def hit(self, failpoint: Failpoint) -> None:
        if failpoint != self.plan.failpoint:
            return
        with self._lock:
            self._passes += 1
            is_planned = self._passes == self.plan.nth
        if is_planned:
            self._kill()

    def _kill(self) -> None:
        if self.plan.failpoint is Failpoint.HALF_RESPONSE_SENT:
            time.sleep(SEND_SECONDS)
        os.write(2, self._log_line())
        os.kill(os.getpid(), signal.SIGKILL)

    def _log_line(self) -> bytes:
        fields = {
            "event": "crash",
            "function": self.plan.function,
            "failpoint": self.plan.failpoint,
            "nth": self.plan.nth,
            "pid": os.getpid(),
        }
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


_armed: _Armed | None = None


def parse(text: str) -> CrashPlan:
    """The plan in a value of ``SHOP_CRASH``; ValueError for any other text."""
    match = SETTING.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return CrashPlan(match[1], Failpoint(match[2]), int(match[3]))


def arm(text: str) -> None:
    """Arms the plan in ``text``; an empty text disarms."""
    global _armed
    _armed = _Armed(parse(text)) if text else None


def hit(failpoint: Failpoint) -> None:
    """Marks the place of a failpoint; kills the process if the armed plan names this pass."""
    if _armed is not None:
        _armed.hit(failpoint)


def is_armed(failpoint: Failpoint) -> bool:
    """True when the process is to be killed at this failpoint."""
    return _armed is not None and _armed.plan.failpoint is failpoint
