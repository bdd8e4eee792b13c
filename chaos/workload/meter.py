"""What the load counts: one sample each second, totals, and answers outside the contract."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

SURPRISES_SHOWN = 20


@dataclass
class Meter:
    """Counts attempts as they end; ``take_sample`` answers the last second and begins another."""

    requests: int = 0
    orders: int = 0
    refused: int = 0
    unknown: int = 0
    in_flight: int = 0
    requests_total: int = 0
    orders_total: int = 0
    refused_total: int = 0
    unknown_total: int = 0
    surprises: Counter[str] = field(default_factory=Counter)
    surprising: list[dict[str, Any]] = field(default_factory=list)
    by_operation_total: Counter[str] = field(default_factory=Counter)
    _accepted: set[str] = field(default_factory=set)
    _by_operation: Counter[str] = field(default_factory=Counter)
    _milliseconds: list[float] = field(default_factory=list)

    def attempt(self, name: str, status: int | None, seconds: float) -> None:
        """One attempt ended: with an answer of that status, or with none."""
        self.requests += 1
        self._by_operation[name] += 1
        if status is None or status >= 500:
            self.unknown += 1
        elif status >= 400:
            self.refused += 1
        if status is not None:
            self._milliseconds.append(seconds * 1000)

    def accepted(self, order_id: str) -> None:
        """An order was accepted; told again under the same key it is the same order."""
        if order_id not in self._accepted:
            self._accepted.add(order_id)
            self.orders += 1
            self.orders_total += 1

    def surprise(self, name: str, status: int, text: str) -> None:
        """An answer that the contract does not allow."""
        self.surprises[f"{name} {status}"] += 1
        if len(self.surprising) < SURPRISES_SHOWN:
            shown = {"at": time.time(), "operation": name, "status": status, "body": text[:300]}
            self.surprising.append(shown)

    def take_sample(self) -> dict[str, Any]:
        """The figures since the last sample."""
        sorted_ms = sorted(self._milliseconds)
        sample = {
            "at": time.time(),
            "requests": self.requests,
            "orders": self.orders,
            "orders_total": self.orders_total,
            "refused": self.refused,
            "unknown": self.unknown,
            "p50_ms": _quantile(sorted_ms, 0.5),
            "p99_ms": _quantile(sorted_ms, 0.99),
            "in_flight": self.in_flight,
            "surprises": self.surprises.total(),
            "by_operation": dict(self._by_operation),
        }
        self.requests_total += self.requests
        self.refused_total += self.refused
        self.unknown_total += self.unknown
        self.by_operation_total += self._by_operation
        self.requests = self.orders = self.refused = self.unknown = 0
        self._by_operation, self._milliseconds = Counter(), []
        return sample

    def totals(self) -> dict[str, Any]:
        """The figures since the start."""
        return {
            "requests": self.requests_total + self.requests,
            "orders": self.orders_total,
            "refused": self.refused_total + self.refused,
            "unknown": self.unknown_total + self.unknown,
            "by_operation": dict(self.by_operation_total + self._by_operation),
            "surprises": dict(self.surprises),
            "surprising": self.surprising,
        }


def _quantile(ordered: list[float], share: float) -> float:
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
