"""The rate and the mix of actions: a pace that compensates for orders that are missing.

Half of the actions come from customers in a closed loop, with a pause between two actions.  The
other half arrive at random (Poisson), independent of response times, up to a limit of concurrency.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random

CLOSED_LOOP_CUSTOMERS = 40
# Orders are planned for the first part of the time; the rest is for those that faults prevent.
PLANNED_SHARE = 0.6
LAST_SHARE = 0.01
# More than two cores can process; the pace's ``share`` reduces it.
RATE_MAX = 200.0
# Accepted orders per action: half of the place actions and of the immediate cancellations at first.
# Observations soon outweigh this estimate.
YIELD_FIRST = 0.33
YIELD_WEIGHT = 20.0
YIELD_MIN = 0.02
# With the customers of the closed loop 80 concurrent actions.  With more, requests only wait for
# each other, and fewer orders are accepted.
ARRIVALS_MAX = 40
WAIT_SECONDS_MAX = 0.5

MIX = {
    "browse": 38,
    "cart": 15,
    "place": 25,
    "cancel": 7,
    "refund": 4,
    "support": 3,
    "session": 5,
    "admin": 3,
}

Act = Callable[[Random, int | None], Awaitable[None]]


def choose_action(random: Random, mix: Mapping[str, int] = MIX) -> str:
    """The next action of a customer."""
    return random.choices(list(mix), weights=list(mix.values()))[0]


@dataclass
class Pace:
    """How many actions per second lead to the planned orders in time.

    Only ``share`` of that rate is used while the shop has a large backlog: a growing backlog
    would only show that the load exceeds the machine.
    """

    orders: int
    seconds: float
    accepted: Callable[[], int]
    began: float
    started_actions: int = 0
    share: float = 1.0

    def is_over(self, now: float) -> bool:
        """True when the orders are accepted or the time is over."""
        return self.accepted() >= self.orders or now >= self.began + self.seconds

    def rate(self, now: float) -> float:
        """Actions per second from now on: the missing orders over the time left for them."""
        left = max(LAST_SHARE * self.seconds, self.began + PLANNED_SHARE * self.seconds - now)
        missing = max(0, self.orders - self.accepted())
        return self.share * min(RATE_MAX, missing / left / self._yield())

    def _yield(self) -> float:
        """Accepted orders per action so far."""
        accepted = self.accepted() + YIELD_FIRST * YIELD_WEIGHT
        return max(YIELD_MIN, accepted / (self.started_actions + YIELD_WEIGHT))


async def run_load(pace: Pace, act: Act, *, seed: int) -> None:
    """Starts actions until the pace is over.

    ``act(random, customer)`` gets the number of a closed-loop customer, None for an arrival.
    """
    loops = [_closed_loop(pace, act, number, seed) for number in range(CLOSED_LOOP_CUSTOMERS)]
    await asyncio.gather(_arrivals(pace, act, seed), *loops)


async def _closed_loop(pace: Pace, act: Act, number: int, seed: int) -> None:
    random = Random(f"{seed} customer {number}")  # noqa: S311
    while True:
        rate = max(pace.rate(time.monotonic()) / 2 / CLOSED_LOOP_CUSTOMERS, 0.01)
        is_due = await _wait(pace, random.expovariate(rate))
        if pace.is_over(time.monotonic()):
            return
        if is_due:
            pace.started_actions += 1
            await act(random, number)


async def _arrivals(pace: Pace, act: Act, seed: int) -> None:
    times = Random(f"{seed} arrivals")  # noqa: S311
    running: set[asyncio.Task[None]] = set()
    number = 0
    while not pace.is_over(time.monotonic()):
        rate = max(pace.rate(time.monotonic()) / 2, 0.1)
        is_due = await _wait(pace, times.expovariate(rate))
        running = {task for task in running if not task.done()}
        if is_due and len(running) < ARRIVALS_MAX and not pace.is_over(time.monotonic()):
            number += 1
            pace.started_actions += 1
            random = Random(f"{seed} arrival {number}")  # noqa: S311
            running.add(asyncio.create_task(_arrive(act, random)))
    await asyncio.gather(*running)


async def _arrive(act: Act, random: Random) -> None:
    await act(random, None)


async def _wait(pace: Pace, seconds: float) -> bool:
    """Waits for at most half a second; returns whether the whole time has passed.

    The pace may have changed since.  Drawing a wait again after a cut does not change an
    exponential distribution.
    """
    left = max(0.0, pace.began + pace.seconds - time.monotonic())
    await asyncio.sleep(min(seconds, WAIT_SECONDS_MAX, left))
    return seconds <= WAIT_SECONDS_MAX
