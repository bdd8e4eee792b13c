"""Every crash window of every function that writes: what a run has to kill at least once.

Derived from the specs, so a new function or route brings its windows along.
"""

from __future__ import annotations

from dataclasses import dataclass

from shop.primitives.failpoints import Failpoint
from shop.primitives.spec import FunctionSpec, Route

# Whoever writes reads a request, commits, and answers.
ALWAYS = {"W0", "W2", "W3", "W4", "W6"}
OF_A_PROVIDER_CALL = {"W7", "W8", "W9"}
NO_BODY = 204


@dataclass(frozen=True)
class Pair:
    """A function, and a window that its process can die in."""

    function: str
    window: str

    def setting(self, nth: int = 1) -> str:
        """The ``SHOP_CRASH`` that has the process die at the nth passing of the window."""
        return f"{self.function}:{self.window}:{nth}"


def pairs(specs: tuple[FunctionSpec, ...]) -> tuple[Pair, ...]:
    """Every pair that exists, by function and window."""
    return tuple(
        Pair(spec.name, failpoint)
        for spec in specs
        for failpoint in Failpoint
        if failpoint in _windows(spec)
    )


def _windows(spec: FunctionSpec) -> set[str]:
    writing = [route for route in spec.routes if route.writes]
    if not writing and not spec.receives_events:
        return set()
    windows = set(ALWAYS)
    # Ticks and dead letters come without a row of their own: looking twice for what is due, or
    # keeping one letter twice, changes nothing.  Log-ins are not idempotent (functions/login).
    if spec.subscriptions or any(_leaves_a_row(route) for route in writing):
        windows.add("W1")
    if spec.emits:
        windows.add("W5")
    if "provider" in spec.needs:
        windows |= OF_A_PROVIDER_CALL
    # Events are answered 204, and so are the provider's notices, or 202 without a body: there is
    # no half of nothing.
    if any(_answers_with_a_body(route) for route in writing):
        windows.add("W10")
    return windows


def _leaves_a_row(route: Route) -> bool:
    """An idempotency key's row, or the inbox row of a provider's notice."""
    return route.idempotent or route.auth == "provider"


def _answers_with_a_body(route: Route) -> bool:
    return route.response is not None and route.status != NO_BODY
