"""The workload's metrics: one sample per second, totals, responses outside the HTTP contract."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos.controlled_process import JsonObject

UNEXPECTED_MAX = 20
TEXT_MAX = 300


@dataclass
class Counts:
    """Attempts by outcome; without a response or with a 5xx the outcome is unknown."""

    requests: int = 0
    client_errors: int = 0
    unknown: int = 0
    by_operation: Counter[str] = field(default_factory=Counter[str])

    def add(self, operation: str, status: int | None) -> None:
        """Counts one attempt."""
        self.requests += 1
        self.by_operation[operation] += 1
        if status is None or status >= 500:
            self.unknown += 1
        elif status >= 400:
            self.client_errors += 1

    def as_json(self) -> JsonObject:
        return {
            "requests": self.requests,
            "client_errors": self.client_errors,
            "unknown": self.unknown,
            "by_operation": dict(self.by_operation),
        }


@dataclass
class WorkloadMetrics:
    """Counts attempts, accepted orders and unexpected responses."""

    in_flight: int = 0
    orders_total: int = 0
    unexpected: Counter[str] = field(default_factory=Counter[str])
    _total: Counts = field(default_factory=Counts)
    _sample: Counts = field(default_factory=Counts)
    _sample_orders: int = 0
    _accepted: set[str] = field(default_factory=set[str])
    _latencies_ms: list[float] = field(default_factory=list[float])
    _unexpected_responses: list[JsonObject] = field(default_factory=list[JsonObject])

    def add_attempt(self, operation: str, status: int | None, seconds: float) -> None:
        """Counts one attempt; ``status`` is None without a response."""
        self._sample.add(operation, status)
        self._total.add(operation, status)
        if status is not None:
            self._latencies_ms.append(seconds * 1000)

    def add_order(self, order_id: str) -> None:
        """Counts an accepted order; one that was counted before is not counted again."""
        if order_id not in self._accepted:
            self._accepted.add(order_id)
            self._sample_orders += 1
            self.orders_total += 1

    def add_unexpected(self, operation: str, status: int, text: str) -> None:
        """Counts a response that the HTTP contract does not allow."""
        self.unexpected[f"{operation} {status}"] += 1
        if len(self._unexpected_responses) < UNEXPECTED_MAX:
            self._unexpected_responses.append(
                {
                    "at": time.time(),
                    "operation": operation,
                    "status": status,
                    "body": text[:TEXT_MAX],
                }
            )

    def take_sample(self) -> JsonObject:
        """The metrics since the previous sample."""
        ordered = sorted(self._latencies_ms)
        sample = {
            **self._sample.as_json(),
            "at": time.time(),
            "orders": self._sample_orders,
            "orders_total": self.orders_total,
            "p50_ms": _quantile(ordered, 0.5),
            "p99_ms": _quantile(ordered, 0.99),
            "in_flight": self.in_flight,
            "unexpected": self.unexpected.total(),
        }
        self._sample, self._sample_orders, self._latencies_ms = Counts(), 0, []
        return sample

    def totals(self) -> JsonObject:
        """The metrics since the start."""
        return {
            **self._total.as_json(),
            "orders": self.orders_total,
            "unexpected_responses": dict(self.unexpected),
            "unexpected_examples": self._unexpected_responses,
        }


def _quantile(ordered: Sequence[float], share: float) -> float:
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
