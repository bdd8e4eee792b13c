"""Rate limits: headers, one limit over all processes, health checks exempt."""

from __future__ import annotations

import re
import time
from functools import partial

import httpx

from tools.e2e.accounts import Account
from tools.e2e.client import Call, NoResponse, retry_after_seconds
from tools.e2e.context import ScenarioContext, run_in_parallel
from tools.e2e.scenario import Scenario

WORKERS = 8
LIMIT_MAX = 5000
HEALTH = "/health/liveness"
QUOTA = re.compile(r"q=(\d+)")


def exceeding_the_rate_limit_answers_429(context: ScenarioContext) -> None:
    """An account over its limit gets 429 with Retry-After and the rate limit headers."""
    customer, other = context.new_customer(), context.customer(1)
    me = Call("GET", "/users/me", token=customer.token())
    health = context.send(Call("GET", HEALTH))
    policy = context.send(me).headers.get("RateLimit-Policy", "")
    quota = QUOTA.search(policy)
    if not context.check.that("RateLimit-Policy has the quota", quota is not None, repr(policy)):
        return
    limit = int(quota[1]) if quota else 0
    if not context.check.that(
        f"the quota of {limit} is small enough to test", limit <= LIMIT_MAX, policy
    ):
        return
    limited = _exceed(context, me, limit)
    if not context.check.that(f"more than {limit} requests a minute: 429", limited is not None):
        return
    assert limited is not None
    _check_429(context, limited)
    same = context.send(Call("GET", HEALTH))
    context.check.equal("health checks are exempt", same.status_code, health.status_code)
    context.check.status("another account is not limited", context.get("/users/me", other), 200)
    last = _check_another_address(context, customer)
    time.sleep(retry_after_seconds(last))
    back = context.send_unretried(me)
    context.check.status("after Retry-After the next request is accepted", back, 200)


def _exceed(context: ScenarioContext, call: Call, limit: int) -> httpx.Response | None:
    """The first 429 within two windows' requests, None without one."""
    for _ in range(0, 2 * limit + WORKERS, 5 * WORKERS):
        responses = run_in_parallel([partial(_try, context, call)] * (5 * WORKERS), WORKERS)
        limited = [
            response
            for response in responses
            if response is not None and response.status_code == 429
        ]
        if limited:
            return limited[0]
    return None


def _check_429(context: ScenarioContext, limited: httpx.Response) -> None:
    context.check.problem("429 has a problem document", limited, 429)
    seconds = limited.headers.get("Retry-After", "")
    context.check.that(
        "Retry-After is at most two minutes",
        seconds.isdigit() and 1 <= int(seconds) <= 120,
        seconds,
    )
    remaining = limited.headers.get("RateLimit", "")
    context.check.that("RateLimit has r=0", "r=0" in remaining, repr(remaining))
    context.check.that(
        "429 has RateLimit-Policy", "q=" in limited.headers.get("RateLimit-Policy", "")
    )


def _check_another_address(context: ScenarioContext, customer: Account) -> httpx.Response:
    """Sends another client address, which must not give a new quota; returns the 429."""
    headers = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
    response = context.send_unretried(
        Call("GET", "/users/me", token=customer.token(), headers=headers)
    )
    context.check.status("a client-supplied X-Forwarded-For: 429", response, 429)
    return response


def _try(context: ScenarioContext, call: Call) -> httpx.Response | None:
    try:
        return context.send_unretried(call)
    except NoResponse:
        return None


SCENARIOS = (Scenario(exceeding_the_rate_limit_answers_429),)
