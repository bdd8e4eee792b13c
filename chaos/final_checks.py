"""The checks at the end of a run: the shop becomes quiescent and every invariant holds.

Each check has an id, which the report and the mutation tests use: ``quiescence``, ``liveness``,
``replays``, ``revoked-token``, ``webhooks``, ``mails``, ``invariants``, ``non-vacuity``,
``transitions``, ``unexpected-responses``, ``failpoint-pairs`` and ``faults``.
"""

from __future__ import annotations

import asyncio
import time
from typing import LiteralString

import httpx

from chaos import redis_admin
from chaos.environment import Environment
from chaos.mails import different_mails
from chaos.reconciliation import reconcile_completely
from chaos.report import summary
from chaos.report.record import Check
from chaos.results import RunResults
from chaos.workload.client_log import operations, orders_expected_paid
from shop.primitives.ids import new_uuid
from tools.checker import provider_transactions
from tools.checker.evaluate import ExternalRecords, InvariantResult, evaluate_invariants
from tools.checker.provider_transactions import ProviderAccess

ATTEMPTS_PER_OPERATION = 20
REPLAYED_SHARE = 0.1
DELIVERY_SECONDS_MAX = 60.0
ROWS_MAX = 20
# The minimum share of paid orders among those that were not cancelled and have a valid card.
PAID_SHARE_MIN = 0.95
# Quiescence is observed twice, a second apart.
QUIESCENT_OBSERVATIONS = 2
ADVANCE_TIMERS_EVERY = 10

OPEN_WORK: LiteralString = """
select 'order ' || order_id || ' ' || status from shop.orders o
where status not in ('PAID', 'REFUNDED', 'CANCELLED')
  and not exists (select from shop.payments p join shop.refunds r using (payment_id)
    where p.order_id = o.order_id and p.refund_reserved_minor < p.amount_minor
      and r.status in ('REJECTED', 'REVERSED'))
union all select 'payment ' || payment_id || ' ' || status from shop.payments
  where status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')
union all select 'refund ' || refund_id || ' ' || status from shop.refunds
  where status in ('INTENT', 'UNKNOWN')
union all select 'event ' || event_id || ' ' || type from shop.outbox where done_at is null
union all select 'webhook delivery ' || d.event_id from shop.webhook_deliveries d
  join shop.webhooks w using (webhook_id) where d.state = 'PENDING' and w.url like '%/events'
union all select 'mail ' || event_id || ' ' || status from shop.mails
  where status in ('PENDING', 'SENDING', 'UNKNOWN')
union all select kind || ' ' || id || ' was due at ' || due_at from shop.due_work
  where kind in ('price', 'erase') and due_at < now() - interval '5 seconds'
limit 20
"""
# After several failures the next retry is minutes away.  The run does not wait for it: every timer
# that is more than five seconds away is set to now.
ADVANCE_PAYMENTS: LiteralString = """
update shop.payments set next_try_at = now(), act_until = least(act_until, now())
where status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')
  and next_try_at > now() + interval '5 seconds'
"""
ADVANCE_REFUNDS: LiteralString = """
update shop.refunds set next_try_at = now()
where status in ('INTENT', 'UNKNOWN') and next_try_at > now() + interval '5 seconds'
"""
ADVANCE_EVENTS: LiteralString = """
update shop.outbox set next_try_at = now()
where done_at is null and parked_at is null and next_try_at > now() + interval '5 seconds'
"""
# Orders with a declined card that no customer of the workload will pay again.
ADVANCE_EXPIRIES: LiteralString = """
update shop.orders o set expires_at = now()
where status = 'PENDING' and charge_at is null and expires_at > now()
  and not exists (select from shop.payments p where p.order_id = o.order_id
    and p.status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION', 'CAPTURED'))
"""
ADVANCE_DELIVERIES: LiteralString = """
update shop.webhook_deliveries set next_try_at = now()
where state = 'PENDING' and next_try_at > now() + interval '5 seconds'
"""
ADVANCE_MAILS: LiteralString = """
update shop.mails set next_try_at = now()
where status in ('PENDING', 'UNKNOWN') and next_try_at > now() + interval '5 seconds'
"""
# but for a process that may be sending
ADVANCE_WEBHOOKS: LiteralString = """
update shop.webhooks set next_run_at = now()
where state = 'ACTIVE' and failed_runs > 0 and next_run_at > now() + interval '5 seconds'
"""
ADVANCE_TIMERS = (
    ADVANCE_PAYMENTS,
    ADVANCE_REFUNDS,
    ADVANCE_EVENTS,
    ADVANCE_EXPIRIES,
    ADVANCE_DELIVERIES,
    ADVANCE_WEBHOOKS,
    ADVANCE_MAILS,
)
DUE_JOBS: LiteralString = """
select kind || ': ' || count(*) filter (where due_at <= now()) || ' due of ' || count(*)
from shop.due_work group by kind order by kind
"""
UNUSED_TRANSITIONS: LiteralString = """
select entity || ' ' || from_status || ' to ' || to_status from (
  select entity, from_status, to_status from shop.allowed_transitions
  except select entity, from_status, to_status from shop.transitions) x order by 1
"""
EVENTS_FOR_WEBHOOK: LiteralString = """
select o.event_id::text from shop.webhooks w join shop.outbox o on o.type = any(w.event_types)
where w.url like '%/events' and o.created_at > w.active_since
"""
STATUS_OF_ORDERS: LiteralString = """
select order_id::text, status from shop.orders where order_id = any(%(order_ids)s::uuid[])
"""


