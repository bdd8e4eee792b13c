"""What a proxy can do to a connection, in the words of toxiproxy and two of our own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

ToxicKind = Literal[
    "latency",
    "down",
    "bandwidth",
    "black_hole",
    "reset",
    "slicer",
    "swallow_commit_reply",
    "duplicate_request",
]
Speaks = Literal["postgres", "http", "other"]
NEEDS: dict[str, Speaks] = {"swallow_commit_reply": "postgres", "duplicate_request": "http"}


@dataclass(frozen=True, kw_only=True)
class Toxic:
    """One fault of an edge.

    ``probability`` is per COMMIT for ``swallow_commit_reply``, per request for
    ``duplicate_request`` and per connection for all others; ``times`` is how often it fires at the
    most.
    """

    kind: ToxicKind
    probability: float = 1.0
    times: int | None = None
    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    kilobytes_per_second: float = 10.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(ToxicKind):
            raise ValueError(f"there is no toxic {self.kind!r}")
        if not 0 <= self.probability <= 1:
            raise ValueError("a probability is between 0 and 1")

    def as_json(self) -> dict[str, Any]:
        """For the control connection."""
        return asdict(self)
