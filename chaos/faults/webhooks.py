"""The receiver of webhooks misbehaves (F-30): every event must arrive there in the end."""

from __future__ import annotations

import asyncio

from chaos.environment import Environment
from chaos.faults.fault import Fault
from tools.webhook_receiver import Behaviour

SECONDS = 120.0
# 410 would disable the webhook, which is no loss
MISBEHAVIOURS = (
    Behaviour.HANG,
    Behaviour.ERROR,
    Behaviour.RESET,
    Behaviour.REDIRECT,
    Behaviour.NO_HTTP,
)


async def misbehave(environment: Environment) -> str:
    """Lets the receiver respond in one of the wrong ways for a while."""
    behaviour = environment.random.choice(MISBEHAVIOURS)
    seconds = SECONDS * environment.tier.duration_scale
    receiver = environment.receiver
    received = len(receiver.received())
    receiver.behaves(behaviour)
    try:
        await asyncio.sleep(seconds)
    finally:
        receiver.behaves(Behaviour.ACCEPT)
    return f"{behaviour} for {seconds:.0f} s, {len(receiver.received()) - received} requests"


FAULTS = (Fault(id="F-30", title="receiver of webhooks down", group="webhooks", inject=misbehave),)
