"""The pairs of function and failpoint at which a run kills processes (F-01).

The pairs are derived from the function specs.  shop/primitives/failpoints.py defines the failpoints
W0 to W10.
"""

from __future__ import annotations

from dataclasses import dataclass

from shop.primitives.failpoints import Failpoint
from shop.primitives.spec import FunctionSpec, Route

# Every function that writes reads a message, commits and responds.
ALWAYS = {
    Failpoint.MESSAGE_READ,
    Failpoint.BEFORE_COMMIT,
    Failpoint.COMMIT_SENT,
    Failpoint.COMMITTED,
    Failpoint.BEFORE_RESPONSE,
}
OF_A_PROVIDER_CALL = {
    Failpoint.BEFORE_PROVIDER_CALL,
    Failpoint.AFTER_PROVIDER_CALL,
    Failpoint.OUTCOME_WRITTEN,
}
NO_CONTENT = 204


@dataclass(frozen=True)
class FailpointPair:
    """A function and a failpoint that its processes pass."""

    function: str
    failpoint: Failpoint

    def setting(self, nth: int = 1) -> str:
        """The value of ``SHOP_CRASH`` that kills a process at its nth pass of the failpoint."""
        return f"{self.function}:{self.failpoint}:{nth}"


def failpoint_pairs(specs: tuple[FunctionSpec, ...]) -> tuple[FailpointPair, ...]:
    """All pairs of these functions, ordered by function and failpoint."""
    return tuple(
        FailpointPair(spec.name, failpoint)
        for spec in specs
        for failpoint in Failpoint
        if failpoint in _failpoints_of(spec)
    )


def _failpoints_of(spec: FunctionSpec) -> set[Failpoint]:
    writing = [route for route in spec.routes if route.writes]
    if not writing and not spec.receives_events:
        return set()
    failpoints = set(ALWAYS)
    # Ticks and dead letters insert no inbox row: selecting due rows twice or storing one letter
    # twice changes nothing.  Log-ins are not idempotent (functions/login).
    if spec.subscriptions or any(_inserts_deduplication_row(route) for route in writing):
        failpoints.add(Failpoint.CLAIMED)
    if spec.emits:
        failpoints.add(Failpoint.PUBLISHED)
    if {"provider", "smtp"} & set(spec.needs):
        failpoints |= OF_A_PROVIDER_CALL
    # Responses to events (204) and to webhooks (204 or 202) have no body that could be cut.
    if any(_has_response_body(route) for route in writing):
        failpoints.add(Failpoint.HALF_RESPONSE_SENT)
    return failpoints


def _inserts_deduplication_row(route: Route) -> bool:
    """Whether the route inserts the row of an idempotency key or the inbox row of a webhook."""
    return route.idempotent or route.auth == "provider"


def _has_response_body(route: Route) -> bool:
    return route.response is not None and route.status != NO_CONTENT
