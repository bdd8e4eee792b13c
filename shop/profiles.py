"""An account as its owner reads it: the representation and its entity tag."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from shop.primitives.etags import tag_of_bytes

if TYPE_CHECKING:
    from shop.accounts import Account


def etag_of(account: Account) -> str:
    """The entity tag of an account: it changes with everything that its owner sees of it."""
    return tag_of_bytes(repr(tuple(account)).encode())


def represent(account: Account) -> dict[str, object]:
    """The JSON value of an account."""
    return {
        "id": account.user_id,
        "email": account.email,
        "name": account.name,
        "role": account.role,
        "language": account.language,
        "emailVerified": account.is_verified,
        "createdAt": account.created_at.astimezone(UTC).isoformat(),
    }
