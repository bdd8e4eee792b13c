"""Creates an account, and shows the caller's account."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from events.accounts import UserRegistered
from shop import accounts, login_failures
from shop.messaging.outbox import emit
from shop.primitives.errors import ClientError, not_found
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.register.schema import Registration
    from shop.accounts import Account
    from shop.runtime.request_context import RequestContext


def register(request: Request[Registration, None], context: RequestContext) -> Response:
    """201 with the account; 409 for a taken e-mail, 422 for a password that is easy to guess,
    unless ``COMMON_PASSWORDS_ALLOWED``.

    The password is hashed also when the e-mail is taken.  The 409 discloses that it is, as the
    contract of the original shop does; the rate limit bounds how many addresses can be tried.
    """
    # imported here: read_me does not need argon2
    from shop.adapters.passwords import check_not_common, hash_password

    tx = context.tx
    body = request.body
    password = body.password.get_secret_value()
    if not context.settings.common_passwords_allowed:
        shop_names = (*accounts.SHOP_NAMES, context.settings.jwt_issuer)
        check_not_common(password, email=body.email, shop_names=shop_names)
    account = tx.fetch_one(
        accounts.register(email=body.email, name=body.name, password_hash=hash_password(password))
    )
    if account is None:
        raise ClientError(409, "EMAIL_TAKEN", "there is an account with this e-mail", stored=True)
    announcement, _ = emit(tx, UserRegistered(user_id=account.user_id))
    forget_guesses = login_failures.disregard_account(accounts.email_key(body.email))
    tx.pipeline(announcement, forget_guesses)
    return Response(201, _represent(account), headers={"Location": "/users/me"})


def read_me(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the account of the session's owner."""
    account = context.tx.fetch_one(accounts.read_account(request.user_id))
    if account is None:
        raise not_found("the account")
    return Response(200, _represent(account))


def _represent(account: Account) -> dict[str, object]:
    return {
        "id": account.user_id,
        "email": account.email,
        "name": account.name,
        "role": account.role,
        "createdAt": account.created_at.astimezone(UTC).isoformat(),
    }
