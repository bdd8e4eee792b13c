"""Stores a dead letter and raises an operator alert.

Three round trips: BEGIN, both statements, COMMIT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop import operator_alerts
from shop.messaging import dead_letters

if TYPE_CHECKING:
    from shop.primitives.messages import DeadLetter
    from shop.runtime.event_context import EventContext


def store(letter: DeadLetter, context: EventContext) -> None:
    """Stores the letter and raises one alert for its event; a repeated letter changes nothing.

    Only the signature is validated, since invalid events become dead letters too.
    """
    # !a: an attacker may have written this text, so operators see printable ASCII only
    detail = (
        f"{letter.type!a} was not accepted by {letter.destination!a}, status {letter.error_code!a}"
    )
    context.tx.pipeline(
        dead_letters.store(letter),
        operator_alerts.raise_alert(
            kind="dead_letter", subject=dead_letters.name_of(letter), detail=detail
        ),
    )
