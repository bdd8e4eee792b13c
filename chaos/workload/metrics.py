"""The workload's metrics: one sample per second, totals, responses outside the HTTP contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos.controlled_process import JsonObject


@dataclass
class WorkloadMetrics:
    """Counts attempts, accepted orders and unexpected responses.

    ``unexpected`` counts by operation and status.
    """

    orders_total: int = 0
    requests_total: int = 0
    unexpected: Counter[str] = field(default_factory=Counter[str])
    _accepted: set[str] = field(default_factory=set[str])
    _sample: Counter[str] = field(default_factory=Counter[str])
    _latencies_ms: list[float] = field(default_factory=list[float])

    def add_attempt(self, status: int | None, seconds: float) -> None:
        """Counts one attempt; without a response or with a 5xx its outcome is unknown."""
        self.requests_total += 1
        self._sample["requests"] += 1
        if status is None or status >= 500:
            self._sample["unknown"] += 1
        elif status >= 400:
            self._sample["client_errors"] += 1
        if status is not None:
            self._latencies_ms.append(seconds * 1000)

    def add_order(self, order_id: str) -> None:
        """Counts an accepted order; one that was counted before is not counted again."""
        if order_id not in self._accepted:
            self._accepted.add(order_id)
            self._sample["orders"] += 1
            self.orders_total += 1

    def add_unexpected(self, operation: str, status: int) -> None:
        """Counts a response that the HTTP contract does not allow."""
        self.unexpected[f"{operation} {status}"] += 1

    def take_sample(self) -> JsonObject:
        """The metrics since the previous sample."""
        ordered = sorted(self._latencies_ms)
        sample = {
            **self._sample,
            "orders_total": self.orders_total,
            "p50_ms": _quantile(ordered, 0.5),
            "p99_ms": _quantile(ordered, 0.99),
        }
        self._sample, self._latencies_ms = Counter(), []
        return sample

    def totals(self) -> JsonObject:
        """The metrics since the start."""
        return {
            "requests": self.requests_total,
            "orders": self.orders_total,
            "unexpected_responses": dict(self.unexpected),
        }


def _quantile(ordered: Sequence[float], share: float) -> float:
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
