"""The end of a run: the shop comes to rest by itself, and everything is asked once more."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, LiteralString

import httpx

from chaos import resp, summary
from chaos.environment import Environment
from chaos.run_record import Check
from chaos.workload.client_log import operations, wanted_orders
from shop.primitives.ids import new_uuid
from tools.checker import provider_transactions
from tools.checker.evaluate import ExternalRecords, InvariantResult, evaluate_invariants
from tools.checker.provider_transactions import ProviderAccess

if TYPE_CHECKING:
    from chaos.monitor import Watch
    from chaos.run import Run

TAIL = 20
REPLAYED = 0.1
DELIVERED_SECONDS_MAX = 60.0
# Of the accepted orders that nobody cancelled and whose card is good, at least so many are paid.
PAID_SHARE_MIN = 0.95
# Seen twice, a second apart: nothing moves any more.
QUIET_LOOKS = 2
HURRY_EVERY = 10

UNRESTED: LiteralString = """
select 'order ' || order_id || ' ' || status from shop.orders o
where status not in ('PAID', 'CANCELLED')
  and not exists (select from shop.payments p join shop.refunds r using (payment_id)
    where p.order_id = o.order_id and r.status = 'REJECTED')
union all select 'payment ' || payment_id || ' ' || status from shop.payments
  where status in ('INTENT', 'UNKNOWN')
union all select 'refund ' || refund_id || ' ' || status from shop.refunds
  where status in ('INTENT', 'UNKNOWN')
union all select 'event ' || event_id || ' ' || type from shop.outbox where done_at is null
limit 20
"""
# After some failures the next try is minutes away.  That is right in the world, and here it would
# only be waited for: what is due some time is due now.
HURRY_PAYMENTS: LiteralString = """
update shop.payments set next_try_at = now()
where status in ('INTENT', 'UNKNOWN') and next_try_at > now() + interval '5 seconds'
"""
HURRY_REFUNDS: LiteralString = """
update shop.refunds set next_try_at = now()
where status in ('INTENT', 'UNKNOWN') and next_try_at > now() + interval '5 seconds'
"""
HURRY_EVENTS: LiteralString = """
update shop.outbox set next_try_at = now()
where done_at is null and parked_at is null and next_try_at > now() + interval '5 seconds'
"""
# These wait for their buyer: the card was declined, and nobody comes to pay again.
HURRY_EXPIRIES: LiteralString = """
update shop.orders o set expires_at = now()
where status = 'PENDING' and charge_at is null and expires_at > now()
  and not exists (select from shop.payments p where p.order_id = o.order_id
    and p.status in ('INTENT', 'UNKNOWN', 'CAPTURED'))
"""
HURRY = (HURRY_PAYMENTS, HURRY_REFUNDS, HURRY_EVENTS, HURRY_EXPIRIES)
STILL_DUE: LiteralString = """
select kind || ': ' || count(*) filter (where due_at <= now()) || ' due of ' || count(*)
from shop.due_work group by kind order by kind
"""
UNTAKEN: LiteralString = """
select entity || ' ' || from_status || ' to ' || to_status from (
  select entity, from_status, to_status from shop.allowed_transitions
  except select entity, from_status, to_status from shop.transitions) x order by 1
