"""Injected faults: duplicated, delayed and lost events, and killed function processes.

Repeatable: the n-th event of a type gets the same faults in every run with the same seed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

COPIES_MAX = 4
LATE_SECONDS_MAX = 5.0
KILL_SECONDS_MAX = 0.05


@dataclass
class DeliveryFaults:
    """The probability of each fault, from 0 to 1, and the seed of the random choices."""

    duplicate: float = 0.0
    reorder: float = 0.0
    lose: float = 0.0
    kill: float = 0.0
    seed: int = 0
    late_seconds_max: float = LATE_SECONDS_MAX
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    def loses(self, event_type: str) -> bool:
        """True if the next event of this type is accepted but never delivered."""
        return self._random_for("lose", event_type).random() < self.lose

    def delays(self, event_type: str, target: str) -> list[float]:
        """Delays in seconds of the next event to a target: the event's, then one per duplicate.

        About half of the duplicates have the delay of the event itself.
        """
        random = self._random_for("deliver", f"{event_type} {target}")
        first = random.uniform(0, self.late_seconds_max) if random.random() < self.reorder else 0.0
        copies = random.randint(1, COPIES_MAX) if random.random() < self.duplicate else 0
        late = [
            first + random.choice((0.0, random.uniform(0, self.late_seconds_max)))
            for _ in range(copies)
        ]
        return [first, *late]

    def kill_after(self, function: str) -> float | None:
        """Seconds after which the process that handles the next request is killed, or None."""
        random = self._random_for("kill", function)
        return random.uniform(0, KILL_SECONDS_MAX) if random.random() < self.kill else None

    def _random_for(self, fault: str, name: str) -> Random:
        self._seen[fault, name] += 1
        return Random(f"{self.seed} {fault} {name} {self._seen[fault, name]}")  # noqa: S311
