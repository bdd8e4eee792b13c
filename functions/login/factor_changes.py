"""The event and the audit entry of each change of a second factor.

Imported when one changes: most sessions are opened without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from events.accounts import (
    UserRecoveryCodesRenewed,
    UserRecoveryCodeUsed,
    UserSecondFactorEnabled,
)
from shop import audit_log
from shop.audit_log import Action, Actor
from shop.messaging.outbox import emit
from shop.primitives.statuses import ActorKind

if TYPE_CHECKING:
    from shop.accounts import Credentials
    from shop.adapters.db import Transaction
    from shop.adapters.statements import Row, Statement
    from shop.primitives.messages import Request


# Any: the body of a request, which is not read
def actor_of(request: Request[Any, None], account: Credentials) -> Actor:
    """The account that has proved its password, without a session."""
    return Actor(
        kind=ActorKind.PERSON,
        account_id=account.user_id,
        role=account.role,
        trace_id=request.traceparent[audit_log.TRACE_ID],
    )


def enabled(tx: Transaction, actor: Actor, user_id: int) -> list[Statement[Row]]:
    """Announces and records that log-in needs the second factor."""
    announcement, _ = emit(tx, UserSecondFactorEnabled(user_id=user_id))
    return [audit_log.record(actor, Action.USER_FACTOR_ENABLED, user_id), announcement]


def recovery_codes_renewed(tx: Transaction, actor: Actor, user_id: int) -> list[Statement[Row]]:
    """Announces and records that the recovery codes were replaced."""
    announcement, _ = emit(tx, UserRecoveryCodesRenewed(user_id=user_id))
    return [audit_log.record(actor, Action.USER_RECOVERY_CODES_RENEWED, user_id), announcement]


def recovery_code_used(tx: Transaction, actor: Actor, user_id: int) -> list[Statement[Row]]:
    """Announces and records that a recovery code was used."""
    announcement, _ = emit(tx, UserRecoveryCodeUsed(user_id=user_id))
    return [audit_log.record(actor, Action.USER_RECOVERY_CODE_USED, user_id), announcement]
