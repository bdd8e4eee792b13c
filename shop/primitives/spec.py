"""What a function declares about itself.

A spec is a literal in ``functions/<name>/spec.py``.  It imports no driver and does no I/O, so
the registry, the desk platform and every renderer can read all specs in milliseconds.
Everything that is deployed (Knative, OpenFaaS, OpenAPI, the edge's route table, Triggers,
clocks) is derived from these records and from nothing else.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from events.records import frozen

Auth = Literal["public", "customer", "staff", "support", "finance", "settlements", "provider"]
Need = Literal["postgres", "redis", "provider"]

ROLES = ("customer", "staff", "support", "finance")
DATABASE_ROLES = (
    "catalog_ro",
    "identity",
    "ordering",
    "payment",
    "stock",
    "settlement",
    "relay",
    "ops",
)


@frozen(kw_only=True)
class Route:
    """One HTTP operation of a function.

    ``handler`` names a function in ``handler.py``; ``body``, ``query`` and ``answer`` name models
    in ``schema.py``.  ``auth`` says who may call: ``public``, ``customer`` (any signed-in account),
    one role, ``settlements`` (the SETTLEMENTS_AUTH policy) or ``provider`` (the handler checks a
    signature).  ``idempotent`` routes honour ``Idempotency-Key``; the transactions of a route that
    does not say ``writes`` are read only; ``transaction=False`` leaves transactions to the handler
    (long waits, several steps).
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    handler: str
    auth: Auth
    summary: str
    body: str | None = None
    body_is_optional: bool = False
    query: str | None = None
    answer: str | None = None
    status: int = 200
    error_statuses: tuple[int, ...] = ()
    idempotent: bool = False
    writes: bool = False
    transaction: bool = True
    media_type: str = "application/json"
    group: str = ""


@frozen(kw_only=True)
class Subscription:
    """One event type a function consumes; ``event`` is the short name, such as ``order.placed``."""

    event: str
    handler: str
    summary: str


@frozen(kw_only=True)
class Schedule:
    """A clock tick: five-field ``cron`` in UTC.

    With ``due_kinds`` it ticks only while ``due_work`` has due rows of those kinds, and at once.
    """

    name: str
    cron: str
    handler: str
    summary: str
    due_kinds: tuple[str, ...] = ()
    # so many due rows call for one more process
    rows_per_process: int = 200


@frozen(kw_only=True)
class Scale:
    """How many requests one process takes at once, and how many processes there may be."""

    concurrency: int = 4
    max_scale: int = 5
    cpu_millis: int = 100
    memory_mib: int = 192


@frozen(kw_only=True)
class FunctionSpec:
    """One deployable function: the truth that manifests, routes and documents are made from."""

    name: str
    summary: str
    database_role: str | None
    routes: tuple[Route, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    emits: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    receives_dead_letters: bool = False
    issues_tokens: bool = False
    scale: Scale = field(default_factory=Scale)
    timeout_seconds: int = 30

    @property
    def source(self) -> str:
        """The CloudEvents ``source`` of what this function announces."""
        return f"/shop/{self.name}"

    @property
    def receives_events(self) -> bool:
        """True when the function answers ``POST /events``."""
        return bool(self.subscriptions or self.schedules or self.receives_dead_letters)
