"""How much of everything a run does: smoke in CI, full under an hour, soak by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tier:
    """The size of a run.

    ``killing_share`` is the part of the load over which the kills are spread: starting processes is
    what costs most, and stragglers need the rest.  ``doses`` are how often each kind of fault is
    put in; ``hold`` stretches how long one lasts.
    ``expiry_seconds`` are the soft and the hard expiry of orders, short enough to come in the run.
    """

    name: str
    orders: int
    load_seconds: float
    rest_seconds_max: float
    kills_per_pair: int
    killing_share: float
    hold: float
    expiry_seconds: tuple[int, int]
    doses: Mapping[str, int]
    is_restored: bool = False


SMOKE_DOSES = {
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
}
# What a lane can carry in the time and leave the shop some: less than half of it.
FULL_DOSES = {
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
}

TIERS = {
    tier.name: tier
    for tier in (
        Tier(
            name="smoke",
            orders=2_000,
            load_seconds=205,
            rest_seconds_max=150,
            kills_per_pair=1,
            killing_share=0.75,
            hold=0.15,
            expiry_seconds=(120, 180),
            doses=SMOKE_DOSES,
        ),
        Tier(
            name="full",
            orders=50_000,
            load_seconds=2_700,
            rest_seconds_max=300,
            kills_per_pair=30,
            killing_share=0.92,
            hold=0.5,
            expiry_seconds=(240, 420),
            doses=FULL_DOSES,
            is_restored=True,
        ),
        Tier(
            name="soak",
            orders=200_000,
            load_seconds=4 * 2_700,
            rest_seconds_max=900,
            kills_per_pair=120,
            killing_share=0.92,
            hold=0.5,
            expiry_seconds=(240, 420),
            doses={kind: 4 * dose for kind, dose in FULL_DOSES.items()},
            is_restored=True,
        ),
    )
}
