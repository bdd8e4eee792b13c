"""The faults that the proxy can produce on a connection.

They are named after Toxiproxy's toxics where they behave alike (ADR 21 in docs/adr).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ToxicKind = Literal[
    "latency",
    "down",
    "bandwidth",
    "black_hole",
    "reset",
    "slicer",
    "drop_commit_reply",
    "duplicate_request",
]
Protocol = Literal["postgres", "http", "other"]
REQUIRED_PROTOCOL: dict[ToxicKind, Protocol] = {
    "drop_commit_reply": "postgres",
    "duplicate_request": "http",
}


@dataclass(frozen=True, kw_only=True)
class Toxic:
    """One fault of an edge.

    ``probability`` is per COMMIT for ``drop_commit_reply``, per request for ``duplicate_request``
    and per connection for all others.
    """

    kind: ToxicKind
    probability: float = 1.0
    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    kilobytes_per_second: float = 10.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(ToxicKind):
            raise ValueError(f"unknown toxic {self.kind!r}")
        if not 0 <= self.probability <= 1:
            raise ValueError("the probability must be between 0 and 1")