async def run_all(
    results: RunResults, environment: Environment, monitor_lock: asyncio.Lock
) -> None:
    """Runs the checks in order; the last ones without evaluations by the monitor."""
    await summary.count_ambiguous_commits(results.record, environment)
    await _check_quiescence(results, environment, "quiescence")
    await _deliver_events_again(results, environment)
    await _check_liveness(results, environment)
    await _check_replays(results, environment)
    await _check_revoked_token(results, environment)
    await _check_quiescence(results, environment, "quiescence after the replays")
    await _check_webhooks(results, environment)
    await _check_mails(results, environment)
    async with monitor_lock:
        await _check_invariants(results, environment)
    await summary.count_dead_letters(results.record, environment)
    await summary.note_fsync(results.record, environment)
    await _check_paid_orders(results, environment)
    await _list_unused_transitions(results, environment)
    _list_unexpected_responses(results)
    _check_failpoint_pairs(results, environment)
    _list_untested_faults(results)


async def _check_quiescence(results: RunResults, environment: Environment, title: str) -> None:
    """Waits until all work is finished, and so once more after a complete reconciliation.

    What the provider did without a request may be only in its list: webhooks are lost.
    """
    results.progress.write_line(f"waiting for {title}")
    began, time_max = time.monotonic(), environment.tier.quiescence_seconds_max
    open_work = await _wait_until_finished(environment, began + time_max)
    if not open_work:
        left = began + time_max - time.monotonic()
        is_reconciled = await reconcile_completely(environment, seconds_max=left)
        open_work = ["reconciliation with the provider"]
        if is_reconciled:
            open_work = await _wait_until_finished(environment, began + time_max)
    seconds = time.monotonic() - began
    detail = (
        f"open after {seconds:.0f} s: {open_work[:5]}" if open_work else f"after {seconds:.0f} s"
    )
    async with environment.database() as database:
        due = [str(row[0]) for row in await (await database.execute(DUE_JOBS)).fetchall()]
    check = Check(id="quiescence", title=title, has_passed=not open_work, detail=detail)
    _add(results, check, [*due, *open_work])


async def _wait_until_finished(environment: Environment, deadline: float) -> list[str]:
    """Waits until no work is open for a second; returns what is still open at ``deadline``."""
    open_work = ["not queried yet"]
    quiescent = observations = 0
    while quiescent < QUIESCENT_OBSERVATIONS and (quiescent or time.monotonic() < deadline):
        await asyncio.sleep(1.0)
        observations += 1
        async with environment.database() as database:
            if observations % ADVANCE_TIMERS_EVERY == 1:
                for statement in ADVANCE_TIMERS:
                    await database.execute(statement)
            rows = await (await database.execute(OPEN_WORK)).fetchall()
        open_work = [*await _open_outside_shop(environment), *(str(row[0]) for row in rows)]
        quiescent = 0 if open_work else quiescent + 1
    return open_work


