"""Opens, renews and ends sessions; publishes the public keys.

These routes open their own transactions: the password is verified between two of them, so that no
connection is held while Argon2 runs, and a rejected refresh must commit the end of its session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from functions.login.device import DeviceProof
from shop import accounts, login_failures
from shop.adapters.passwords import (
    DUMMY_HASH,
    hash_password,
    matching_form,
    needs_rehash,
    prepare,
)
from shop.adapters.tokens import public_keys, unauthenticated
from shop.primitives.errors import ClientError
from shop.primitives.ids import new_uuid
from shop.primitives.messages import Caller, Request, Response

if TYPE_CHECKING:
    from functions.login.schema import Login, Logout, Refresh
    from shop.accounts import Credentials
    from shop.adapters.tokens import TokenIssuer
    from shop.login_failures import Attempt
    from shop.runtime.request_context import RequestContext

NO_STORE = {"cache-control": "no-store"}
PUBLIC_FOR_FIVE_MINUTES = {"cache-control": "public, max-age=300"}


def log_in(request: Request[Login, None], context: RequestContext) -> Response:
    """200 with a pair of tokens; 401 for wrong credentials, 429 after too many attempts.

    An unknown e-mail, a closed account and a wrong password get the same response after the same
    work.  A device that has logged in before is recognised by its cookie, and gets the next one.
    Where EMAIL_VERIFICATION is ``login``, the right password of an unverified customer gets 403;
    resetting the password by a link verifies the address, too.
    """
    email_key = accounts.email_key(request.body.email)
    issuer = context.services.token_issuer
    proof = DeviceProof(issuer.derive_key("login device"), email_key, request.now)
    device = proof.device_in(request.headers.get("cookie"))
    attempt = login_failures.attempt_on(email_key, device=device, network=request.client)
    account, form = _verify_credentials(request, context, attempt)
    prepared = prepare(form)
    is_current = form == prepared and not needs_rehash(account.password_hash)
    new_hash = None if is_current else hash_password(prepared)
    caller, refresh_token = _open_session(context, attempt, account, new_hash)
    set_cookie = proof.set_cookie(device or new_uuid().hex)
    return _token_pair(issuer, caller, refresh_token, set_cookie=set_cookie)


def refresh(request: Request[Refresh, None], context: RequestContext) -> Response:
    """200 with the next pair; 401 for a token that is unknown, ended or already used.

    A used token also ends its session, unless it was used seconds ago and its successor is unused:
    then two tabs sent it at once, or its response was lost, and the same successor is returned.
    """
    issuer = context.services.token_issuer
    used = request.body.refresh_token.get_secret_value()
    replacement = accounts.successor_of(used, issuer.derive_key("refresh token"))
    with context.transaction() as tx:
        renewed = tx.fetch_one(accounts.rotate(used, replacement=replacement))
        if renewed is None:
            renewed = tx.fetch_one(accounts.repeat(used, replacement=replacement))
        if renewed is None:
            tx.execute(accounts.revoke_reused(used))
    if renewed is None:
        raise _invalid("INVALID_REFRESH_TOKEN", "the refresh token is not valid")
    caller = Caller(renewed.user_id, renewed.role, renewed.session_id)
    return _token_pair(issuer, caller, replacement)


def log_out(request: Request[Logout, None], context: RequestContext) -> Response:
    """204 once the session has ended, also when repeated; 401 for a token we never issued.

    Every function rejects the session's access tokens from the next request on.
    """
    token = request.body.refresh_token
    if token is not None:
        with context.transaction() as tx:
            ended = tx.fetch_one(accounts.end_session_of_token(token.get_secret_value()))
        if ended is None:
            raise unauthenticated()
        return Response(204)
    header = request.headers.get("authorization")
    caller = context.services.tokens.verify(header, request.now)
    with context.transaction() as tx:
        tx.execute(accounts.end_session(session_id=caller.session_id, user_id=caller.user_id))
    return Response(204)


def show_keys(_request: Request[None, None], context: RequestContext) -> Response:
    """200 with the public key set, without a query; caches may keep it for five minutes."""
    return Response(200, public_keys(context.settings.jwt_jwks), headers=PUBLIC_FOR_FIVE_MINUTES)


def _verify_credentials(
    request: Request[Login, None], context: RequestContext, attempt: Attempt
) -> tuple[Credentials, str]:
    """The account with this e-mail and password, and the form of the password that was hashed.

    401, counted, if there is none.
    """
    with context.transaction() as tx:
        waits, found = tx.pipeline(
            login_failures.check(attempt), accounts.find_by_email(request.body.email)
        )
    login_failures.check_allowed(waits)
    account = found[0] if found and found[0].active else None
    # also without an account, so that it takes as long
    stored_hash = DUMMY_HASH if account is None else account.password_hash
    form = matching_form(request.body.password.get_secret_value(), stored_hash)
    if account is not None and form is not None:
        return account, form
    with context.transaction() as tx:
        _, waits = tx.pipeline(login_failures.lock(attempt), login_failures.record(attempt))
    login_failures.check_allowed(waits)
    raise _invalid_credentials()


def _open_session(
    context: RequestContext,
    attempt: Attempt,
    account: Credentials,
    new_hash: str | None,
) -> tuple[Caller, str]:
    """A new session and its refresh token.

    429 if concurrent failures reached a limit while the password was verified; 401 if the password
    was changed, or the account disabled, meanwhile; 403 if the address has to be verified before.
    """
    caller = Caller(account.user_id, account.role, new_uuid())
    refresh_token = accounts.new_refresh_token()
    with context.transaction() as tx:
        # the account before its failures, as a change of the password locks them
        _, waits, started, _ = tx.pipeline(
            login_failures.lock(attempt),
            login_failures.check(attempt),
            accounts.start_session(
                session_id=caller.session_id,
                user_id=caller.user_id,
                password_changed_at=account.password_changed_at,
                refresh_token=refresh_token,
            ),
            login_failures.disregard(attempt),
        )
        login_failures.check_allowed(waits)
        if not started:
            raise _invalid_credentials()
        if context.settings.email_verification == "login" and not account.is_verified:
            raise ClientError(403, "EMAIL_NOT_VERIFIED", "the e-mail address is not verified yet")
        if new_hash is not None:
            tx.execute(
                accounts.renew_hash(
                    user_id=account.user_id,
                    old_hash=account.password_hash,
                    new_hash=new_hash,
                )
            )
    return caller, refresh_token


def _token_pair(
    issuer: TokenIssuer,
    caller: Caller,
    refresh_token: str,
    *,
    set_cookie: str | None = None,
) -> Response:
    access_token, expires_in = issuer.issue(caller.user_id, caller.role, caller.session_id)
    pair = {
        "accessToken": access_token,
        "refreshToken": refresh_token,
        "tokenType": "Bearer",
        "expiresIn": expires_in,
    }
    headers = NO_STORE if set_cookie is None else {**NO_STORE, "set-cookie": set_cookie}
    return Response(200, pair, headers=headers)


def _invalid_credentials() -> ClientError:
    return _invalid("INVALID_CREDENTIALS", "e-mail or password is wrong")


def _invalid(code: str, message: str) -> ClientError:
    return ClientError(401, code, message, headers={"www-authenticate": "Bearer"})