"""
ENDINGS: LiteralString = """
select order_id::text, status from shop.orders where order_id = any(%(order_ids)s::uuid[])
"""


async def close(run: Run, scene: Environment, watch: Watch) -> None:
    """Waits for rest, sends old events and old requests again, and asks every invariant."""
    await summary.count_commits(run.record, scene)
    await _come_to_rest(run, scene, "rest")
    await _send_events_again(run, scene)
    await _ask_the_load(run, scene)
    await _empty_redis(run, scene)
    await _come_to_rest(run, scene, "rest after the replays")
    async with watch.looking:
        await _ask_everything(run, scene)
    await summary.count_dead_letters(run.record, scene)
    await summary.note_fsync(run.record, scene)
    await _look_for_vacuity(run, scene)
    _look_at_the_faults(run, scene)


async def _come_to_rest(run: Run, scene: Environment, name: str) -> None:
    """Nothing is open, in the shop or on its way, and stays so."""
    run.progress.say(f"waiting for {name}")
    began = time.monotonic()
    left: list[str] = ["nothing was asked yet"]
    due: list[str] = []
    quiet = looks = 0
    while quiet < QUIET_LOOKS and time.monotonic() - began < scene.tier.rest_seconds_max:
        await asyncio.sleep(1.0)
        looks += 1
        async with scene.database() as database:
            if looks % HURRY_EVERY == 1:
                for statement in HURRY:
                    await database.execute(statement)
            left = [str(row[0]) for row in await (await database.execute(UNRESTED)).fetchall()]
            due = [str(row[0]) for row in await (await database.execute(STILL_DUE)).fetchall()]
        quiet = quiet + 1 if not left and not scene.platform.broker.pending else 0
    seconds = time.monotonic() - began
    holds = quiet >= QUIET_LOOKS
    pending = f"{scene.platform.broker.pending} deliveries pending"
    detail = f"after {seconds:.0f} s" if holds else f"not in {seconds:.0f} s: {', '.join(left[:5])}"
    _conclude(run, Check(id="rest", what=name, holds=holds, detail=detail), [pending, *due, *left])


async def _send_events_again(run: Run, scene: Environment) -> None:
    """F-05, once more: events that were taken long ago come again and find nothing to do."""
    for headers, body in run.again:
        await scene.platform.broker.accept(headers, body)
    began = time.monotonic()
    while scene.platform.broker.pending and time.monotonic() - began < DELIVERED_SECONDS_MAX:
        await asyncio.sleep(0.2)
    run.record.duplicates += len(run.again)


async def _ask_the_load(run: Run, scene: Environment) -> None:
    tail = await scene.load.ask("tail", count=TAIL)
    failed = [str(each) for each in tail["failed"]]
    what = f"the last {TAIL} operations of every endpoint succeed"
    detail = f"{tail['asked']} asked, {len(failed)} failed"
    _conclude(run, Check(id="liveness", what=what, holds=not failed, detail=detail), failed)
    replay = await scene.load.ask("replay", fraction=REPLAYED, seed=scene.seed)
    run.record.replays += int(replay["replayed"])
    different = [str(each) for each in replay["different"]]
    what = "finished requests are answered again byte for byte"
    detail = f"{replay['replayed']} replayed, {len(different)} different"
    _conclude(run, Check(id="replays", what=what, holds=not different, detail=detail), different)


async def _empty_redis(run: Run, scene: Environment) -> None:
    """Redis is never truth: a session that ended stays ended when Redis has forgotten it."""
    body = {"email": f"{new_uuid()}@faults.example", "password": "a long enough password"}
    async with httpx.AsyncClient(base_url=scene.edge_url, timeout=30) as client:
        answers = [await client.post("/users", json={**body, "name": "누구나"})]
        answers.append(await client.post("/auth/login", json=body))
        tokens = answers[-1].json()
        headers = {"authorization": f"Bearer {tokens.get('accessToken')}"}
        answers.append(await client.get("/users/me", headers=headers))
        refresh = {"refreshToken": tokens.get("refreshToken")}
        answers.append(await client.post("/auth/logout", json=refresh))
        await resp.ask(scene.redis.port, "FLUSHALL")
        answers.append(await client.get("/users/me", headers=headers))
    statuses = [answer.status_code for answer in answers]
    what = "a revoked token stays refused after FLUSHALL"
    detail = f"account, log-in, profile, log-out, profile answered {statuses}"
    holds = statuses == [201, 200, 200, 204, 401]
    _conclude(run, Check(id="revoked", what=what, holds=holds, detail=detail), [detail])


async def _ask_everything(run: Run, scene: Environment) -> None:
    run.progress.say("asking every invariant, with the provider's books and the clients' log")
    verdicts = await asyncio.to_thread(_results, scene)
    run.record.invariants = len(verdicts)
    for verdict in verdicts:
        if verdict.state == "broken":
            rows = [str(row) for row in verdict.rows]
            run.note(verdict.invariant.id, verdict.invariant.what, rows)
    broken = sum(verdict.state == "broken" for verdict in verdicts)
    asked = sum(verdict.state != "skipped" for verdict in verdicts)
    detail = f"{asked} asked, {broken} broken"
    what = "every invariant at rest"
    run.record.checks.append(Check(id="invariants", what=what, holds=not broken, detail=detail))


def _results(scene: Environment) -> list[InvariantResult]:
    access = ProviderAccess("sandbox", scene.provider_url, scene.secrets.provider_api_key)
    known = provider_transactions.external_records(access)
    outside = ExternalRecords(
        known.charges, known.refunds, tuple(operations(scene.clients)), tuple(scene.poison)
    )
    return evaluate_invariants(scene.admin_url, outside, at_rest=True, skipped={})


async def _look_for_vacuity(run: Run, scene: Environment) -> None:
    """A run in which nothing happens proves nothing."""
    wanted = wanted_orders(scene.clients)
    placed = [each for each in wanted if each not in scene.cut_short]
    async with scene.database() as database:
        rows = await (await database.execute(ENDINGS, {"order_ids": placed})).fetchall()
        untaken = [str(row[0]) for row in await (await database.execute(UNTAKEN)).fetchall()]
    paid = sum(row[1] == "PAID" for row in rows)
    share = paid / len(placed) if placed else 0.0
    what = f"of the orders that should be paid, {PAID_SHARE_MIN:.0%} are"
    cut_short = len(wanted) - len(placed)
    detail = f"{paid} of {len(placed)}, {share:.1%}; F-17 left {cut_short} no time"
    _conclude(run, Check(id="non-vacuity", what=what, holds=share >= PAID_SHARE_MIN, detail=detail))
    # what only a person's mistake or a provider's refusal brings about is told, not demanded
    detail = f"not taken: {', '.join(untaken)}" if untaken else "all"
    what = "transitions of the state machine that were taken"
    run.record.checks.append(Check(id="transitions", what=what, holds=True, detail=detail))


def _look_at_the_faults(run: Run, scene: Environment) -> None:
    """Every pair was killed as often as the tier says; what fired, and what surprised, is told."""
    surprises = ", ".join(f"{n} x {what}" for what, n in sorted(run.record.surprises.items()))
    what = "answers that the contract does not know"
    run.record.checks.append(
        Check(id="surprises", what=what, holds=True, detail=surprises or "none")
    )
    if "F-01" in run.kinds:
        crashes = scene.crashes
        missing = [
            f"{pair.function} {pair.window} {crashes.hits[pair]}"
            for pair in crashes.pairs
            if crashes.hits[pair] < crashes.per_pair
        ]
        what = f"every pair of function and window was hit {crashes.per_pair} times"
        detail = f"{crashes.kills} kills, {len(missing)} pairs missing"
        _conclude(run, Check(id="pairs", what=what, holds=not missing, detail=detail), missing)
    silent = [kind.id for kind in run.record.kinds if kind.state == "not tested"]
    what = "kinds of fault that fired"
    fired = sum(kind.state == "fired" for kind in run.record.kinds)
    detail = f"{fired} fired; not tested: {', '.join(silent) or 'none'}"
    run.record.checks.append(Check(id="kinds", what=what, holds=True, detail=detail))


def _conclude(run: Run, check: Check, rows: list[str] | None = None) -> None:
    run.record.checks.append(check)
    run.progress.say(f"{'holds' if check.holds else 'FAILS'}: {check.what}: {check.detail}")
    if not check.holds:
        run.note(check.id, check.what, (rows or [check.detail])[:20])
