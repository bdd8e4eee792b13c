"""Create an account, and show it to its owner."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from shop import accounts
from shop.primitives.errors import not_found
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.register.schema import Registration
    from shop.accounts import Account
    from shop.runtime.request_context import RequestContext


def register(request: Request[Registration, None], context: RequestContext) -> Response:
    """201 with the account; 409 for a taken e-mail, 422 for a password anybody would guess.

    A taken e-mail costs a hash as a free one does.  That it is taken is said openly, as the
    contract of the original has it; asking for many addresses meets the rate limit.
    """
    # argon2 is no part of showing somebody their account
    from shop.adapters.passwords import check_password, hash_password

    wanted = request.body
    password = wanted.password.get_secret_value()
    check_password(password, wanted.email)
    account = accounts.register(
        context.tx,
        email=wanted.email,
        name=wanted.name,
        password_hash=hash_password(password),
    )
    return Response(201, _view(account), headers={"Location": "/users/me"})


def read_me(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the account of the session's owner (one round trip)."""
    account = accounts.read_account(context.tx, request.user_id)
    if account is None:
        raise not_found("the account")
    return Response(200, _view(account))


def _view(account: Account) -> dict[str, Any]:
    return {
        "id": account.user_id,
        "email": account.email,
        "name": account.name,
        "role": account.role,
        "createdAt": account.created_at.astimezone(UTC).isoformat(),
    }
