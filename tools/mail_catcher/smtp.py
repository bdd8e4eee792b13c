"""The SMTP side of the catcher: accepts every mail, or answers as the faults say."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import SMTP, Envelope, Session

    from tools.mail_catcher.messages import CaughtMails

# Recipients that begin with these are answered with this code, as by a server that has no such
# mailbox, or that asks to try again later.
REPLIES = {"bounce": 550, "later": 451}
START_SECONDS_MAX = 60.0


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong with a share of all mails, from 0 to 1, each chosen by chance.

    ``unavailable`` gets 421 before its recipient is named; ``refused`` gets ``code`` instead of the
    mail's acceptance; ``unanswered`` is accepted, and the connection ends without the reply;
    ``delay_seconds`` is waited before each reply to a mail.
    """

    unavailable: float = 0.0
    refused: float = 0.0
    code: int = 451
    unanswered: float = 0.0
    delay_seconds: float = 0.0


def read_faults(settings: dict[str, object]) -> Faults:
    """The faults of a JSON object; ValueError for an unknown name or a value out of range."""
    known = {field.name for field in fields(Faults)}
    if settings.keys() - known:
        raise ValueError(f"there is no fault {min(settings.keys() - known)[:40]!r}")
    values = {name: value for name, value in settings.items() if isinstance(value, int | float)}
    if len(values) != len(settings):
        raise ValueError("the value of a fault is a number")
    code = values.pop("code", Faults.code)
    faults = Faults(**values, code=int(code))
    if not all(0 <= each <= 1 for each in (faults.unavailable, faults.refused, faults.unanswered)):
        raise ValueError("a share is from 0 to 1")
    if not 400 <= faults.code <= 599 or not 0 <= faults.delay_seconds <= 60:
        raise ValueError("a code is from 400 to 599, and a delay from 0 to 60")
    return faults


class Catcher:
    """The handler of aiosmtpd's server; ``faults`` may be replaced at any time."""

    def __init__(self, mails: CaughtMails, seed: int) -> None:
        self._mails = mails
        self._random = random.Random(seed)  # noqa: S311 (repeatable, not secret)
        self._lock = threading.Lock()
        self.faults = Faults()

    async def handle_MAIL(  # noqa: N802 (aiosmtpd's name)
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        """Accepts a sender, unless a fault makes the server unavailable."""
        if self._is_hit(self.faults.unavailable):
            return "421 not available"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        """Accepts a recipient, unless its address asks for another reply."""
        for prefix, code in REPLIES.items():
            if address.startswith(prefix):
                return f"{code} rejected by its prefix"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 (aiosmtpd's name)
        self, server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        """Stores the mail, unless a fault refuses it."""
        faults = self.faults
        if faults.delay_seconds:
            await asyncio.sleep(faults.delay_seconds)
        if self._is_hit(faults.refused):
            return f"{faults.code} refused by a fault"
        assert isinstance(envelope.content, bytes), "the server does not decode"
        self._mails.add(envelope.mail_from or "", envelope.rcpt_tos[0], envelope.content)
        if self._is_hit(faults.unanswered):
            transport = server.transport
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        return "250 OK"

    def _is_hit(self, share: float) -> bool:
        with self._lock:
            return self._random.random() < share


def smtp_server(catcher: Catcher, host: str, port: int) -> Controller:
    """The server, in a thread of its own once it is started."""
    # imported here: an environment that was set up before it was added can still collect its tests
    from aiosmtpd.controller import Controller

    return Controller(
        catcher,
        hostname=host,
        port=port,
        ident="msa-shop mail catcher",
        # the default of 5 s is too short for a loaded machine
        ready_timeout=START_SECONDS_MAX,
    )
