"""The sizes of a run: smoke in CI, full in less than an hour, soak by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Tier:
    """The size of a run.

    ``kill_share`` is the share of the workload's time over which kills are spread; the rest is for
    failpoints that have not been reached by then.  ``repetitions`` is how often each scheduled
    fault is injected, ``duration_scale`` multiplies its duration.  ``expiry_seconds`` are the soft
    and the hard expiry of orders, short enough to happen during the run.
    """

    name: str
    orders: int
    load_seconds: float
    quiescence_seconds_max: float
    kills_per_pair: int
    kill_share: float
    duration_scale: float
    expiry_seconds: tuple[int, int]
    repetitions: Mapping[str, int]
    includes_restore: bool = False

    def of_length(self, seconds: float) -> Tier:
        """The tier with another time of load; a shorter one has fewer kills and repetitions."""
        share = min(1.0, seconds / self.load_seconds)
        return replace(
            self,
            load_seconds=seconds,
            kills_per_pair=max(1, round(self.kills_per_pair * share)),
            repetitions={
                fault_id: max(1, round(count * share))
                for fault_id, count in self.repetitions.items()
            },
        )


SMOKE_REPETITIONS = {
    "F-02": 8,
    "F-03": 10,
    "F-04": 1,
    "F-08": 1,
    "F-09": 4,
    "F-11": 1,
    "F-12": 4,
    "F-13": 1,
    "F-14": 4,
    "F-16": 2,
    "F-17": 1,
    "F-18": 1,
    "F-19": 4,
    "F-20": 1,
    "F-22": 8,
    "F-23": 1,
    "F-24": 5,
    "F-25": 1,
    "F-26": 2,
    "F-27": 1,
    "F-29": 4,
    "F-30": 4,
    "F-31": 2,
}
# The faults of each group take less than half of the time, so that the shop also runs without them.
FULL_REPETITIONS = {
    "F-02": 200,
    "F-03": 200,
    "F-04": 12,
    "F-08": 15,
    "F-09": 80,
    "F-11": 8,
    "F-12": 60,
    "F-13": 3,
    "F-14": 40,
    "F-16": 30,
    "F-17": 8,
    "F-18": 8,
    "F-19": 60,
    "F-20": 6,
    "F-22": 120,
    "F-23": 3,
    "F-24": 30,
    "F-25": 12,
    "F-26": 10,
    "F-27": 6,
    "F-29": 60,
    "F-30": 20,
    "F-31": 10,
}

TIERS = {
    tier.name: tier
    for tier in (
        Tier(
            name="smoke",
            orders=2_000,
            load_seconds=205,
            quiescence_seconds_max=150,
            kills_per_pair=1,
            kill_share=0.75,
            duration_scale=0.15,
            expiry_seconds=(120, 180),
            repetitions=SMOKE_REPETITIONS,
        ),
        Tier(
            name="full",
            orders=50_000,
            load_seconds=2_700,
            quiescence_seconds_max=300,
            kills_per_pair=30,
            kill_share=0.92,
            duration_scale=0.5,
            expiry_seconds=(240, 420),
            repetitions=FULL_REPETITIONS,
            includes_restore=True,
        ),
        Tier(
            name="soak",
            orders=200_000,
            load_seconds=4 * 2_700,
            quiescence_seconds_max=900,
            kills_per_pair=120,
            kill_share=0.92,
            duration_scale=0.5,
            expiry_seconds=(240, 420),
            repetitions={fault_id: 4 * count for fault_id, count in FULL_REPETITIONS.items()},
            includes_restore=True,
        ),
    )
}
