"""Decides by its figures whether a revision may receive more requests."""

from __future__ import annotations

from dataclasses import dataclass

from tools.rollout.figures import Figures

LATENCY_FLOOR_SECONDS = 0.1
ERRORS_MIN = 3


@dataclass(frozen=True)
class Limits:
    """What a candidate may not exceed; its latency is compared with the stable revision's."""

    error_percent: float
    latency_ratio: float
    cold_start_seconds: float
    requests_min: int


def exceeded(candidate: Figures, stable: Figures, limits: Limits) -> str | None:
    """The limit that the candidate exceeds, with its figures, or None.

    Fewer than three errors or ``requests_min`` requests decide nothing, and a latency
    below 0.1 s is always allowed.
    """
    percent = 100 * candidate.errors / candidate.requests if candidate.requests else 0.0
    if candidate.errors >= ERRORS_MIN and percent > limits.error_percent:
        return (
            f"{candidate.errors} of {candidate.requests} responses are 5xx ({percent:.1f} %, "
            f"limit {limits.error_percent:g} %)"
        )
    cold = candidate.cold_start_seconds
    if cold is not None and cold > limits.cold_start_seconds:
        return f"cold starts take {cold:.2f} s (limit {limits.cold_start_seconds:g} s)"
    return _slower(candidate, stable, limits)


def _slower(candidate: Figures, stable: Figures, limits: Limits) -> str | None:
    slow, usual = candidate.p95_seconds, stable.p95_seconds
    if slow is None or usual is None or slow < LATENCY_FLOOR_SECONDS:
        return None
    if min(candidate.requests, stable.requests) < limits.requests_min:
        return None
    if slow <= limits.latency_ratio * usual:
        return None
    return (
        f"the 95th percentile is {slow * 1000:.0f} ms, {slow / usual:.1f} times the stable "
        f"revision's (limit {limits.latency_ratio:g})"
    )
