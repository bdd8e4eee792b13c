"""What operators do to accounts, by HTTP or by command: one rule and one audit entry for both.

Nothing here can leave a shop without an active administrator who could undo it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.accounts import UserClosed, UserPasswordChanged, UserSecondFactorRemoved
from shop import accounts, audit_log, one_time_links, second_factors
from shop.audit_log import Action
from shop.messaging.outbox import emit
from shop.primitives.errors import ClientError, not_found
from shop.primitives.etags import check_if_match, tag_of_bytes
from shop.primitives.ids import new_uuid
from shop.primitives.statuses import AccountState, LinkPurpose

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from shop.accounts import ManagedAccount
    from shop.adapters.db import Transaction
    from shop.audit_log import Actor

ADMIN, CUSTOMER = "admin", "customer"


def etag_of(account: ManagedAccount) -> str:
    """The entity tag of an account: it changes with everything that operators see of it."""
    return tag_of_bytes(repr(tuple(account)).encode())


def create(
    tx: Transaction,
    actor: Actor,
    *,
    email: str,
    name: str,
    role: str,
    language: str,
    password_hash: str = "",
    is_service: bool = False,
) -> int:
    """The id of a new account with a role; 409 when the e-mail address has an account already.

    Without a hash it has no password, and cannot be used until its owner sets one by a link.
    """
    added = tx.fetch_one(
        accounts.add_operator(
            email=email,
            name=name,
            role=role,
            language=language,
            password_hash=password_hash,
            is_service=is_service,
        )
    )
    if added is None:
        raise ClientError(409, "EMAIL_TAKEN", "there is an account with this e-mail", stored=True)
    after = {"role": role, "state": AccountState.ACTIVE}
    tx.execute(audit_log.record(actor, Action.USER_CREATED, added.user_id, after=after))
    return added.user_id


def change(
    tx: Transaction,
    actor: Actor,
    user_id: int,
    *,
    role: str | None = None,
    state: AccountState | None = None,
    if_match: str | None = None,
) -> ManagedAccount:
    """The account with another role or state, whose sessions end when it is disabled.

    404 without such an account; 412 when ``if_match`` is given and names another state of it; 409
    for a closed account, and for the last active administrator.
    """
    admins, found = tx.pipeline(accounts.lock_admins(), accounts.lock_managed(user_id))
    if not found:
        raise not_found("the account")
    account = found[0]
    check_if_match(if_match, etag_of(account))
    before = {"role": account.role, "state": account.state}
    after = {"role": role or account.role, "state": state or account.state}
    if after == before:
        return account
    if account.state == AccountState.CLOSED:
        raise ClientError(409, "ACCOUNT_CLOSED", "a closed account cannot be changed")
    is_admin = after == {"role": ADMIN, "state": AccountState.ACTIVE}
    if not is_admin and [admin.user_id for admin in admins] == [user_id]:
        raise ClientError(409, "LAST_ADMIN", "this is the last active administrator")
    _, now, _ = tx.pipeline(
        accounts.change_account(user_id, role=after["role"], state=AccountState(after["state"])),
        accounts.read_managed(user_id),
        audit_log.record(actor, Action.USER_CHANGED, user_id, before=before, after=after),
    )
    return now[0]


def close(tx: Transaction, actor: Actor, user_id: int) -> None:
    """Closes a customer's account as its owner would, and announces it; a closed one stays closed.

    404 without such an account; 409 OPEN_ORDERS while an order, refund or dispute of it is open,
    OPERATOR_ACCOUNT for an account with another role and for a service account.
    """
    account = _account_to_close(tx, user_id)
    if account is None:
        return
    # locks the account, after the lock that placing an order takes first
    result = tx.fetch_one(accounts.close_customer(user_id))
    assert result is not None, "the function returns a row"
    accounts.check_no_open_orders(result)
    if not result.is_closed:
        if _account_to_close(tx, user_id) is None:
            return
        raise ClientError(409, "CONFLICT", "the account was changed meanwhile")
    announcement, _ = emit(tx, UserClosed(user_id=user_id))
    before, after = {"state": account.state}, {"state": AccountState.CLOSED}
    entry = audit_log.record(actor, Action.USER_CLOSED, user_id, before=before, after=after)
    tx.pipeline(announcement, entry)


def _account_to_close(tx: Transaction, user_id: int) -> ManagedAccount | None:
    """The account; None when it is closed already.  404, or 409 for an operator's."""
    account = tx.fetch_one(accounts.read_managed(user_id))
    if account is None:
        raise not_found("the account")
    if account.state == AccountState.CLOSED:
        return None
    if account.role != CUSTOMER or account.is_service:
        message = "give the account the role customer first; a service account is disabled instead"
        raise ClientError(409, "OPERATOR_ACCOUNT", message)
    return account


def set_password(tx: Transaction, actor: Actor, user_id: int, *, new_hash: str) -> None:
    """Replaces the password of an account and ends its sessions and its links."""
    announcement, _ = emit(tx, UserPasswordChanged(user_id=user_id))
    tx.pipeline(
        accounts.set_password(user_id, new_hash=new_hash),
        one_time_links.end_all(user_id),
        accounts.end_sessions(user_id),
        audit_log.record(actor, Action.USER_PASSWORD_SET, user_id),
        announcement,
    )


def remove_factor(tx: Transaction, actor: Actor, user_id: int) -> None:
    """Removes the second factor of an account and ends its sessions; 409 when it has none."""
    _, removed, _ = tx.pipeline(
        accounts.set_factor(user_id, None),
        second_factors.remove(user_id),
        accounts.end_sessions(user_id),
    )
    if not removed:
        raise ClientError(409, "NO_SECOND_FACTOR", "the account has no second factor")
    announcement, _ = emit(tx, UserSecondFactorRemoved(user_id=user_id))
    entry = audit_log.record(actor, Action.USER_FACTOR_REMOVED, user_id)
    tx.pipeline(announcement, entry)


def make_link(
    tx: Transaction, actor: Actor, user_id: int, *, minutes: int
) -> tuple[UUID, datetime]:
    """A new link with which the account's owner sets the password, and when it expires."""
    link_id = new_uuid()
    (made,), _ = tx.pipeline(
        one_time_links.make(link_id, user_id, LinkPurpose.SET_PASSWORD, minutes=minutes),
        audit_log.record(actor, Action.USER_LINK_MADE, user_id, after={"minutes": minutes}),
    )
    return link_id, made.expires_at
