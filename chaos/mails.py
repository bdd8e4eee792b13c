"""The mail server of a run: its faults, and its record compared with the shop's mails."""

from __future__ import annotations

from typing import LiteralString

import httpx

from chaos.environment import Environment
from tools.local_platform.function_environment import MAIL_FROM

TIMEOUT_SECONDS = 10.0
# Of all mails: not accepted at first, and accepted without the reply that says so.
FAULTS = {"refused": 0.03, "code": 451, "unanswered": 0.02}
MAILS: LiteralString = """
select event_id::text, status, tries from shop.mails
"""


async def set_mail_faults(catcher_url: str, *, is_available: bool = True) -> None:
    """Lets the mail server refuse some mails and answer some not at all, or take none."""
    faults = FAULTS if is_available else {**FAULTS, "unavailable": 1.0}
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
        (await client.post(f"{catcher_url}/faults", json=faults)).raise_for_status()


async def different_mails(environment: Environment) -> tuple[int, list[str]]:
    """The number of mails that were sent, and what the mail server's record has otherwise.

    A mail that was tried more than once may have been received more than once: the reply to it was
    lost, or its process was killed.
    """
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
        answer = await client.get(f"{environment.endpoints.mails_url}/received")
    received: dict[str, int] = answer.json()
    async with environment.database() as database:
        rows = await (await database.execute(MAILS)).fetchall()
    domain = MAIL_FROM.partition("@")[2]
    mails = {f"<{event_id}@{domain}>": (status, tries) for event_id, status, tries in rows}
    different = [f"unknown {name}" for name in received.keys() - mails.keys()]
    for name, (status, tries) in mails.items():
        copies = received.get(name, 0)
        if status == "SENT" and not copies:
            different.append(f"lost {name}")
        if copies > tries:
            different.append(f"{copies} copies of {tries} attempts {name}")
    return sum(status == "SENT" for status, _ in mails.values()), different
