"""Faults of the simulated provider: by payment method, or drawn at random from a seed."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import cast


class Fault(StrEnum):
    """An injected fault; the values are the names in ``POST /faults``."""

    TIMEOUT_BEFORE = "timeout_before"
    TIMEOUT_AFTER = "timeout_after"
    ERROR_BEFORE = "error_before"
    ERROR_AFTER = "error_after"
    RATE_LIMITED = "rate_limited"
    SLOW = "slow"
    SLOW_ANSWER = "slow_answer"
    LATE = "late"
    WRONG_AMOUNT = "wrong_amount"
    WRONG_CURRENCY = "wrong_currency"
    WRONG_KEY = "wrong_key"
    WEBHOOK_LOST = "webhook_lost"
    WEBHOOK_DUPLICATED = "webhook_duplicated"
    WEBHOOK_REORDERED = "webhook_reordered"
    TOMBSTONE_IGNORED = "tombstone_ignored"
    PROVIDER_REFUND = "provider_refund"
    DISPUTE = "dispute"
    OTHER_SHOP = "other_shop"


CALL_FAULTS = (
    Fault.TIMEOUT_BEFORE,
    Fault.TIMEOUT_AFTER,
    Fault.ERROR_BEFORE,
    Fault.ERROR_AFTER,
    Fault.RATE_LIMITED,
    Fault.SLOW,
    Fault.SLOW_ANSWER,
    Fault.LATE,
    Fault.WRONG_AMOUNT,
    Fault.WRONG_CURRENCY,
    Fault.WRONG_KEY,
)
METHOD_FAULTS = {
    "CARD_SLOW": Fault.SLOW,
    "CARD_SLOW_ANSWER": Fault.SLOW_ANSWER,
    "CARD_TIMEOUT_BEFORE": Fault.TIMEOUT_BEFORE,
    "CARD_TIMEOUT_AFTER": Fault.TIMEOUT_AFTER,
    "CARD_TIMEOUT": Fault.TIMEOUT_AFTER,
    "CARD_ERROR_BEFORE": Fault.ERROR_BEFORE,
    "CARD_ERROR_AFTER": Fault.ERROR_AFTER,
    "CARD_ERROR": Fault.ERROR_AFTER,
    "CARD_RATE_LIMITED": Fault.RATE_LIMITED,
    "CARD_LATE": Fault.LATE,
    "CARD_WRONG_AMOUNT": Fault.WRONG_AMOUNT,
    "CARD_WRONG_CURRENCY": Fault.WRONG_CURRENCY,
    "CARD_WRONG_KEY": Fault.WRONG_KEY,
}
METHOD_DECLINES = {
    "CARD_DECLINED": "card_declined",
    "CARD_DECLINE": "card_declined",
    "CARD_INSUFFICIENT_FUNDS": "insufficient_funds",
    "CARD_EXPIRED": "expired_card",
}
METHOD_REFUND_REJECTED = "CARD_REFUND_REJECTED"

KEY_LIFE_SECONDS_DEFAULT = 24 * 3600.0
SECONDS_MAX = 7 * 24 * 3600.0


@dataclass(frozen=True)
class FaultSettings:
    """The body of ``POST /faults``; ``probabilities`` are per call or webhook, from 0 to 1."""

    seed: int = 0
    probabilities: dict[str, float] = field(default_factory=dict[str, float])
    slow_seconds: float = 2.0
    late_seconds: float = 5.0
    hang_seconds: float = 30.0
    reorder_seconds: float = 5.0
    key_life_seconds: float = KEY_LIFE_SECONDS_DEFAULT
    unrequested_seconds: float = 5.0


def fault_of_method(payment_method: str) -> Fault | None:
    """The fault of the first confirmation with this payment method."""
    return METHOD_FAULTS.get(payment_method.upper())


def decline_reason(payment_method: str) -> str | None:
    """Why this payment method is declined, or None if it is accepted."""
    return METHOD_DECLINES.get(payment_method.upper())


def read_fault_settings(body: Mapping[str, object]) -> FaultSettings:
    """Settings from JSON, with defaults for missing ones; ValueError names what is invalid.

    The probabilities of the call faults exclude each other, so their sum is at most 1.
    """
    unknown = sorted(set(body) - {item.name for item in fields(FaultSettings)})
    if unknown:
        raise ValueError(f"unknown settings: {', '.join(unknown)}")
    default = FaultSettings()
    return FaultSettings(
        seed=_seed(body.get("seed", default.seed)),
        probabilities=_probabilities(body.get("probabilities", default.probabilities)),
        slow_seconds=_seconds(body, "slow_seconds", default.slow_seconds),
        late_seconds=_seconds(body, "late_seconds", default.late_seconds),
        hang_seconds=_seconds(body, "hang_seconds", default.hang_seconds),
        reorder_seconds=_seconds(body, "reorder_seconds", default.reorder_seconds),
        key_life_seconds=_seconds(body, "key_life_seconds", default.key_life_seconds),
        unrequested_seconds=_seconds(body, "unrequested_seconds", default.unrequested_seconds),
    )


def _seed(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("seed must be an integer")
    return value


def _seconds(body: Mapping[str, object], name: str, default: float) -> float:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number")
    if not 0 <= value <= SECONDS_MAX:
        raise ValueError(f"{name} must be between 0 and {SECONDS_MAX:g}")
    return value


def _probabilities(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise ValueError("probabilities must be an object")
    checked: dict[str, float] = {}
    # the keys of a JSON object are strings
    for name, probability in cast("dict[str, object]", value).items():
        if name not in set(Fault):
            raise ValueError(f"unknown fault {name}; known: {', '.join(Fault)}")
        if isinstance(probability, bool) or not isinstance(probability, int | float):
            raise ValueError(f"the probability of {name} must be a number")
        if not 0 <= probability <= 1:
            raise ValueError(f"the probability of {name} must be between 0 and 1")
        checked[name] = probability
    if sum(checked.get(fault, 0) for fault in CALL_FAULTS) > 1:
        raise ValueError("the probabilities of the call faults add up to more than 1")
    return checked


class FaultSource:
    """Draws faults from one seeded random sequence and counts them; thread-safe."""

    def __init__(self, settings: FaultSettings) -> None:
        self._lock = threading.Lock()
        self.load(settings)

    def load(self, settings: FaultSettings) -> None:
        """Restarts the sequence with these settings and resets the counts."""
        with self._lock:
            self.settings = settings
            # repeatable, not secret
            self._random = random.Random(settings.seed)  # noqa: S311
            self._fired: Counter[str] = Counter()

    def draw_call_fault(self, step: str) -> Fault | None:
        """Draws the fault of one call, or None; only a confirmation can be late."""
        with self._lock:
            drawn, floor = self._random.random(), 0.0
            for fault in CALL_FAULTS:
                floor += self.settings.probabilities.get(fault, 0.0)
                if drawn < floor:
                    if fault is Fault.LATE and step != "confirm":
                        return None
                    self._fired[fault] += 1
                    return fault
        return None

    def draw_fault(self, fault: Fault) -> bool:
        """Draws whether this fault occurs, with its configured probability."""
        with self._lock:
            is_drawn = self._random.random() < self.settings.probabilities.get(fault, 0.0)
            self._fired[fault] += is_drawn
            return is_drawn

    def uniform(self, low: float, high: float) -> float:
        """A number from ``low`` to ``high``, from the same random sequence."""
        with self._lock:
            return self._random.uniform(low, high)

    def count_method_fault(self, fault: Fault) -> None:
        """Counts a fault that a payment method caused."""
        with self._lock:
            self._fired[f"magic_{fault}"] += 1

    def report(self) -> dict[str, object]:
        """The settings, and how often each fault occurred since they were loaded."""
        with self._lock:
            return {**asdict(self.settings), "fired": dict(self._fired)}


def settings_as_text(settings: FaultSettings) -> str:
    """The settings as JSON, as they are stored for the next start."""
    return json.dumps(asdict(settings))
