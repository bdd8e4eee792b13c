"""The record of a run, which the run fills and the reports show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FaultState = Literal["injected", "not tested", "not selected"]


@dataclass(kw_only=True)
class Sample:
    """The measurements of about one second, which ended at second ``at`` of the run.

    It lasted longer than a second (``seconds``) when the machine was busy.  ``unknown`` counts
    requests without a response or with a 5xx: their outcome is unknown to the client.
    """

    at: float
    seconds: float = 1.0
    requests: int = 0
    orders: int = 0
    client_errors: int = 0
    unknown: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    due: int = 0
    open_orders: int = 0
    deliveries_pending: int = 0
    processes: int = 0
    faults: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Injection:
    """One injected fault, with its begin and end in seconds of the run.

    ``recovery_seconds`` is the time from its end to the first second without an unknown outcome;
    None when there was none.  ``availability`` is the share of requests with a known outcome while
    the fault was active.
    """

    fault_id: str
    description: str
    began: float
    ended: float
    orders_in_flight: int = 0
    unknown: int = 0
    recovery_seconds: float | None = None
    availability: float | None = None


@dataclass(kw_only=True)
class FaultSummary:
    """All injections of one fault; ``reason`` is why it was not tested or not selected."""

    id: str
    title: str
    state: FaultState = "not tested"
    reason: str = ""
    injections: int = 0
    planned: int = 0
    pairs_completed: int = 0
    orders_in_flight: int = 0
    unknown: int = 0
    dead_letters: int = 0
    dead_letters_expected: int = 0
    recovery_seconds: list[float] = field(default_factory=list[float])
    availability: float | None = None
    evaluations: int = 0
    violations: int = 0


@dataclass(kw_only=True)
class RecordedViolation:
    """An invariant or a check that failed at second ``at``, with rows that show it."""

    at: float
    id: str
    title: str
    rows: list[str] = field(default_factory=list[str])


@dataclass(kw_only=True)
class Check:
    """The result of one final check."""

    id: str
    title: str
    has_passed: bool
    detail: str = ""


@dataclass(kw_only=True)
class RunRecord:
    """The whole run.

    ``kills`` counts by function and failpoint.  ``settings`` are those of the functions that differ
    from their defaults.  ``unexpected_responses`` counts responses outside the HTTP contract by
    operation and status.  ``fsync`` is PostgreSQL's setting.
    """

    tier: str
    seed: int
    began_at: str
    commit: str
    machine: str
    versions: dict[str, str] = field(default_factory=dict[str, str])
    settings: dict[str, str] = field(default_factory=dict[str, str])
    fsync: str = ""
    seconds: float = 0.0
    load_seconds: float = 0.0
    orders: int = 0
    operations: int = 0
    events: int = 0
    events_duplicated: int = 0
    events_reordered: int = 0
    events_lost: int = 0
    ambiguous_commits: int = 0
    provider_unknown: int = 0
    replays: int = 0
    unexpected_responses: dict[str, int] = field(default_factory=dict[str, int])
    evaluations: int = 0
    invariants: int = 0
    kills: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    kills_per_pair: int = 0
    faults: list[FaultSummary] = field(default_factory=list[FaultSummary])
    injections: list[Injection] = field(default_factory=list[Injection])
    samples: list[Sample] = field(default_factory=list[Sample])
    checks: list[Check] = field(default_factory=list[Check])
    violations: list[RecordedViolation] = field(default_factory=list[RecordedViolation])

    @property
    def has_passed(self) -> bool:
        """True without violations and failed checks."""
        return not self.violations and all(check.has_passed for check in self.checks)

    def fault(self, fault_id: str) -> FaultSummary:
        """The summary of one fault."""
        return next(fault for fault in self.faults if fault.id == fault_id)
