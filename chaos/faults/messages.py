"""What comes in that should not, at the wrong time, or all at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import LiteralString

from chaos.environment import Environment
from chaos.faults.fault import Kind
from events.envelope import CloudEvent, to_binary
from shop.adapters.signatures import Signer
from shop.primitives.clock import utc_now
from shop.primitives.ids import new_uuid
from shop.primitives.spec import FunctionSpec
from tools.local_platform.secrets import new_key

PLACED = "com.msashop.order.placed.v1"
SOURCE = "/shop/place_order"
DOMAIN = "ordering"
SOME_ORDER: LiteralString = """
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
RACES_AT_ONCE = 8


async def send_poison(scene: Environment) -> str:
    """F-19: events that nobody may take; each must become a dead letter, and nothing else."""
    async with scene.database() as database:
        row = await (await database.execute(SOME_ORDER)).fetchone()
    poisons = _poisons(scene, row[0] if row else str(new_uuid()))
    kept, scene.message_faults.lose = scene.message_faults.lose, 0.0
    try:
        for event in poisons:
            headers, body = to_binary(event)
            scene.poison.append((event.id, event.source))
            await scene.platform.broker.accept(headers, body)
    finally:
        scene.message_faults.lose = kept
    return f"{len(poisons)} poisoned events"


def _poisons(scene: Environment, order: str) -> list[CloudEvent]:
    """About an order that is there, so that nothing but what is wrong with them stops them."""
    signer = Signer(DOMAIN, scene.secrets.event_keys[DOMAIN])
    other = Signer("payment", scene.secrets.event_keys["payment"])
    forger = Signer(DOMAIN, new_key())
    foreign = replace(_event(order), source="/shop/charge")
    return [
        _event(order),  # unsigned
        forger.sign(_event(order)),
        other.sign(_event(order)),  # a good key that may not speak for this source
        other.sign(foreign),  # a source that may not announce this event
        replace(signer.sign(_event(order)), subject=str(new_uuid())),  # the story was changed
        signer.sign(_event(str(new_uuid()))),  # an order that is not there
        signer.sign(replace(_event(order), data=b"{not json")),
        signer.sign(replace(_event(order), data=b"{}")),
        signer.sign(replace(_event(order), type="com.msashop.order.placed.v99")),
    ]


def _event(order: str) -> CloudEvent:
    return CloudEvent(
        id=str(new_uuid()),
        source=SOURCE,
        type=PLACED,
        subject=order,
        time=utc_now(),
        data=json.dumps({"orderId": order}).encode(),
    )


async def race(scene: Environment) -> str:
    """F-22: two stories about one thing start at a barrier; only one outcome is allowed."""
    kind = RACES[scene.activity_log.counts["races"] % len(RACES)]
    scene.activity_log.count("races")
    answer = await scene.load.ask("race", kind=kind, times=RACES_AT_ONCE)
    for wrong in answer["wrong"]:
        scene.notice("F-22", f"{kind}: {wrong}")
    return f"{answer['races']} × {kind}"


async def storm_of_retries(scene: Environment) -> str:
    """F-23: ten times the load, by clients that try again at once."""
    answer = await scene.load.ask("burst", factor=10, seconds=30 * scene.tier.hold)
    return f"{answer['sent']} requests in {answer['tries']} tries, {answer['ok']} well answered"


async def rotate_key(scene: Environment) -> str:
    """F-26: tokens are signed with the other key from now on; the old ones must stay good."""
    scene.signs_with_second_key = not scene.signs_with_second_key
    for process in scene.processes("login", "register"):
        scene.pool_of(process).retire(process)
    await asyncio.sleep(5 * scene.tier.hold)
    return "the signing key was rotated, both are published"


async def stop_sweeper(scene: Environment) -> str:
    """F-27: nobody sweeps for a while, then two do at once."""
    pool = scene.platform.activator.pools["sweep"]
    pool.is_disabled = True
    try:
        await asyncio.sleep(60 * scene.tier.hold)
    finally:
        pool.is_disabled = False
    schedule = pool.spec.schedules[0]
    ticks = [scene.platform.clock.tick(pool.spec, schedule) for _ in range(2)]
    taken = await asyncio.gather(*ticks)
    return f"no sweep, then two at once ({taken.count(True)} taken)"


def second_key(scene: Environment, spec: FunctionSpec) -> Mapping[str, str]:
    """What a process that issues tokens is told while the second key signs."""
    if spec.issues_tokens and scene.signs_with_second_key:
        return {"JWT_PRIVATE_KEY": scene.second_jwt_key}
    return {}


KINDS = (
    Kind(id="F-19", what="poison", lane="messages", inject=send_poison),
    Kind(id="F-22", what="races at a barrier", lane="messages", inject=race),
    Kind(id="F-23", what="retry storm", lane="messages", inject=storm_of_retries),
    Kind(id="F-26", what="keys rotated", lane="messages", inject=rotate_key),
    Kind(id="F-27", what="sweeper dead, then two", lane="messages", inject=stop_sweeper),
)
