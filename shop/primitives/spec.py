"""What a function declares about itself: its routes, events, schedules, privileges and scale.

A spec is a literal in ``functions/<name>/spec.py``.  Importing it loads no driver and does no I/O,
so every tool can read all specs.  All that is deployed (Knative and OpenFaaS manifests, OpenAPI,
the edge's routes, Triggers, schedules) is generated from these records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from events.records import frozen

Auth = Literal[
    "public",
    "customer",
    "staff",
    "support",
    "finance",
    "operator",
    "operator_or_admin",
    "support_or_admin",
    "admin",
    "settlements",
    "provider",
    "carrier",
]
Need = Literal["postgres", "redis", "provider", "smtp"]

# the request is signed, which needs no account
SIGNED: tuple[Auth, ...] = ("provider", "carrier")
WITHOUT_ACCOUNT: tuple[Auth, ...] = ("public", *SIGNED)

ROLES = ("customer", "staff", "support", "finance", "admin")
OPERATOR_ROLES = ("staff", "support", "finance")
# the values of Auth that permit several roles
PERMITTED_ROLES: Mapping[Auth, tuple[str, ...]] = {
    "operator": OPERATOR_ROLES,
    "operator_or_admin": (*OPERATOR_ROLES, "admin"),
    "support_or_admin": ("support", "admin"),
}
# The groups of routes that an API key may be for: none in which people manage their own account.
KEY_GROUPS = ("admin", "cart", "catalog", "orders", "settlements")
SCOPES = tuple(f"{group}:{right}" for group in KEY_GROUPS for right in ("read", "write"))
DATABASE_ROLES = (
    "catalog_ro",
    "identity",
    "accounts",
    "ordering",
    "back_office",
    "payment",
    "stock",
    "settlement",
    "webhooks",
    "relay",
    "notices",
    "ops",
)
# every role that logs in: shop_auditor belongs to people and shop_scaler to KEDA, not to functions
LOGIN_ROLES = (*DATABASE_ROLES, "auditor", "scaler")


@frozen(kw_only=True)
class Route:
    """One HTTP operation of a function.

    ``handler`` names a function in ``handler.py``; ``body``, ``query`` and ``response`` name models
    in ``schema.py``.  A body that is optional and missing is read as ``{}``.  ``auth`` says who may
    call: ``public``, ``customer`` (any signed-in account), one role, several (of
    ``PERMITTED_ROLES``), ``settlements`` (set by SETTLEMENTS_AUTH) or ``provider`` (the handler
    verifies a signature).  An ``idempotent`` route
    honours ``Idempotency-Key``.  The transactions of a route without ``writes`` are read-only.
    With ``may_lag`` they run at the streaming replica, where one is given: only for what no caller
    of the route can change, since the replica may be DATABASE_REPLICA_LAG_SECONDS behind.
    With ``transaction=False`` the handler opens its own transactions (it waits, or has several
    steps).  ``status`` and ``other_statuses``, which have no body, are those of success,
    ``headers`` those of their responses, and ``error_statuses`` those that the runtime does not add
    itself.  A ``static`` route serves files of the image, which the rate limit does not count; to a
    client whose ``Accept`` does not name text/html, as browsers' does, a ``page`` does not exist.
    A route with ``is_also_page`` returns HTML to a client that prefers it.
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    handler: str
    auth: Auth
    summary: str
    body: str | None = None
    body_is_optional: bool = False
    query: str | None = None
    response: str | None = None
    status: int = 200
    other_statuses: tuple[int, ...] = ()
    error_statuses: tuple[int, ...] = ()
    headers: tuple[str, ...] = ()
    idempotent: bool = False
    writes: bool = False
    may_lag: bool = False
    transaction: bool = True
    media_type: str = "application/json"
    is_also_page: bool = False
    static: Literal["page", "file"] | None = None
    group: str = ""

    @property
    def scope(self) -> str:
        """What an API key must be for to call the route."""
        return f"{self.group}:{'read' if self.method == 'GET' else 'write'}"


@frozen(kw_only=True)
class Subscription:
    """One event type a function consumes; ``event`` is the short name, such as ``order.placed``."""

    event: str
    handler: str
    summary: str


@frozen(kw_only=True)
class Schedule:
    """A scheduled run: a five-field ``cron`` expression in UTC.

    With ``due_kinds`` it runs only while ``due_work`` has due rows of those kinds, where a platform
    can ask for them: every ``poll_seconds``, and together at most once a minute.
    """

    name: str
    cron: str
    handler: str
    summary: str
    due_kinds: tuple[str, ...] = ()
    poll_seconds: int = 60
    # one more tick at the same time for each such number of due rows
    rows_per_process: int = 200


@frozen(kw_only=True)
class WarmHours:
    """Hours in which ``min_scale`` pods stay ready: cron expressions in a time zone."""

    start: str
    end: str
    time_zone: str
    min_scale: int = 1


@frozen(kw_only=True)
class Scale:
    """Concurrent requests of one process, the maximum of processes, and their resources.

    ``concurrency`` requests run, each in a thread with a database connection; beside them
    ``waiting_max`` may wait for a final response (``Prefer: wait``), which needs neither.
    """

    concurrency: int = 4
    waiting_max: int = 0
    max_scale: int = 5
    # what is reserved, measured by tools.bench.resources: one request a second; a start uses more
    cpu_millis: int = 10
    memory_mib: int = 96
    warm_hours: tuple[WarmHours, ...] = ()

    @property
    def in_flight_max(self) -> int:
        """The requests of one process at the same time, running and waiting."""
        return self.concurrency + self.waiting_max


@frozen(kw_only=True)
class FunctionSpec:
    """One deployable function.

    ``cold_start_budget`` limits the CPU time from the start of a process to its first response, as
    a multiple of that of functions-framework's hello-world in the same run (``make bench-cold``).
    """

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
    reads_links: bool = False
    sends_webhooks: bool = False
    scale: Scale = field(default_factory=Scale)
    timeout_seconds: int = 30
    cold_start_budget: float = 1.3

    @property
    def source(self) -> str:
        """The CloudEvents ``source`` of the events that this function emits."""
        return f"/shop/{self.name}"

    @property
    def reads_replica(self) -> bool:
        """True when a streaming replica may answer some of the function's routes."""
        return any(route.may_lag for route in self.routes)

    @property
    def receives_events(self) -> bool:
        """True when the function serves ``POST /events``."""
        return bool(self.subscriptions or self.schedules or self.receives_dead_letters)
