"""The mail server is not available (F-31): every mail must be sent in the end."""

from __future__ import annotations

import asyncio

from chaos.environment import Environment
from chaos.faults.fault import Fault
from chaos.mails import set_mail_faults

SECONDS = 60.0


async def stop_taking_mails(environment: Environment) -> str:
    """Lets the mail server take no mail for a while."""
    seconds = SECONDS * environment.tier.duration_scale
    url = environment.endpoints.mails_url
    await set_mail_faults(url, is_available=False)
    try:
        await asyncio.sleep(seconds)
    finally:
        await set_mail_faults(url)
    return f"not available for {seconds:.0f} s"


FAULTS = (Fault(id="F-31", title="mail server down", group="mails", inject=stop_taking_mails),)
