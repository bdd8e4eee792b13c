"""What may go wrong at the sandbox: magic payment methods, and faults drawn from a seed."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any

CALL_FAULTS = (
    "timeout_before",
    "timeout_after",
    "error_before",
    "error_after",
    "rate_limited",
    "slow",
    "slow_answer",
    "late",
    "wrong_amount",
    "wrong_currency",
    "wrong_key",
)
WEBHOOK_FAULTS = ("webhook_lost", "webhook_duplicated", "webhook_reordered")
OTHER_FAULTS = ("tombstone_ignored",)
FAULTS = CALL_FAULTS + WEBHOOK_FAULTS + OTHER_FAULTS

MAGIC_FAULTS = {
    "CARD_SLOW": "slow",
    "CARD_SLOW_ANSWER": "slow_answer",
    "CARD_TIMEOUT_BEFORE": "timeout_before",
    "CARD_TIMEOUT_AFTER": "timeout_after",
    "CARD_TIMEOUT": "timeout_after",
    "CARD_ERROR_BEFORE": "error_before",
    "CARD_ERROR_AFTER": "error_after",
    "CARD_ERROR": "error_after",
    "CARD_RATE_LIMITED": "rate_limited",
    "CARD_LATE": "late",
    "CARD_WRONG_AMOUNT": "wrong_amount",
    "CARD_WRONG_CURRENCY": "wrong_currency",
    "CARD_WRONG_KEY": "wrong_key",
}
MAGIC_DECLINES = {
    "CARD_DECLINED": "card_declined",
    "CARD_DECLINE": "card_declined",
    "CARD_INSUFFICIENT_FUNDS": "insufficient_funds",
    "CARD_EXPIRED": "expired_card",
}
MAGIC_REFUND_REJECTED = "CARD_REFUND_REJECTED"

KEY_LIFE_SECONDS_DEFAULT = 24 * 3600.0
SECONDS_MAX = 7 * 24 * 3600.0


@dataclass(frozen=True)
class FaultSettings:
    """The knobs of ``POST /faults``; ``probabilities`` are per call or webhook, 0 to 1 each."""

    seed: int = 0
    probabilities: dict[str, float] = field(default_factory=dict)
    slow_seconds: float = 2.0
    late_seconds: float = 5.0
    hang_seconds: float = 30.0
    reorder_seconds: float = 5.0
    key_life_seconds: float = KEY_LIFE_SECONDS_DEFAULT


def magic_fault(payment_method: str) -> str | None:
    """The fault that this payment method asks for on the first try of its confirmation."""
    return MAGIC_FAULTS.get(payment_method.upper())


def magic_decline(payment_method: str) -> str | None:
    """Why this payment method is declined, or None when it is good for the money."""
    return MAGIC_DECLINES.get(payment_method.upper())


def read_fault_settings(body: dict[str, Any]) -> FaultSettings:
    """Settings from JSON; what is not named takes its default. Raises ValueError with the reason.

    The probabilities of the call faults exclude each other, so their sum is at most 1.
    """
    known = {item.name for item in fields(FaultSettings)}
    unknown = sorted(set(body) - known)
    if unknown:
        raise ValueError(f"unknown settings: {', '.join(unknown)}")
    for name, value in body.items():
        if name == "probabilities":
            _check_probabilities(value)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} must be a number")
        elif name == "seed" and not isinstance(value, int):
            raise ValueError("seed must be a whole number")
        elif name != "seed" and not 0 <= value <= SECONDS_MAX:
            raise ValueError(f"{name} must be between 0 and {SECONDS_MAX:g}")
    return FaultSettings(**body)


def _check_probabilities(value: object) -> None:
    if not isinstance(value, dict):
        raise ValueError("probabilities must be an object")
    for name, probability in value.items():
        if name not in FAULTS:
            raise ValueError(f"unknown fault {name}; known: {', '.join(FAULTS)}")
        is_number = isinstance(probability, int | float) and not isinstance(probability, bool)
        if not is_number or not 0 <= probability <= 1:
            raise ValueError(f"the probability of {name} must be between 0 and 1")
    if sum(value.get(name, 0) for name in CALL_FAULTS) > 1:
        raise ValueError("the probabilities of the call faults add up to more than 1")


class FaultDice:
    """Draws faults from one seeded sequence and counts what fired; threads share it."""

    def __init__(self, settings: FaultSettings) -> None:
        self._lock = threading.Lock()
        self.load(settings)

    def load(self, settings: FaultSettings) -> None:
        """Start again from the seed with these settings and no counts."""
        with self._lock:
            self.settings = settings
            # Repeatable, not secret.
            self._random = random.Random(settings.seed)  # noqa: S311
            self._fired: Counter[str] = Counter()

    def call_fault(self, step: str) -> str | None:
        """The fault of one call, or None. Only a confirmation can be late."""
        with self._lock:
            drawn, floor = self._random.random(), 0.0
            for name in CALL_FAULTS:
                floor += self.settings.probabilities.get(name, 0.0)
                if drawn < floor:
                    if name == "late" and step != "confirm":
                        return None
                    self._fired[name] += 1
                    return name
        return None

    def happens(self, name: str) -> bool:
        """Whether this one fault happens now."""
        with self._lock:
            is_drawn = self._random.random() < self.settings.probabilities.get(name, 0.0)
            self._fired[name] += is_drawn
            return is_drawn

    def spread(self, low: float, high: float) -> float:
        """A number between the two, from the same seed."""
        with self._lock:
            return self._random.uniform(low, high)

    def note_magic(self, name: str) -> None:
        """Count a fault that a payment method asked for."""
        with self._lock:
            self._fired[f"magic_{name}"] += 1

    def report(self) -> dict[str, Any]:
        """The settings and how often each fault fired since they were loaded."""
        with self._lock:
            return {**asdict(self.settings), "fired": dict(self._fired)}


def settings_as_text(settings: FaultSettings) -> str:
    """The settings as they are kept in the books, so that a restart goes on with them."""
    return json.dumps(asdict(settings))
