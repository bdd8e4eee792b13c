"""What operators do to accounts, by HTTP or by command: one rule and one audit entry for both.

Nothing here can leave a shop without an active administrator who could undo it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop import accounts, audit_log, one_time_links
from shop.audit_log import Action
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

ADMIN = "admin"


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


def set_password(tx: Transaction, actor: Actor, user_id: int, *, new_hash: str) -> None:
    """Replaces the password of an account and ends its sessions and its links."""
    tx.pipeline(
        accounts.set_password(user_id, new_hash=new_hash),
        one_time_links.end_all(user_id),
        accounts.end_sessions(user_id),
        audit_log.record(actor, Action.USER_PASSWORD_SET, user_id),
    )


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
