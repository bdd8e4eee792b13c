"""Starts the faults that are active during the whole workload: F-05, F-06, F-07, F-10 and F-15.

The kill plan starts F-01.
"""

from __future__ import annotations

from chaos.environment import CLIENTS, DATABASE, PROVIDER, Environment
from chaos.proxy.toxics import Toxic

# Probabilities per event, per call or webhook of the provider, per COMMIT and per HTTP request.
DUPLICATE, REORDER, LOSE = 0.3, 0.2, 0.05
PROVIDER_PROBABILITIES = {
    "timeout_before": 0.01,
    "timeout_after": 0.01,
    "error_before": 0.03,
    "error_after": 0.03,
    "rate_limited": 0.03,
    "slow": 0.02,
    "slow_answer": 0.02,
    "late": 0.01,
    "wrong_amount": 0.01,
    "wrong_currency": 0.005,
    "wrong_key": 0.01,
    "webhook_lost": 0.1,
    "webhook_duplicated": 0.2,
    "webhook_reordered": 0.2,
    # what staff and customers do without a request of the shop
    "provider_refund": 0.01,
    "dispute": 0.01,
    "other_shop": 0.01,
}
COMMIT_REPLY_DROPPED = 0.006
REQUEST_DUPLICATED = 0.02
LATE_SECONDS_MAX = 30.0


async def start_continuous_faults(environment: Environment, selected: frozenset[str]) -> None:
    """Starts those of the continuous faults that are selected."""
    scale, faults = environment.tier.duration_scale, environment.message_faults
    faults.late_seconds_max = LATE_SECONDS_MAX * scale
    faults.duplicate = DUPLICATE if "F-05" in selected else 0.0
    faults.reorder = REORDER if "F-06" in selected else 0.0
    faults.lose = LOSE if "F-07" in selected else 0.0
    if "F-15" in selected:
        await environment.provider_faults.set_continuous(
            PROVIDER_PROBABILITIES,
            slow_seconds=1.0,
            late_seconds=20 * scale,
            reorder_seconds=10 * scale,
            unrequested_seconds=20 * scale,
            hang_seconds=5.0,
        )
    if "F-10" in selected:
        environment.continuous_toxics = {
            DATABASE: Toxic(kind="drop_commit_reply", probability=COMMIT_REPLY_DROPPED),
            CLIENTS: Toxic(kind="duplicate_request", probability=REQUEST_DUPLICATED),
            PROVIDER: Toxic(kind="duplicate_request", probability=REQUEST_DUPLICATED),
        }
        await environment.apply_continuous_toxics()