async def _open_outside_shop(environment: Environment) -> list[str]:
    """Deliveries that the broker has not finished, and what the provider has yet to do."""
    deliveries = environment.platform.broker.pending
    actions = await environment.provider_faults.scheduled_actions()
    counts = {"deliveries": deliveries, "actions of the provider": actions}
    return [f"{count} {what}" for what, count in counts.items() if count]


async def _deliver_events_again(results: RunResults, environment: Environment) -> None:
    """Delivers events of the run again (F-05 after quiescence); they must change nothing."""
    for headers, body in results.sampler.events:
        await environment.platform.broker.accept(headers, body)
    began, broker = time.monotonic(), environment.platform.broker
    while broker.pending and time.monotonic() - began < DELIVERY_SECONDS_MAX:
        await asyncio.sleep(0.2)
    results.record.events_duplicated += len(results.sampler.events)


async def _check_liveness(results: RunResults, environment: Environment) -> None:
    result = await environment.workload.call("check_liveness", count=ATTEMPTS_PER_OPERATION)
    failed = [str(each) for each in result["failed"]]
    title = f"every operation succeeds {ATTEMPTS_PER_OPERATION} times at the first attempt"
    detail = (
        f"{result['requested']} requests, {len(failed)} failed; "
        f"the client waited for a processor for at most {result['waited']:.1f} s"
    )
    _add(results, Check(id="liveness", title=title, has_passed=not failed, detail=detail), failed)


async def _check_replays(results: RunResults, environment: Environment) -> None:
    result = await environment.workload.call(
        "replay", fraction=REPLAYED_SHARE, seed=environment.seed
    )
    results.record.replays += int(result["replayed"])
    different = [str(each) for each in result["different"]]
    title = "repeated requests get the same response, byte for byte"
    detail = f"{result['replayed']} replayed, {len(different)} different"
    _add(
        results,
        Check(id="replays", title=title, has_passed=not different, detail=detail),
        different,
    )


async def _check_revoked_token(results: RunResults, environment: Environment) -> None:
    """Checks that an ended session stays ended when Redis is empty: Redis is only a cache."""
    body = {"email": f"{new_uuid()}@faults.example", "password": "a long enough password"}
    async with httpx.AsyncClient(base_url=environment.edge_url, timeout=30) as client:
        responses = [await client.post("/users", json={**body, "name": "누구나"})]
        responses.append(await client.post("/auth/login", json=body))
        tokens = responses[-1].json()
        headers = {"authorization": f"Bearer {tokens.get('accessToken')}"}
        responses.append(await client.get("/users/me", headers=headers))
        refresh = {"refreshToken": tokens.get("refreshToken")}
        responses.append(await client.post("/auth/logout", json=refresh))
        await redis_admin.execute(environment.endpoints.redis_url, "FLUSHALL")
        responses.append(await client.get("/users/me", headers=headers))
    statuses = [response.status_code for response in responses]
    title = "a revoked token is rejected after FLUSHALL"
    detail = f"statuses of register, log-in, profile, log-out, profile: {statuses}"
    has_passed = statuses == [201, 200, 200, 204, 401]
    _add(results, Check(id="revoked-token", title=title, has_passed=has_passed, detail=detail))


async def _check_webhooks(results: RunResults, environment: Environment) -> None:
    """Compares the events with what the receiver has accepted by its own record (F-30)."""
    async with environment.database() as database:
        rows = await (await database.execute(EVENTS_FOR_WEBHOOK)).fetchall()
    events, receiver = {str(row[0]) for row in rows}, environment.receiver
    accepted = receiver.accepted_ids()
    different = [*(f"lost {e}" for e in events - accepted), *accepted - events]
    title = "a receiver of webhooks has accepted every event and no other"
    detail = f"{len(events)} events, {len(receiver.received())} requests, {len(different)} differ"
    has_passed = bool(events) and not different
    _add(
        results,
        Check(id="webhooks", title=title, has_passed=has_passed, detail=detail),
        different,
    )


async def _check_mails(results: RunResults, environment: Environment) -> None:
    """Compares the mails with what the mail server has received by its own record."""
    sent, different = await different_mails(environment)
    title = "the mail server has received every sent mail, and a second copy only of a second try"
    detail = f"{sent} mails sent, {len(different)} differ"
    has_passed = bool(sent) and not different
    _add(results, Check(id="mails", title=title, has_passed=has_passed, detail=detail), different)


