"""Faults of messages: invalid events, races, retry storms, key rotation, missing clock ticks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import LiteralString

from chaos.environment import Environment
from chaos.faults.fault import Fault
from events.envelope import CloudEvent, to_binary
from shop.adapters.signatures import Signer
from shop.primitives.clock import utc_now
from shop.primitives.ids import new_uuid
from shop.primitives.spec import FunctionSpec
from tools.local_platform.secrets import new_key

PLACED = "com.msashop.order.placed.v1"
SOURCE = "/shop/place_order"
DOMAIN = "ordering"
NEWEST_ORDER: LiteralString = """
select order_id::text from shop.orders order by created_at desc limit 1
"""
RACES = (
    "cancel_cancel",
    "cancel_charge",
    "refund_refund",
    "refund_cancel",
    "same_key",
    "last_unit",
    "restock_reserve",
    "price_order",
)
RACES_PER_INJECTION = 8


async def send_poison(environment: Environment) -> str:
    """Sends events that must be rejected (F-19) and change nothing.

    Those that one of our keys signed for their source become dead letters, the forged ones do not.
    """
    async with environment.database() as database:
        row = await (await database.execute(NEWEST_ORDER)).fetchone()
    order_id = row[0] if row else str(new_uuid())
    signed = _signed_poison(environment, order_id)
    events = [*_forged_events(environment, order_id), *signed]
    previous, environment.message_faults.lose = environment.message_faults.lose, 0.0
    try:
        for event in events:
            headers, body = to_binary(event)
            if event in signed:
                environment.poison_events.append((event.id, event.source))
            await environment.platform.broker.accept(headers, body)
    finally:
        environment.message_faults.lose = previous
    return f"{len(events)} poison events"


def _forged_events(environment: Environment, order_id: str) -> list[CloudEvent]:
    """Events about an existing order without a signature that holds for their source."""
    signer = Signer(DOMAIN, environment.secrets.event_keys[DOMAIN])
    other_domain = Signer("payment", environment.secrets.event_keys["payment"])
    unknown_key = Signer(DOMAIN, new_key())
    return [
        _event(order_id),  # unsigned
        unknown_key.sign(_event(order_id)),
        other_domain.sign(_event(order_id)),  # a valid key of another domain than the source's
        replace(signer.sign(_event(order_id)), subject=str(new_uuid())),  # changed after signing
    ]


def _signed_poison(environment: Environment, order_id: str) -> list[CloudEvent]:
    """Events that our keys signed, each with one defect for which it must be rejected."""
    signer = Signer(DOMAIN, environment.secrets.event_keys[DOMAIN])
    other_domain = Signer("payment", environment.secrets.event_keys["payment"])
    other_source = replace(_event(order_id), source="/shop/charge")
    return [
        other_domain.sign(other_source),  # a source that does not emit this event type
        signer.sign(_event(str(new_uuid()))),  # unknown order
        signer.sign(replace(_event(order_id), data=b"{not json")),
        signer.sign(replace(_event(order_id), data=b"{}")),
        signer.sign(replace(_event(order_id), type="com.msashop.order.placed.v99")),
    ]


def _event(order_id: str) -> CloudEvent:
    return CloudEvent(
        id=str(new_uuid()),
        source=SOURCE,
        type=PLACED,
        subject=order_id,
        time=utc_now(),
        data=json.dumps({"orderId": order_id}).encode(),
    )


async def race_requests(environment: Environment) -> str:
    """Starts conflicting requests at a barrier (F-22); only allowed outcomes may result."""
    race = RACES[environment.activity_log.counts["races"] % len(RACES)]
    environment.activity_log.count("races")
    result = await environment.workload.call("race", race=race, times=RACES_PER_INJECTION)
    for mistake in result["wrong"]:
        environment.report_violation("F-22", f"{race}: {mistake}")
    return f"{result['races']} × {race}"


async def surge_of_retries(environment: Environment) -> str:
    """Sends ten times the load, from clients that retry immediately (F-23)."""
    result = await environment.workload.call(
        "surge", factor=10, seconds=30 * environment.tier.duration_scale
    )
    return (
        f"{result['sent']} requests in {result['attempts']} attempts, "
        f"{result['succeeded']} completed"
    )


async def rotate_signing_key(environment: Environment) -> str:
    """Signs new tokens with the other key (F-26); older tokens must stay valid."""
    environment.signs_with_second_key = not environment.signs_with_second_key
    for process in environment.processes("login", "register"):
        environment.pool_of(process).retire(process)
    await asyncio.sleep(5 * environment.tier.duration_scale)
    return "the signing key was rotated, both public keys are published"


async def stop_sweeps(environment: Environment) -> str:
    """Stops the sweep for a while, then runs it twice at the same time (F-27)."""
    pool = environment.platform.activator.pools["sweep"]
    pool.is_disabled = True
    try:
        await asyncio.sleep(60 * environment.tier.duration_scale)
    finally:
        pool.is_disabled = False
    schedule = pool.spec.schedules[0]
    ticks = [environment.platform.clock.tick(pool.spec, schedule) for _ in range(2)]
    accepted = await asyncio.gather(*ticks)
    return f"no sweep, then two at once ({accepted.count(True)} accepted)"


def second_key_settings(environment: Environment, spec: FunctionSpec) -> Mapping[str, str]:
    """The extra settings of a function that issues tokens while the second key signs (F-26)."""
    if spec.issues_tokens and environment.signs_with_second_key:
        return {"JWT_PRIVATE_KEY": environment.second_jwt_key}
    return {}


FAULTS = (
    Fault(id="F-19", title="poison events", group="messages", inject=send_poison),
    Fault(id="F-22", title="races from a barrier", group="messages", inject=race_requests),
    Fault(id="F-23", title="retry surge", group="messages", inject=surge_of_retries),
    Fault(id="F-26", title="signing key rotation", group="messages", inject=rotate_signing_key),
    Fault(id="F-27", title="no sweep, then two", group="messages", inject=stop_sweeps),
)
