"""Checks: one line each, counted; a failed one says what was wanted and what came."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

PROBLEM = "application/problem+json"
PROBLEM_MEMBERS = ("type", "title", "status", "detail", "instance", "error", "message")
# Words that only our insides use; none may reach a caller.
INTERNALS = ("Traceback", "psycopg", "select ", "shop.orders", 'File "', "pydantic")
SHOWN_MAX = 300


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``problem`` is None when it was as it should be."""

    group: str
    title: str
    problem: str | None = None

    @property
    def line(self) -> str:
        """As it is printed: ``ok  group: title``, or ``FAILED  group: title`` and the reason."""
        if self.problem is None:
            return f"ok  {self.group}: {self.title}"
        return f"FAILED  {self.group}: {self.title}\n        {self.problem}"


@dataclass
class Tally:
    """Prints checks as they become final and counts them."""

    say: Callable[[str], None]
    passed: int = 0
    failed: int = 0

    def count(self, checks: Iterable[Check]) -> None:
        """Print and count checks."""
        for check in checks:
            self.say(check.line)
            if check.problem is None:
                self.passed += 1
            else:
                self.failed += 1

    @property
    def verdict(self) -> str:
        """The last line of a run."""
        return f"{self.passed} passed, {self.failed} failed"


@dataclass
class Checks:
    """The checks of one scenario, held back until it is over: one that starts over forgets them."""

    group: str
    made: list[Check] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def that(self, title: str, holds: bool, otherwise: object = "") -> bool:
        """Record whether something holds; ``otherwise`` is shown when it does not."""
        problem = None if holds else (_shown(otherwise) or "it does not hold")
        with self._lock:
            self.made.append(Check(self.group, title, problem))
        return holds

    def equal(self, title: str, actual: object, wanted: object) -> bool:
        """Record whether two values are equal."""
        return self.that(title, actual == wanted, f"wanted {_shown(wanted)}, got {_shown(actual)}")

    def status(self, title: str, response: httpx.Response, wanted: int) -> bool:
        """Record whether an answer has a status."""
        return self.that(
            title, response.status_code == wanted, f"wanted {wanted}, got {told(response)}"
        )

    def problem(
        self, title: str, response: httpx.Response, wanted: int, code: str | None = None
    ) -> bool:
        """Record whether an answer is a whole problem document (RFC 9457) with status and code."""
        return self.that(title, *judge_problem(response, wanted, code))


def judge_problem(response: httpx.Response, wanted: int, code: str | None) -> tuple[bool, str]:
    """Whether the answer is the refusal that was wanted, and if not, why."""
    if response.status_code != wanted:
        return False, f"wanted {wanted} {code or ''}, got {told(response)}"
    if response.headers.get("Content-Type", "").split(";")[0] != PROBLEM:
        return False, f"not {PROBLEM}: {told(response)}"
    body = response.json()
    missing = [name for name in PROBLEM_MEMBERS if name not in body]
    if missing:
        return False, f"without {', '.join(missing)}: {told(response)}"
    if body["status"] != wanted:
        return False, f"the body says {body['status']}: {told(response)}"
    if code is not None and body["error"] != code:
        return False, f"wanted {code}, got {told(response)}"
    if response.headers.get("Cache-Control") != "no-store":
        return False, f"a refusal that caches may keep: {dict(response.headers)}"
    shown = [word for word in INTERNALS if word in response.text]
    return (False, f"shows internals {shown}: {told(response)}") if shown else (True, "")


def told(response: httpx.Response) -> str:
    """An answer in one line."""
    return f"{response.status_code} {response.text[:SHOWN_MAX]}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 2 * SHOWN_MAX else f"{text[: 2 * SHOWN_MAX]}…"