async def _check_invariants(results: RunResults, environment: Environment) -> None:
    results.progress.write_line(
        "evaluating every invariant with provider transactions and the clients' log"
    )
    evaluated = await asyncio.to_thread(_evaluate_invariants, environment)
    results.record.invariants = len(evaluated)
    for result in evaluated:
        if result.state == "broken":
            rows = [str(row) for row in result.rows]
            results.report(result.invariant.id, result.invariant.what, rows)
    broken = sum(result.state == "broken" for result in evaluated)
    evaluations = sum(result.state != "skipped" for result in evaluated)
    detail = f"{evaluations} evaluated, {broken} violated"
    title = "every invariant after quiescence"
    results.record.checks.append(
        Check(id="invariants", title=title, has_passed=not broken, detail=detail)
    )


def _evaluate_invariants(environment: Environment) -> list[InvariantResult]:
    access = ProviderAccess(
        "sandbox", environment.provider_url, environment.secrets.provider_api_key
    )
    known = provider_transactions.external_records(access)
    records = ExternalRecords(
        known.charges,
        known.refunds,
        tuple(operations(environment.client_log)),
        tuple(environment.poison_events),
        known.disputes,
    )
    return evaluate_invariants(environment.admin_url, records, at_rest=True, skipped={})


async def _check_paid_orders(results: RunResults, environment: Environment) -> None:
    """Checks that enough orders were paid: invariants also hold when every order fails."""
    expected = orders_expected_paid(environment.client_log)
    orders = [each for each in expected if each not in environment.shortened_orders]
    async with environment.database() as database:
        rows = await database.execute(STATUS_OF_ORDERS, {"order_ids": orders})
        paid = sum(row[1] == "PAID" for row in await rows.fetchall())
    share = paid / len(orders) if orders else 0.0
    title = f"at least {PAID_SHARE_MIN:.0%} of the orders that should be paid are"
    excluded = len(expected) - len(orders)
    detail = f"{paid} of {len(orders)}, {share:.1%}; {excluded} excluded (F-17)"
    has_passed = share >= PAID_SHARE_MIN
    _add(results, Check(id="non-vacuity", title=title, has_passed=has_passed, detail=detail))


async def _list_unused_transitions(results: RunResults, environment: Environment) -> None:
    """Lists transitions as information: some need an operator or a rejection by the provider."""
    async with environment.database() as database:
        rows = await (await database.execute(UNUSED_TRANSITIONS)).fetchall()
    unused = ", ".join(str(row[0]) for row in rows)
    _add_information(results, "transitions", "status transitions that did not occur", unused)


def _list_unexpected_responses(results: RunResults) -> None:
    counts = sorted(results.record.unexpected_responses.items())
    text = ", ".join(f"{count} x {name}" for name, count in counts)
    _add_information(results, "unexpected-responses", "responses outside the HTTP contract", text)


def _check_failpoint_pairs(results: RunResults, environment: Environment) -> None:
    if "F-01" not in results.selected:
        return
    plan = environment.kill_plan
    missing = [
        f"{pair.function} {pair.failpoint} {plan.kills[pair]}"
        for pair in plan.pairs
        if plan.kills[pair] < plan.kills_per_pair
    ]
    title = f"{plan.kills_per_pair} kills at every pair of function and failpoint"
    detail = f"{plan.kills_total} kills, {len(missing)} pairs incomplete"
    check = Check(id="failpoint-pairs", title=title, has_passed=not missing, detail=detail)
    _add(results, check, missing)


def _list_untested_faults(results: RunResults) -> None:
    untested = [fault.id for fault in results.record.faults if fault.state == "not tested"]
    _add_information(
        results, "faults", "selected faults that were not injected", ", ".join(untested)
    )


def _add(results: RunResults, check: Check, rows: list[str] | None = None) -> None:
    """Adds a check to the record, and a violation if it failed."""
    results.record.checks.append(check)
    state = "passed" if check.has_passed else "FAILED"
    results.progress.write_line(f"{state}: {check.title}: {check.detail}")
    if not check.has_passed:
        results.report(check.id, check.title, (rows or [check.detail])[:ROWS_MAX])


def _add_information(results: RunResults, id: str, title: str, text: str) -> None:
    """Adds a check that cannot fail."""
    results.record.checks.append(Check(id=id, title=title, has_passed=True, detail=text or "none"))
