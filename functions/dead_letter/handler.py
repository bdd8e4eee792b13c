"""Keep a dead letter and say so.  One round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop import operator_alerts
from shop.messaging import dead_letters

if TYPE_CHECKING:
    from shop.primitives.messages import DeadLetter
    from shop.runtime.event_context import EventContext


def store(letter: DeadLetter, context: EventContext) -> None:
    """Keeps the letter and raises one alarm for it; a letter that comes again changes nothing.

    Refuses nothing: poison is what this function is for.
    """
    # !a: what an attacker may have written reaches a person's screen in printable ASCII only
    why = f"{letter.type!a} was not taken by {letter.destination!a}, status {letter.error_code!a}"
    context.tx.together(
        dead_letters.store(letter),
        operator_alerts.raise_alert(
            kind="dead_letter", subject=dead_letters.name_of(letter), detail=why
        ),
    )
