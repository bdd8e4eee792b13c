"""Checks of a scenario: each prints one line, a failed one with the expected and actual value."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import httpx

PROBLEM = "application/problem+json"
PROBLEM_MEMBERS = ("type", "title", "status", "detail", "instance", "error", "message")
# Text of internal errors that must not reach a caller.
INTERNALS = ("Traceback", "psycopg", "select ", "shop.orders", 'File "', "pydantic")
SHOWN_MAX = 300


@dataclass(frozen=True)
class Check:
    """The result of one check; ``problem`` is None when it passed."""

    group: str
    title: str
    problem: str | None = None

    @property
    def line(self) -> str:
        """The printed line: ``ok  group: title``, or ``FAILED  group: title`` and the reason."""
        if self.problem is None:
            return f"ok  {self.group}: {self.title}"
        return f"FAILED  {self.group}: {self.title}\n        {self.problem}"


@dataclass
class CheckCounter:
    """Prints and counts checks, and keeps those that failed."""

    print_line: Callable[[str], None]
    passed: int = 0
    failures: list[Check] = field(default_factory=list)

    def count(self, checks: Iterable[Check]) -> None:
        """Prints and counts checks."""
        for check in checks:
            self.print_line(check.line)
            if check.problem is None:
                self.passed += 1
            else:
                self.failures.append(check)

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return len(self.failures)

    @property
    def summary(self) -> str:
        """The last line of a run: ``N passed, N failed``."""
        return f"{self.passed} passed, {self.failed} failed"


@dataclass
class Checks:
    """The checks of one scenario, printed when it ends: a restarted scenario discards them."""

    group: str
    made: list[Check] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def that(self, title: str, condition: object, otherwise: object = "") -> bool:
        """Records whether a condition is true; ``otherwise`` is shown when it is false."""
        holds = bool(condition)
        problem = None if holds else (_shown(otherwise) or "the condition is false")
        with self._lock:
            self.made.append(Check(self.group, title, problem))
        return holds

    def equal(self, title: str, actual: object, expected: object) -> bool:
        """Records whether two values are equal."""
        return self.that(
            title, actual == expected, f"expected {_shown(expected)}, got {_shown(actual)}"
        )

    def status(self, title: str, response: httpx.Response, expected: int) -> bool:
        """Records whether a response has a status."""
        return self.that(
            title,
            response.status_code == expected,
            f"expected {expected}, got {describe(response)}",
        )

    def problem(
        self, title: str, response: httpx.Response, expected: int, code: str | None = None
    ) -> bool:
        """Records whether a response is a problem document (RFC 9457) with this status and code."""
        return self.that(title, *check_problem(response, expected, code))


def check_problem(response: httpx.Response, expected: int, code: str | None) -> tuple[bool, str]:
    """Whether a response is the expected problem document, and if not, the reason."""
    if response.status_code != expected:
        return False, f"expected {expected} {code or ''}, got {describe(response)}"
    if response.headers.get("Content-Type", "").split(";")[0] != PROBLEM:
        return False, f"not {PROBLEM}: {describe(response)}"
    body = response.json()
    missing = [name for name in PROBLEM_MEMBERS if name not in body]
    if missing:
        return False, f"without {', '.join(missing)}: {describe(response)}"
    if body["status"] != expected:
        return False, f"status {body['status']} in the body: {describe(response)}"
    if code is not None and body["error"] != code:
        return False, f"expected {code}, got {describe(response)}"
    if response.headers.get("Cache-Control") != "no-store":
        return False, f"a cacheable error response: {dict(response.headers)}"
    shown = [word for word in INTERNALS if word in response.text]
    return (False, f"contains internal text {shown}: {describe(response)}") if shown else (True, "")


def describe(response: httpx.Response) -> str:
    """A response in one line."""
    return f"{response.status_code} {response.text[:SHOWN_MAX]}"


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 2 * SHOWN_MAX else f"{text[: 2 * SHOWN_MAX]}…"
