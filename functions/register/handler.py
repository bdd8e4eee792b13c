"""Creates an account, and shows the caller's account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.accounts import UserEmailVerificationRequested, UserRegistered
from shop import accounts, login_failures, profiles
from shop.messaging.outbox import emit
from shop.primitives.errors import ClientError, not_found
from shop.primitives.etags import is_known
from shop.primitives.languages import preferred_language
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.register.schema import Registration
    from shop.adapters.statements import Row, Statement
    from shop.runtime.request_context import RequestContext


def register(request: Request[Registration, None], context: RequestContext) -> Response:
    """201 with the account; 409 for a taken e-mail, 422 for a password that is easy to guess,
    unless ``COMMON_PASSWORDS_ALLOWED``.

    The password is hashed also when the e-mail is taken.  The 409 discloses that it is, as the
    contract of the original shop does; the rate limit bounds how many addresses can be tried.
    The language of the account's mails is the one that ``Accept-Language`` prefers.
    Unless EMAIL_VERIFICATION is ``off``, a link to verify the address is made and announced.
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
        accounts.register(
            email=body.email,
            name=body.name,
            language=preferred_language(
                request.headers.get("accept-language"), default=context.settings.shop_language
            ),
            password_hash=hash_password(password),
        )
    )
    if account is None:
        raise ClientError(409, "EMAIL_TAKEN", "there is an account with this e-mail", stored=True)
    announcement, _ = emit(tx, UserRegistered(user_id=account.user_id))
    forget_guesses = login_failures.disregard_account(accounts.email_key(body.email))
    tx.pipeline(announcement, forget_guesses, *_verification(context, account.user_id))
    return Response(201, profiles.represent(account), headers={"Location": "/users/me"})


def read_me(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the account of the session's owner and its ETag; 304 to one who has it."""
    account = context.tx.fetch_one(accounts.read_account(request.user_id))
    if account is None:
        raise not_found("the account")
    etag = profiles.etag_of(account)
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(304, None, {"etag": etag})
    return Response(200, profiles.represent(account), {"etag": etag})


def _verification(context: RequestContext, user_id: int) -> tuple[Statement[Row], ...]:
    """What makes and announces the first link to verify an address."""
    if context.settings.email_verification == "off":
        return ()
    # imported here: without the policy no link is made
    from shop import one_time_links
    from shop.primitives.ids import new_uuid
    from shop.primitives.statuses import LinkPurpose

    link_id = new_uuid()
    link = one_time_links.make(
        link_id, user_id, LinkPurpose.VERIFY_EMAIL, minutes=one_time_links.ADDRESS_MINUTES
    )
    announcement, _ = emit(context.tx, UserEmailVerificationRequested(link_id=link_id))
    return link, announcement
