"""The mails that the catcher has accepted, in memory: the newest whole, all others counted."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from itertools import count


@dataclass(frozen=True)
class CaughtMail:
    """One mail as the server received it."""

    id: int
    message_id: str
    sender: str
    recipient: str
    subject: str
    language: str
    received_at: str
    text: str
    html: str
    raw: bytes

    def summary(self) -> dict[str, object]:
        """The mail without its content."""
        return {
            "id": self.id,
            "messageId": self.message_id,
            "from": self.sender,
            "to": self.recipient,
            "subject": self.subject,
            "language": self.language,
            "receivedAt": self.received_at,
        }

    def representation(self) -> dict[str, object]:
        """The mail with its text and HTML."""
        return {**self.summary(), "text": self.text, "html": self.html}


class CaughtMails:
    """The newest ``kept`` mails, and how often each Message-ID was received; thread-safe."""

    def __init__(self, kept: int) -> None:
        self._mails: deque[CaughtMail] = deque(maxlen=kept)
        self._received: Counter[str] = Counter()
        self._ids = count(1)
        self._lock = threading.Lock()

    def add(self, sender: str, recipient: str, raw: bytes) -> None:
        """Stores a mail; what is no mail raises ValueError or a LookupError of the parser."""
        message = message_from_bytes(raw, policy=default)
        with self._lock:
            caught = CaughtMail(
                id=next(self._ids),
                message_id=_header(message, "Message-ID"),
                sender=sender,
                recipient=recipient,
                subject=_header(message, "Subject"),
                language=_header(message, "Content-Language"),
                received_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                text=_content(message, "plain"),
                html=_content(message, "html"),
                raw=raw,
            )
            self._received[caught.message_id] += 1
            self._mails.append(caught)

    def find(self, is_wanted: Callable[[CaughtMail], bool]) -> list[CaughtMail]:
        """The kept mails that are wanted, newest first."""
        with self._lock:
            mails = list(self._mails)
        return [mail for mail in reversed(mails) if is_wanted(mail)]

    def received(self) -> dict[str, int]:
        """How often each Message-ID was received."""
        with self._lock:
            return dict(self._received)

    def clear(self) -> None:
        """Forgets all mails."""
        with self._lock:
            self._mails.clear()
            self._received.clear()


def _header(message: EmailMessage, name: str) -> str:
    return str(message.get(name, ""))


def _content(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    if part is None:
        return ""
    content: str = part.get_content()
    return content
