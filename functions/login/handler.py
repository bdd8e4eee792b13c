"""Opens, renews and ends sessions; publishes the public keys.

These routes open their own transactions: the password is verified between two of them, so that no
connection is held while Argon2 runs, and a rejected refresh must commit the end of its session.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from functions.login import session_cookie
from functions.login.device import DeviceProof
from shop import accounts, login_failures, operator_alerts, second_factors
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
    from typing import NoReturn
    from uuid import UUID

    from functions.login.schema import (
        Login,
        Logout,
        Refresh,
        SecondFactorProof,
        SecondFactorRequest,
    )
    from shop.accounts import Credentials
    from shop.adapters.db import Transaction
    from shop.login_failures import Attempt
    from shop.runtime.request_context import RequestContext
    from shop.second_factors import Factor

    CredentialsRequest = (
        Request[Login, None] | Request[SecondFactorRequest, None] | Request[SecondFactorProof, None]
    )

CUSTOMER = "customer"
GUESSED_ALERT = "second_factor_guessed"

NO_STORE = {"cache-control": "no-store"}
PUBLIC_FOR_FIVE_MINUTES = {"cache-control": "public, max-age=300"}


def log_in(request: Request[Login, None], context: RequestContext) -> Response:
    """200 with a pair of tokens; 401 for wrong credentials, 429 after too many attempts.

    An unknown e-mail, a closed account and a wrong password get the same response after the same
    work.  A device that has logged in before is recognised by its cookie, and gets the next one.
    Where EMAIL_VERIFICATION is ``login``, the right password of an unverified customer gets 403;
    resetting the password by a link verifies the address, too.  With a second factor the right
    password without a code gets 401 SECOND_FACTOR_REQUIRED, and with a wrong one INVALID_CODE,
    counted; 403 SECOND_FACTOR_NEEDED without one where SECOND_FACTOR_ROLES requires it.
    In cookie mode the refresh token is in a cookie and not in the body; 403 for another origin.
    """
    in_cookie = session_cookie.is_requested(request.headers)
    proof = _device_proof(request, context)
    device = proof.device_in(request.headers.get("cookie"))
    attempt = login_failures.attempt_on(proof.email_key, device=device, network=request.client)
    account, form = _verify_credentials(request, context, attempt)
    code = request.body.code
    typed = None if code is None else code.get_secret_value()
    _check_second_factor(request, context, attempt, account, typed)
    prepared = prepare(form)
    is_current = form == prepared and not needs_rehash(account.password_hash)
    new_hash = None if is_current else hash_password(prepared)
    caller, refresh_token = _open_session(
        context, attempt, account, new_hash=new_hash, factor_id=account.factor_id
    )
    device_cookie = proof.set_cookie(device or new_uuid().hex)
    return _token_pair(context, caller, refresh_token, device_cookie, in_cookie=in_cookie)


def begin_second_factor(
    request: Request[SecondFactorRequest, None], context: RequestContext
) -> Response:
    """201 with a new secret, which log-in needs once a first code of it was confirmed.

    401 and 429 as for a log-in, 403 for a customer's account; 409 once a factor is confirmed.
    """
    attempt = _attempt(request, context)
    account, _ = _verify_credentials(request, context, attempt)
    factor_id = new_uuid()
    with context.transaction() as tx:
        _, waits = tx.pipeline(login_failures.lock(attempt), login_failures.check(attempt))
        login_failures.check_allowed(waits)
        if account.role == CUSTOMER:
            raise ClientError(403, "FORBIDDEN", "second factors are of accounts with a role")
        if tx.fetch_one(second_factors.begin(account.user_id, factor_id, _keys(context))) is None:
            raise ClientError(409, "SECOND_FACTOR_ENABLED", "the account has a second factor")
    secret = second_factors.new_secret(factor_id, _keys(context))
    shop_name = context.settings.shop_name
    uri = second_factors.address_of(secret, issuer=shop_name, email=request.body.email)
    body = {"secret": second_factors.encode(secret), "uri": uri}
    return Response(201, body, headers=NO_STORE)


def confirm_second_factor(
    request: Request[SecondFactorProof, None], context: RequestContext
) -> Response:
    """200 with a session and the recovery codes, which are shown this once; other sessions end.

    401 and 429 as for a log-in, for a wrong code too; 409 unless a factor waits for its first code.
    Cookie mode is that of a log-in.
    """
    in_cookie = session_cookie.is_requested(request.headers)
    attempt = _attempt(request, context)
    account, _ = _verify_credentials(request, context, attempt)
    with context.transaction() as tx:
        _, waits, found = tx.pipeline(
            login_failures.lock(attempt),
            login_failures.check(attempt),
            second_factors.find(account.user_id),
        )
    login_failures.check_allowed(waits)
    if not found or found[0].is_confirmed or not second_factors.has_key(found[0], _keys(context)):
        raise ClientError(409, "NO_SECOND_FACTOR", "no second factor waits for its first code")
    codes = second_factors.new_recovery_codes()
    _confirm(request, context, account, found[0], codes)
    caller, refresh_token = _open_session(
        context, attempt, account, new_hash=None, factor_id=found[0].factor_id
    )
    codes_shown = {"recoveryCodes": codes}
    return _token_pair(context, caller, refresh_token, in_cookie=in_cookie, more=codes_shown)


def remove_second_factor(
    request: Request[SecondFactorProof, None], context: RequestContext
) -> Response:
    """204 once log-in needs the password only; every session ends.

    401 and 429 as for a log-in, for a wrong code too; 409 without a second factor; 403 where
    SECOND_FACTOR_ROLES requires one.
    """
    account, _ = _verify_both_factors(request, context)
    if _needs_factor(context, account):
        raise _factor_needed()
    # imported here: sessions are opened without it
    from functions.login.factor_changes import actor_of
    from shop.account_management import remove_factor

    with context.transaction() as tx:
        remove_factor(tx, actor_of(request, account), account.user_id)
    return Response(204)


def renew_recovery_codes(
    request: Request[SecondFactorProof, None], context: RequestContext
) -> Response:
    """200 with ten recovery codes, which are shown this once; those before are rejected.

    401 and 429 as for a log-in, for a wrong code too; 409 without a second factor.
    """
    # imported here: sessions are opened without it
    from functions.login import factor_changes

    account, factor_id = _verify_both_factors(request, context)
    codes = second_factors.new_recovery_codes()
    with context.transaction() as tx:
        locked = tx.fetch_all(second_factors.lock(factor_id))
        if not locked:
            raise _no_factor()
        actor = factor_changes.actor_of(request, account)
        tx.pipeline(
            second_factors.renew_recovery_codes(locked[0], codes, _keys(context)),
            *factor_changes.recovery_codes_renewed(tx, actor, account.user_id),
        )
    return Response(200, {"recoveryCodes": codes}, headers=NO_STORE)


def refresh(request: Request[Refresh, None], context: RequestContext) -> Response:
    """200 with the next pair; 401 for a token that is unknown, ended or already used.

    A used token also ends its session, unless it was used seconds ago and its successor is unused:
    then two tabs sent it at once, or its response was lost, and the same successor is returned.
    In cookie mode the token comes from the cookie, and the next one goes there.
    """
    issuer = context.services.token_issuer
    in_cookie = session_cookie.is_requested(request.headers)
    used = _refresh_token(request, in_cookie=in_cookie)
    if used is None and not in_cookie:
        raise ClientError(422, "INVALID", "refreshToken is needed")
    if used is None:
        raise _invalid_refresh_token()
    replacement = accounts.successor_of(used, issuer.derive_key("refresh token"))
    with context.transaction() as tx:
        renewed = tx.fetch_one(accounts.rotate(used, replacement=replacement))
        if renewed is None:
            renewed = tx.fetch_one(accounts.repeat(used, replacement=replacement))
        if renewed is None:
            tx.execute(accounts.revoke_reused(used))
    if renewed is None:
        raise _invalid_refresh_token()
    caller = Caller(renewed.user_id, renewed.role, renewed.session_id)
    return _token_pair(context, caller, replacement, in_cookie=in_cookie)


def log_out(request: Request[Logout, None], context: RequestContext) -> Response:
    """204 once the session has ended, also when repeated; 401 for a token we never issued.

    Every function rejects the session's access tokens from the next request on.  In cookie mode the
    session is that of the cookie, which is removed.
    """
    in_cookie = session_cookie.is_requested(request.headers)
    token = _refresh_token(request, in_cookie=in_cookie)
    if token is not None or in_cookie:
        with context.transaction() as tx:
            ended = token is not None and tx.fetch_one(accounts.end_session_of_token(token))
        if in_cookie:
            return Response(204, headers={"set-cookie": session_cookie.REMOVE})
        if not ended:
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


def _device_proof(request: CredentialsRequest, context: RequestContext) -> DeviceProof:
    email_key = accounts.email_key(request.body.email)
    key = context.services.token_issuer.derive_key("login device")
    return DeviceProof(key, email_key, request.now)


def _attempt(request: CredentialsRequest, context: RequestContext) -> Attempt:
    proof = _device_proof(request, context)
    device = proof.device_in(request.headers.get("cookie"))
    return login_failures.attempt_on(proof.email_key, device=device, network=request.client)


def _keys(context: RequestContext) -> str:
    return context.settings.second_factor_key.reveal()


def _verify_both_factors(
    request: Request[SecondFactorProof, None], context: RequestContext
) -> tuple[Credentials, UUID]:
    """The account with this e-mail and password, and its factor, of which the code was accepted."""
    attempt = _attempt(request, context)
    account, _ = _verify_credentials(request, context, attempt)
    code = request.body.code.get_secret_value()
    _check_second_factor(request, context, attempt, account, code)
    if account.factor_id is None:
        raise _no_factor()
    return account, account.factor_id


def _needs_factor(context: RequestContext, account: Credentials) -> bool:
    return account.role in map(str.strip, context.settings.second_factor_roles.split(","))


def _check_second_factor(
    request: CredentialsRequest,
    context: RequestContext,
    attempt: Attempt,
    account: Credentials,
    code: str | None,
) -> None:
    """Accepts the code of an account that has a second factor; 401 for no code or a wrong one.

    As for a session, 429 if concurrent failures reached a limit while the password was verified, so
    that no answer about a code shows that one of many passwords was right.
    """
    factor_id = account.factor_id
    if factor_id is None and not _needs_factor(context, account):
        return
    with context.transaction() as tx:
        _, waits = tx.pipeline(login_failures.lock(attempt), login_failures.check(attempt))
        login_failures.check_allowed(waits)
        if factor_id is None:
            raise _factor_needed()
        if code is None:
            raise _invalid("SECOND_FACTOR_REQUIRED", "log-in needs a code of the second factor")
        locked = tx.fetch_all(second_factors.lock(factor_id))
        if locked and _is_accepted(request, context, tx, account, locked[0], code):
            return
    _reject_code(context, account.user_id, factor_id)


def _is_accepted(
    request: CredentialsRequest,
    context: RequestContext,
    tx: Transaction,
    account: Credentials,
    factor: Factor,
    code: str,
) -> bool:
    """Accepts a code of a locked factor, once; a used recovery code is announced and recorded."""
    accepting = second_factors.accept(factor, code, keys=_keys(context), now=request.now)
    if accepting is None or not tx.fetch_all(accepting):
        return False
    if second_factors.is_recovery_code(code):
        # imported here: sessions are opened without it
        from functions.login import factor_changes

        actor = factor_changes.actor_of(request, account)
        tx.pipeline(*factor_changes.recovery_code_used(tx, actor, account.user_id))
    return True


def _confirm(
    request: Request[SecondFactorProof, None],
    context: RequestContext,
    account: Credentials,
    factor: Factor,
    codes: list[str],
) -> None:
    """Makes log-in need the factor; 401 for a wrong code."""
    # imported here: sessions are opened without it
    from functions.login import factor_changes

    factor_id = factor.factor_id
    secret = second_factors.secret_of(factor, _keys(context))
    step = second_factors.step_of(request.body.code.get_secret_value(), secret, request.now)
    if step is None:
        _reject_code(context, account.user_id, factor_id)
    hashes = second_factors.hashes_of(factor, codes, _keys(context))
    actor = factor_changes.actor_of(request, account)
    with context.transaction() as tx:
        changed, _, confirmed, *_ = tx.pipeline(
            accounts.set_factor(account.user_id, factor_id),
            second_factors.lock(factor_id),
            second_factors.confirm(factor_id, step=step, hashes=hashes),
            accounts.end_sessions(account.user_id),
            *factor_changes.enabled(tx, actor, account.user_id),
        )
        if not changed or not confirmed:
            waits = tx.fetch_all(second_factors.wait(factor_id))
            second_factors.check_allowed(waits)
            raise _invalid_code()


def _reject_code(context: RequestContext, user_id: int, factor_id: UUID) -> NoReturn:
    """401 for a code that was not accepted, which is counted; 429 while codes must wait."""
    with context.transaction() as tx:
        _, failed, waits = tx.pipeline(
            second_factors.lock(factor_id),
            second_factors.fail(factor_id),
            second_factors.wait(factor_id),
        )
        if failed and failed[0].failures == second_factors.FAILURES_MAX:
            detail = f"{failed[0].failures} wrong codes after the right password"
            tx.execute(
                operator_alerts.raise_alert(
                    kind=GUESSED_ALERT, subject=f"account {user_id}", detail=detail
                )
            )
    if not failed:
        second_factors.check_allowed(waits)
    raise _invalid_code()


def _verify_credentials(
    request: CredentialsRequest, context: RequestContext, attempt: Attempt
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
    *,
    new_hash: str | None,
    factor_id: UUID | None,
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
                factor_id=factor_id,
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
    context: RequestContext,
    caller: Caller,
    refresh_token: str,
    *cookies: str,
    in_cookie: bool,
    more: Mapping[str, object] = MappingProxyType({}),
) -> Response:
    """200 with an access token, and the refresh token in the body or in a cookie."""
    issuer = context.services.token_issuer
    access_token, expires_in = issuer.issue(caller.user_id, caller.role, caller.session_id)
    body = {"accessToken": access_token, "tokenType": "Bearer", "expiresIn": expires_in, **more}
    if in_cookie:
        cookies = (*cookies, session_cookie.set_cookie(refresh_token))
    else:
        body["refreshToken"] = refresh_token
    headers = {**NO_STORE, "set-cookie": "\n".join(cookies)} if cookies else NO_STORE
    return Response(200, body, headers=headers)


def _refresh_token(
    request: Request[Refresh, None] | Request[Logout, None], *, in_cookie: bool
) -> str | None:
    if in_cookie:
        return session_cookie.token_in(request.headers)
    token = request.body.refresh_token
    return None if token is None else token.get_secret_value()


def _invalid_refresh_token() -> ClientError:
    return _invalid("INVALID_REFRESH_TOKEN", "the refresh token is not valid")


def _factor_needed() -> ClientError:
    message = "accounts with this role log in with a second factor only"
    return ClientError(403, "SECOND_FACTOR_NEEDED", message)


def _no_factor() -> ClientError:
    return ClientError(409, "NO_SECOND_FACTOR", "the account has no second factor")


def _invalid_code() -> ClientError:
    return _invalid("INVALID_CODE", "the code is wrong, of another time, or was used")


def _invalid_credentials() -> ClientError:
    return _invalid("INVALID_CREDENTIALS", "e-mail or password is wrong")


def _invalid(code: str, message: str) -> ClientError:
    return ClientError(401, code, message, headers={"www-authenticate": "Bearer"})
