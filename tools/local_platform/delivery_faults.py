"""What goes wrong on demand: duplicates, late events, lost events and killed processes.

The n-th event of a type meets the same fate in every run with the same seed, whatever else happens
in between; only the moments differ.
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
    """Probabilities between 0 and 1, and the seed that decides."""

    duplicate: float = 0.0
    reorder: float = 0.0
    lose: float = 0.0
    kill: float = 0.0
    seed: int = 0
    late_seconds_max: float = LATE_SECONDS_MAX
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)

    def loses(self, event_type: str) -> bool:
        """Whether the next event of this type is accepted and then forgotten."""
        return self._dice("lose", event_type).random() < self.lose

    def delays(self, event_type: str, target: str) -> list[float]:
        """Seconds to wait before each delivery of the next event to a target: one per copy.

        The first belongs to the event itself.  Of the copies, about half come at the same moment.
        """
        dice = self._dice("deliver", f"{event_type} {target}")
        first = dice.uniform(0, self.late_seconds_max) if dice.random() < self.reorder else 0.0
        copies = dice.randint(1, COPIES_MAX) if dice.random() < self.duplicate else 0
        late = [
            first + dice.choice((0.0, dice.uniform(0, self.late_seconds_max)))
            for _ in range(copies)
        ]
        return [first, *late]

    def kill_after(self, function: str) -> float | None:
        """Seconds after which the process that serves the next message is killed, or None."""
        dice = self._dice("kill", function)
        return dice.uniform(0, KILL_SECONDS_MAX) if dice.random() < self.kill else None

    def _dice(self, kind: str, name: str) -> Random:
        self._seen[kind, name] += 1
        return Random(f"{self.seed} {kind} {name} {self._seen[kind, name]}")  # noqa: S311
