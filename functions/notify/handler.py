"""Sends mails: an event's mail when the event arrives, and those that are due again at a tick.

The row of the mail is committed with the event's claim; then the server is called, and the outcome
is recorded.  While the server is not reachable, events only store their mails.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, assert_never
from uuid import UUID

from events.records import frozen
from functions.notify import facts, messages
from shop import mails, operator_alerts
from shop.adapters.two_phase_call import TwoPhaseCall
from shop.primitives.statuses import MailFailure, MailKind

if TYPE_CHECKING:
    from functions.notify.facts import Facts
    from shop.adapters.db import Transaction
    from shop.adapters.mail_server import Mailing, SendOutcome
    from shop.adapters.two_phase_call import OpenTransaction
    from shop.mails import Mail
    from shop.primitives.messages import Event
    from shop.runtime.event_context import EventContext

BATCH = 100
TICK_SECONDS = 20.0
STUCK_ALERT = "stuck_mail"
SERVER_ALERT = "mail_server"

# The kind of each event's mail, and the property of the event that names what the mail is about.
KINDS = {
    "order.paid": (MailKind.ORDER_PAID, "orderId"),
    "order.cancelled": (MailKind.ORDER_CANCELLED, "orderId"),
    "refund.succeeded": (MailKind.REFUND_SUCCEEDED, "refundId"),
    "user.registered": (MailKind.USER_REGISTERED, "userId"),
    "user.password-reset-requested": (MailKind.PASSWORD_RESET, "linkId"),
    "user.invited": (MailKind.INVITATION, "linkId"),
    "user.email-verification-requested": (MailKind.EMAIL_VERIFICATION, "linkId"),
    "user.email-change-requested": (MailKind.EMAIL_CHANGE, "linkId"),
    "user.email-change-started": (MailKind.EMAIL_CHANGE_STARTED, "linkId"),
    "user.email-changed": (MailKind.EMAIL_CHANGED, "linkId"),
    "user.password-changed": (MailKind.PASSWORD_CHANGED, "userId"),
    "user.second-factor-enabled": (MailKind.SECOND_FACTOR_ENABLED, "userId"),
    "user.second-factor-removed": (MailKind.SECOND_FACTOR_REMOVED, "userId"),
    "user.recovery-codes-renewed": (MailKind.RECOVERY_CODES_RENEWED, "userId"),
    "user.recovery-code-used": (MailKind.RECOVERY_CODE_USED, "userId"),
}


@frozen
class LeasedMail:
    """A mail of which this process has the lease, and what it says."""

    mail: Mail
    facts: Facts


def _itself(event: Event) -> Event:
    return event


def prepare(tx: Transaction, event: Event) -> LeasedMail | None:
    """Stores the event's mail; None while the server is not reachable, or for nothing to send."""
    kind, subject = KINDS[event.name]
    stored = tx.fetch_one(mails.store(UUID(event.id), kind, str(event.data[subject])))
    return None if stored is None else _with_facts(tx, stored)


def resume(tx: Transaction, event_id: UUID) -> LeasedMail | None:
    """Leases a mail that is due; None when another process has it, or for nothing to send."""
    taken = tx.fetch_one(mails.take(event_id))
    return None if taken is None else _with_facts(tx, taken)


def _with_facts(tx: Transaction, mail: Mail) -> LeasedMail | None:
    found = facts.read(tx, mail)
    if found is None:
        tx.execute(mails.fail(mail.event_id, MailFailure.OBSOLETE, None))
        return None
    return LeasedMail(mail, found)


def execute(mailing: Mailing, leased: LeasedMail, _: OpenTransaction) -> SendOutcome:
    """Sends the mail."""
    message = messages.compose(leased.mail, leased.facts, mailing)
    return mailing.server.send(message)


def record(tx: Transaction, leased: LeasedMail, outcome: SendOutcome) -> None:
    """Records the outcome; an operator is alerted about a mail that will not be sent.

    So is one about a server that takes no mail until a person acts, as after a wrong password.
    """
    mail = leased.mail
    match outcome.kind:
        case "sent":
            tx.execute(mails.sent(mail.event_id))
        case "rejected":
            _give_up(tx, mail, MailFailure.REJECTED, outcome.code)
        case "unreachable":
            if problem := _problem_of_server(outcome):
                tx.execute(
                    operator_alerts.raise_alert(kind=SERVER_ALERT, subject="SMTP", detail=problem)
                )
            _postpone(tx, mail, MailFailure.UNREACHABLE, outcome.code)
        case "postponed":
            _postpone(tx, mail, MailFailure.POSTPONED, outcome.code)
        case "no_reply":
            _postpone(tx, mail, MailFailure.NO_REPLY, outcome.code)
        case _:
            assert_never(outcome.kind)


def _problem_of_server(outcome: SendOutcome) -> str:
    """What keeps all mails from being sent until a person acts; empty for an outage."""
    if outcome.reason:
        return f"the mail server cannot be used: {outcome.reason}"
    if outcome.code is not None and outcome.code >= 500:
        return f"the mail server rejects all mails with {outcome.code}"
    return ""


def _postpone(tx: Transaction, mail: Mail, failure: MailFailure, code: int | None) -> None:
    if mail.is_last_try:
        _give_up(tx, mail, MailFailure.EXHAUSTED, code)
    else:
        tx.execute(mails.postpone(mail.event_id, failure, code))


def _give_up(tx: Transaction, mail: Mail, failure: MailFailure, code: int | None) -> None:
    """The reply's text is left out, since servers quote the address in it."""
    answered = f"the mail server answered {code}" if code else "there was no answer"
    tx.pipeline(
        mails.fail(mail.event_id, failure, code),
        operator_alerts.raise_alert(
            kind=mails.REJECTED_ALERT,
            subject=str(mail.event_id),
            detail=f"{mail.kind} about {mail.subject_id} was not sent: {answered}",
        ),
    )


notify = TwoPhaseCall(
    subject=_itself, prepare=prepare, execute=execute, record=record, system="mailing"
)
RESUME = TwoPhaseCall(
    subject=lambda event: UUID(event.id),
    prepare=resume,
    execute=execute,
    record=record,
    system="mailing",
)


def send_due_mails(context: EventContext) -> None:
    """Sends the mails that are due, until the time of a tick is over.

    Ends when the server is not reachable: the next tick tries again, with another mail.  A mail
    that cannot be sent for a fault of its own is left, with an operator alert.
    """
    deadline = time.monotonic() + TICK_SECONDS
    seen: set[UUID] = set()
    while new := _not_in(seen, _due(context, BATCH + len(seen))):
        for event_id in new:
            if time.monotonic() > deadline or not _is_reachable_after(context, event_id):
                return
        seen.update(new)


def _due(context: EventContext, batch: int) -> list[UUID]:
    with context.transaction() as tx:
        return [row.event_id for row in tx.fetch_all(mails.due(batch))]


def _not_in(seen: set[UUID], event_ids: list[UUID]) -> list[UUID]:
    return [event_id for event_id in event_ids if event_id not in seen]


def _is_reachable_after(context: EventContext, event_id: UUID) -> bool:
    """Tries to send one mail; False when the server is not reachable."""
    job = partial(context.run, RESUME, event_id)
    outcome = context.attempt(f"mail {event_id}", job)
    if isinstance(outcome, Exception):
        with context.transaction() as tx:
            tx.execute(operator_alerts.about_failure(STUCK_ALERT, str(event_id), outcome))
        return True
    return outcome is None or outcome.kind != "unreachable"
