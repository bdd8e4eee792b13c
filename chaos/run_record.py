"""What a fault run leaves behind: the run, one sample a second, every fault, every kind.

These records are the interface between the run that fills them and the report that shows them.
They hold numbers only; a kind that did not fire says so and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(kw_only=True)
class Sample:
    """About a second of the run; latencies in milliseconds of the answers that came in it.

    It ends at ``at`` and lasted ``seconds``: more than one where the machine was busy.
    """

    at: float
    seconds: float = 1.0
    requests: int = 0
    orders: int = 0
    refused: int = 0
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
    """One fault: when it was put in and healed (seconds of the run), and what it met.

    ``rest_seconds`` is the time from its end until the shop had recovered; None when it never did.
    ``availability`` is the share of the answers given meanwhile that were not 5xx or missing.
    """

    kind: str
    what: str
    began: float
    ended: float
    orders_in_flight: int = 0
    unknown_answers: int = 0
    rest_seconds: float | None = None
    availability: float | None = None


@dataclass(kw_only=True)
class KindSum:
    """All faults of one kind; ``reason`` says why it was not tested."""

    id: str
    what: str
    state: Literal["fired", "not tested", "not asked"] = "not tested"
    reason: str = ""
    injected: int = 0
    wanted: int = 0
    windows_hit: int = 0
    orders_in_flight: int = 0
    unknown_answers: int = 0
    dead_letters: int = 0
    dead_letters_expected: int = 0
    rest_seconds: list[float] = field(default_factory=list)
    availability: float | None = None
    evaluations: int = 0
    violations: int = 0


@dataclass(kw_only=True)
class Broken:
    """An expectation that did not hold: an invariant, liveness, non-vacuity, a replay."""

    at: float
    id: str
    what: str
    rows: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Check:
    """Something that was looked at once at the end: ``rest``, ``liveness``, ``replays`` …"""

    id: str
    what: str
    holds: bool
    detail: str = ""


@dataclass(kw_only=True)
class RunRecord:
    """The whole run.

    ``pairs`` counts kills by function and window, ``knobs`` are no defaults, ``surprises`` are
    answers that the contract does not know, by operation and status, and ``fsync`` is what
    PostgreSQL said of itself.
    """

    tier: str
    seed: int
    began_at: str
    commit: str
    machine: str
    versions: dict[str, str] = field(default_factory=dict)
    knobs: dict[str, str] = field(default_factory=dict)
    fsync: str = ""
    seconds: float = 0.0
    load_seconds: float = 0.0
    orders: int = 0
    operations: int = 0
    events: int = 0
    duplicates: int = 0
    reordered: int = 0
    lost: int = 0
    commits_ambiguous: int = 0
    provider_unknowns: int = 0
    replays: int = 0
    surprises: dict[str, int] = field(default_factory=dict)
    evaluations: int = 0
    invariants: int = 0
    pairs: dict[str, dict[str, int]] = field(default_factory=dict)
    pairs_wanted: int = 0
    kinds: list[KindSum] = field(default_factory=list)
    injections: list[Injection] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """True when nothing was broken and every closing check holds."""
        return not self.broken and all(check.holds for check in self.checks)
