"""The mail catcher in this process, and the mails that it has caught."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from tools.local_platform.servers import free_port
from tools.mail_catcher.messages import CaughtMail, CaughtMails
from tools.mail_catcher.smtp import Catcher, Faults, smtp_server


@dataclass(frozen=True)
class MailServerOfTests:
    """A running catcher; ``faults`` says what it does with the next mails."""

    url: str
    mails: CaughtMails
    catcher: Catcher

    def set_faults(self, **settings: float) -> None:
        """Replaces the faults; without any, every mail is accepted."""
        self.catcher.faults = Faults(**json.loads(json.dumps(settings)))

    def to(self, address: str) -> list[CaughtMail]:
        """The mails to an address, oldest first."""
        return self.mails.find(lambda mail: mail.recipient == address)[::-1]


@contextmanager
def running_mail_server() -> Generator[MailServerOfTests]:
    """A catcher that listens while the block runs."""
    mails = CaughtMails(10_000)
    catcher, port = Catcher(mails, seed=1), free_port()
    server = smtp_server(catcher, "127.0.0.1", port)
    server.start()
    try:
        yield MailServerOfTests(f"smtp://127.0.0.1:{port}", mails, catcher)
    finally:
        server.stop()
