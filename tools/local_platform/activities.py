"""What the local platform reports to the live view, and its summary of each interval.

The summary has a bounded size however much is reported: counts by kind, and the first activities.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum

RECENT_MAX = 40
FLOWS_MAX = 200


class ActivityKind(StrEnum):
    """What a component of the platform did."""

    REQUEST = "request"
    START = "start"
    STOP = "stop"
    KILL = "kill"
    RELOAD = "reload"
    ERROR = "error"
    EVENT = "event"
    LOSS = "loss"
    DUPLICATE = "duplicate"
    DELIVERY = "delivery"
    RETRY = "retry"
    DEAD_LETTER = "dead_letter"
    TICK = "tick"


@dataclass(frozen=True, kw_only=True)
class Activity:
    """One activity: ``subject`` is a route, an event type or a schedule, ``code`` a status."""

    kind: ActivityKind
    function: str = ""
    subject: str = ""
    code: int = 0
    seconds: float = 0.0
    detail: str = ""


@dataclass
class Interval:
    """The activities since the last ``take``."""

    _counts: Counter[tuple[str, str, str, int]] = field(
        default_factory=Counter[tuple[str, str, str, int]]
    )
    _recent: list[Activity] = field(default_factory=list[Activity])
    _left_out: int = 0

    def add(self, activity: Activity) -> None:
        """Counts an activity, and keeps it while there is room."""
        key = (activity.kind.value, activity.function, activity.subject, activity.code)
        if key in self._counts or len(self._counts) < FLOWS_MAX:
            self._counts[key] += 1
        if len(self._recent) < RECENT_MAX:
            self._recent.append(activity)
        else:
            self._left_out += 1

    def take(self) -> dict[str, object]:
        """The summary, which begins again."""
        summary: dict[str, object] = {
            "flows": [
                {"kind": kind, "function": function, "subject": subject, "code": code, "count": n}
                for (kind, function, subject, code), n in self._counts.items()
            ],
            "activities": [asdict(activity) for activity in self._recent],
            "leftOut": self._left_out,
        }
        self._counts.clear()
        self._recent.clear()
        self._left_out = 0
        return summary
