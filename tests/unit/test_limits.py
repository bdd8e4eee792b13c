"""A request after the Retry-After of a rate limit passes."""

from __future__ import annotations

import pytest

from shop.runtime.rate_limit import WINDOW_SECONDS, retry_after_seconds

LIMIT = 120
COUNTS = (0, 1, 60, 119, 120, 121, 160, 5000)
REJECTED = [
    (current, last, elapsed)
    for current in COUNTS[1:]
    for last in COUNTS
    for elapsed in (0.0, 0.4, 30.0, 59.9)
    if current + int(last * (1 - elapsed / WINDOW_SECONDS)) > LIMIT
]


@pytest.mark.parametrize(("current", "last", "elapsed"), REJECTED)
def test_after_retry_after_the_next_request_passes(current: int, last: int, elapsed: float) -> None:
    wait = retry_after_seconds(LIMIT, current, last, elapsed)

    assert 1 <= wait <= 2 * WINDOW_SECONDS
    then = elapsed + wait
    used = 1 + current + int(last * max(0.0, 1 - then / WINDOW_SECONDS))
    if then >= WINDOW_SECONDS:
        used = 1 + int(current * max(0.0, 2 - then / WINDOW_SECONDS))
    assert used <= LIMIT


@pytest.mark.parametrize(("current", "last", "elapsed"), REJECTED)
def test_a_second_before_retry_after_the_next_request_is_rejected(
    current: int, last: int, elapsed: float
) -> None:
    then = elapsed + retry_after_seconds(LIMIT, current, last, elapsed) - 1
    if then >= WINDOW_SECONDS:
        used = 1 + int(current * (2 - then / WINDOW_SECONDS))
    else:
        used = 1 + current + int(last * (1 - then / WINDOW_SECONDS))
    assert used > LIMIT
