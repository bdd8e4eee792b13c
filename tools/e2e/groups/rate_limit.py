"""Rate limits: told in headers, held over all processes, health exempt."""

from __future__ import annotations

import re
import time
from functools import partial

import httpx

from tools.e2e.accounts import Account
from tools.e2e.client import Call, NoAnswer, retry_after_seconds
from tools.e2e.harness import Stage, side_by_side
from tools.e2e.scenario import Scenario

WORKERS = 8
LIMIT_MAX = 5000
HEALTH = "/health/liveness"
QUOTA = re.compile(r"q=(\d+)")


def refuse_too_many_requests(stage: Stage) -> None:
    """One account asks more than it may: 429, and the headers say when to come back."""
    buyer, other = stage.new_customer(), stage.customer(1)
    me = Call("GET", "/users/me", token=buyer.token())
    health = stage.send(Call("GET", HEALTH))
    policy = stage.send(me).headers.get("RateLimit-Policy", "")
    quota = QUOTA.search(policy)
    if not stage.check.that("RateLimit-Policy tells the quota", quota is not None, repr(policy)):
        return
    limit = int(quota[1]) if quota else 0
    if not stage.check.that(f"the quota of {limit} can be tried out", limit <= LIMIT_MAX, policy):
        return
    refused = _exceed(stage, me, limit)
    if not stage.check.that(f"more than {limit} requests a minute: 429", refused is not None):
        return
    assert refused is not None
    _check_refusal(stage, refused)
    same = stage.send(Call("GET", HEALTH))
    stage.check.equal("health is exempt", same.status_code, health.status_code)
    stage.check.status("another account is not touched", stage.get("/users/me", other), 200)
    last = _check_another_address(stage, buyer)
    time.sleep(retry_after_seconds(last))
    back = stage.raw(me)
    stage.check.status("after Retry-After it is let in at once", back, 200)


def _exceed(stage: Stage, call: Call, limit: int) -> httpx.Response | None:
    """The first 429 of at most two windows' requests, None when there was none."""
    for _ in range(0, 2 * limit + WORKERS, 5 * WORKERS):
        answers = side_by_side([partial(_try, stage, call)] * (5 * WORKERS), WORKERS)
        refused = [a for a in answers if a is not None and a.status_code == 429]
        if refused:
            return refused[0]
    return None


def _check_refusal(stage: Stage, refused: httpx.Response) -> None:
    stage.check.problem("the refusal is a problem document", refused, 429)
    seconds = refused.headers.get("Retry-After", "")
    stage.check.that(
        "Retry-After is at most two minutes",
        seconds.isdigit() and 1 <= int(seconds) <= 120,
        seconds,
    )
    remaining = refused.headers.get("RateLimit", "")
    stage.check.that("RateLimit says that nothing remains", "r=0" in remaining, repr(remaining))
    stage.check.that(
        "RateLimit-Policy is there too", "q=" in refused.headers.get("RateLimit-Policy", "")
    )


def _check_another_address(stage: Stage, buyer: Account) -> httpx.Response:
    """A client cannot get a fresh quota by naming another address; the refusal it gets."""
    headers = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
    answer = stage.raw(Call("GET", "/users/me", token=buyer.token(), headers=headers))
    stage.check.status("an X-Forwarded-For of one's own does not help", answer, 429)
    return answer


def _try(stage: Stage, call: Call) -> httpx.Response | None:
    try:
        return stage.raw(call)
    except NoAnswer:
        return None


SCENARIOS = (Scenario(refuse_too_many_requests),)
