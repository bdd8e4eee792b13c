"""Reads delivery status notifications (RFC 3464) about mails of the shop.

::

    multipart/report                   RFC 6522; several servers leave report-type out
    ├─ text                            for people
    ├─ message/delivery-status         fields of the message, then of each recipient
    └─ message/rfc822                  the mail, or text/rfc822-headers: its header fields

The mail is found by the event's id, which is in its Message-ID and in the envelope id that the
mail server got with it (RFC 3461).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from typing import Any
from uuid import UUID

from shop.primitives.statuses import Bounce

# Message-IDs and envelope ids of the shop: the id of an event, and perhaps a domain.
OURS = re.compile(r"<?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:@[^\s<>]+)?>?", re.IGNORECASE)
# RFC 3463; servers may add a comment.
CODE = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
ACTIONS = {
    "failed": Bounce.FAILED,
    "delayed": Bounce.DELAYED,
    "delivered": None,
    "relayed": None,
    "expanded": None,
}


class NotAReport(ValueError):
    """The message is not a delivery status notification about a mail; the text says why."""


@dataclass(frozen=True)
class DeliveryReport:
    """What was reported of the mail of an event; ``bounce`` is None for one that was delivered.

    ``code`` is the status code of the recipient (RFC 3463), such as ``5.1.1``.
    """

    event_id: UUID
    bounce: Bounce | None
    code: str


def read_report(message: bytes) -> DeliveryReport:
    """Reads a notification; ``NotAReport`` for any other message, and for one without our id.

    A mail of the shop has one recipient, who may be an alias of several: the worst of their states
    is reported.
    """
    parsed = message_from_bytes(message)
    parts = _parts_of(parsed)
    status = next((p for p in parts if p.get_content_type() == "message/delivery-status"), None)
    if status is None:
        raise NotAReport("is not a delivery status notification (RFC 3464)")
    groups = _parts_of(status)
    recipients = [_state_of(group) for group in groups if group["Action"] is not None]
    if not recipients:
        raise NotAReport("is a delivery status notification without a recipient")
    bounce, code = max(recipients, key=_severity)
    return DeliveryReport(_event_of(parsed, parts, groups), bounce, code)


def _parts_of(message: Message) -> list[Message]:
    # Any: a list of messages for a multipart, otherwise text
    payload: Any = message.get_payload()
    return payload if message.is_multipart() else []


def _state_of(recipient: Message) -> tuple[Bounce | None, str]:
    """What happened for one recipient; the action decides, since delays may have any code."""
    action = _text(recipient["Action"]).partition("(")[0].strip().lower()
    if action not in ACTIONS:
        raise NotAReport("is a delivery status notification with an unknown Action")
    bounce, found = ACTIONS[action], CODE.match(_text(recipient["Status"]).strip())
    if found is None or (bounce is not None and found[1].startswith("2")):
        raise NotAReport(f"is a delivery status notification whose Status does not say {action}")
    return bounce, found[1]


def _severity(state: tuple[Bounce | None, str]) -> int:
    return (None, Bounce.DELAYED, Bounce.FAILED).index(state[0])


def _event_of(report: Message, parts: list[Message], groups: list[Message]) -> UUID:
    for name in _names_of_mail(report, parts, groups):
        if found := OURS.fullmatch(name):
            return UUID(found[1])
    raise NotAReport("is about a mail that is not of this shop: no Message-ID has an event's id")


def _names_of_mail(report: Message, parts: list[Message], groups: list[Message]) -> Iterator[str]:
    """What identifies the mail, most reliable first: relays may replace a Message-ID."""
    for group in groups:
        yield _text(group["Original-Envelope-Id"]).strip()
    for part in parts:
        if (header := _returned_header(part)) is not None:
            yield _text(header["Message-ID"]).strip()
    for group in groups:
        yield _text(group["X-Original-Message-ID"]).strip()
    for field in ("In-Reply-To", "References"):
        yield from _text(report[field]).split()


def _returned_header(part: Message) -> Message | None:
    """The header fields of the mail that the report returns."""
    if part.get_content_type() == "message/rfc822":
        return next(iter(_parts_of(part)), None)
    if part.get_content_type() == "text/rfc822-headers":
        # Any: bytes, since it is asked to decode; the type names parts of a multipart too
        content: Any = part.get_payload(decode=True)
        return message_from_bytes(content)
    return None


# object: a field with undeclared 8-bit bytes is an email.header.Header
def _text(field: object) -> str:
    return "" if field is None else str(field)
