"""How much is done when: the mix of actions, and a pace that makes up for what is missing.

Half of the actions come from buyers in a closed loop, who think between two actions; the other half
arrives at random (Poisson), however slow the shop is, until very many are waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

BUYERS = 40
# Orders are spread over the first part of the time: what faults prevent has to be made up for.
SPREAD = 0.6
HURRY = 0.01
# More than two cores can do; easing takes its share of it.
RATE_MAX = 200.0
# Half of the place actions and of the quick cancels at first; what was seen soon outweighs it.
YIELD_FIRST = 0.33
YIELD_WEIGHT = 20.0
# With the buyers of the closed loop: 80 actions at a time.  More only wait for each other, and a
# swamped machine brings less home.
VISITS_MAX = 40
WAIT_SECONDS_MAX = 0.5

MIX = {
    "browse": 40,
    "cart": 15,
    "place": 25,
    "cancel": 8,
    "refund": 4,
    "session": 5,
    "admin": 3,
}

Act = Callable[[Random, int | None], Awaitable[None]]


def choose_action(random: Random) -> str:
    """The next action of a buyer."""
    return random.choices(list(MIX), weights=list(MIX.values()))[0]


@dataclass
class Pace:
    """How many actions a second bring the wanted orders in time.

    ``share`` of that is done while the shop has more work behind it than it can do: what piles up
    says nothing about the shop but that somebody asked for too much.
    """

    orders: int
    seconds: float
    accepted: Callable[[], int]
    began: float
    begun: int = 0
    share: float = 1.0

    def is_over(self, now: float) -> bool:
        """True when the orders are accepted or the time is up."""
        return self.accepted() >= self.orders or now >= self.began + self.seconds

    def rate(self, now: float) -> float:
        """Actions a second from now on: the missing orders, over the time left for them."""
        left = max(HURRY * self.seconds, self.began + SPREAD * self.seconds - now)
        missing = max(0, self.orders - self.accepted())
        return self.share * min(RATE_MAX, missing / left / self._yield())

    def _yield(self) -> float:
        """Orders per action, as seen so far."""
        seen = self.accepted() + YIELD_FIRST * YIELD_WEIGHT
        return max(0.02, seen / (self.begun + YIELD_WEIGHT))


async def run_load(pace: Pace, act: Act, *, seed: int) -> None:
    """Acts until the pace is over; ``act(random, buyer)``, buyer None for one who just came by."""
    buyers = [_buy(pace, act, number, seed) for number in range(BUYERS)]
    await asyncio.gather(_arrive(pace, act, seed), *buyers)


async def _buy(pace: Pace, act: Act, number: int, seed: int) -> None:
    random = Random(f"{seed} buyer {number}")  # noqa: S311
    while True:
        rate = max(pace.rate(time.monotonic()) / 2 / BUYERS, 0.01)
        is_time = await _wait(pace, random.expovariate(rate))
        if pace.is_over(time.monotonic()):
            return
        if is_time:
            pace.begun += 1
            await act(random, number)


async def _arrive(pace: Pace, act: Act, seed: int) -> None:
    arrivals = Random(f"{seed} arrivals")  # noqa: S311
    visits: set[asyncio.Task[None]] = set()
    number = 0
    while not pace.is_over(time.monotonic()):
        rate = max(pace.rate(time.monotonic()) / 2, 0.1)
        is_time = await _wait(pace, arrivals.expovariate(rate))
        visits = {task for task in visits if not task.done()}
        if is_time and len(visits) < VISITS_MAX and not pace.is_over(time.monotonic()):
            number += 1
            pace.begun += 1
            random = Random(f"{seed} arrival {number}")  # noqa: S311
            visits.add(asyncio.create_task(_visit(act, random)))
    await asyncio.gather(*visits)


async def _visit(act: Act, random: Random) -> None:
    await act(random, None)


async def _wait(pace: Pace, seconds: float) -> bool:
    """Waits at most a moment and says whether the time has come.

    The pace may have changed since: a wait that was cut is drawn anew, which leaves an exponential
    distribution what it is.
    """
    left = max(0.0, pace.began + pace.seconds - time.monotonic())
    await asyncio.sleep(min(seconds, WAIT_SECONDS_MAX, left))
    return seconds <= WAIT_SECONDS_MAX
