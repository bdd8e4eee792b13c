"""What administrators do to service accounts and their API keys, each with its audit entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop import accounts, api_keys, audit_log
from shop.audit_log import Action
from shop.primitives.errors import ClientError, not_found
from shop.primitives.ids import new_uuid
from shop.primitives.languages import Phrase
from shop.primitives.statuses import AccountState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from shop.adapters.db import Transaction
    from shop.api_keys import ApiKey
    from shop.audit_log import Actor

# RFC 2606: no mail can be sent to it
MAIL_DOMAIN = "service.invalid"
OPEN_KEYS_MAX = 10


def address_of(name: str) -> str:
    """The address that stands for a service account: it makes the name unique, and gets no mail."""
    return f"{name}@{MAIL_DOMAIN}"


def create_key(
    tx: Transaction, actor: Actor, user_id: int, *, scopes: Sequence[str], days: int
) -> tuple[str, ApiKey]:
    """A new key of a service account, which is shown this once.

    404 without such an account; 409 unless it is an active service account with fewer than
    ``OPEN_KEYS_MAX`` keys.
    """
    _lock_account(tx, user_id)
    return _add_key(tx, actor, user_id, Action.API_KEY_CREATED, scopes=scopes, days=days)


def rotate_key(
    tx: Transaction, actor: Actor, user_id: int, key_id: UUID, *, days: int, overlap_hours: int
) -> tuple[str, ApiKey]:
    """A new key with the scopes of another one, which ends after the overlap.

    404 for a key that has ended or is another account's; 409 as ``create_key``.
    """
    _lock_account(tx, user_id)
    found, shortened = tx.pipeline(
        api_keys.read_key(key_id, user_id=user_id),
        accounts.shorten_session(key_id, user_id, hours=overlap_hours),
    )
    if not found or not shortened:
        raise not_found("the API key")
    return _add_key(
        tx,
        actor,
        user_id,
        Action.API_KEY_ROTATED,
        scopes=found[0].scopes,
        days=days,
        replaced=found[0],
    )


def end_key(tx: Transaction, actor: Actor, user_id: int, key_id: UUID) -> None:
    """Ends a key at once; 404 for one that has ended or is another account's."""
    found = tx.fetch_one(api_keys.read_key(key_id, user_id=user_id))
    if found is None or not tx.execute(accounts.end_session(session_id=key_id, user_id=user_id)):
        raise not_found("the API key")
    before = {"userId": user_id, "prefix": found.prefix, "scopes": found.scopes}
    tx.execute(audit_log.record(actor, Action.API_KEY_ENDED, key_id, before=before))


def _lock_account(tx: Transaction, user_id: int) -> None:
    """Lets one transaction at a time make keys of an account; 404 or 409 unless it may have one."""
    locked, counted = tx.pipeline(accounts.lock_managed(user_id), api_keys.count_open(user_id))
    if not locked:
        raise not_found("the account")
    if not locked[0].is_service or locked[0].state != AccountState.ACTIVE:
        message = "only active service accounts have API keys"
        raise ClientError(409, "NOT_A_SERVICE", message)
    if counted[0].number >= OPEN_KEYS_MAX:
        message = Phrase("an account has at most {count} API keys", count=OPEN_KEYS_MAX)
        raise ClientError(409, "TOO_MANY_KEYS", message)


def _add_key(
    tx: Transaction,
    actor: Actor,
    user_id: int,
    action: Action,
    *,
    scopes: Sequence[str],
    days: int,
    replaced: ApiKey | None = None,
) -> tuple[str, ApiKey]:
    key, key_id = api_keys.new_key(), new_uuid()
    before = None if replaced is None else {"id": str(replaced.key_id), "prefix": replaced.prefix}
    after = {"userId": user_id, "prefix": key[: api_keys.SHOWN_LENGTH], "scopes": list(scopes)}
    _, _, (added,), _ = tx.pipeline(
        accounts.open_key_session(key_id, user_id, days=days),
        api_keys.add(key, session_id=key_id, scopes=scopes),
        api_keys.read_key(key_id, user_id=user_id),
        audit_log.record(actor, action, key_id, before=before, after={**after, "days": days}),
    )
    return key, added
