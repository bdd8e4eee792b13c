"""Open, renew and end sessions; show the public keys.

These routes open their transactions themselves: a password is checked between two of them, so no
connection waits for Argon2, and what a refused refresh token revokes has to be committed.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING

from functions.login.throttle import Throttle
from shop import accounts
from shop.adapters.passwords import DUMMY_HASH, hash_password, is_password, needs_rehash
from shop.adapters.tokens import public_keys, unauthenticated
from shop.primitives.errors import ClientError
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.login.schema import Login, Logout, Refresh
    from shop.accounts import Credentials, OpenSession
    from shop.adapters.cache import Cache
    from shop.adapters.tokens import TokenIssuer
    from shop.runtime.request_context import RequestContext

NO_STORE = {"cache-control": "no-store"}
KEYS_ARE_PUBLIC = {"cache-control": "public, max-age=300"}


def log_in(request: Request[Login, None], context: RequestContext) -> Response:
    """200 with a pair of tokens (two round trips and one hash); 401 or 429 otherwise.

    An unknown e-mail, a closed account and a wrong password get the same answer for the same work.
    """
    throttle = _throttle(context.services.cache)
    email_key = accounts.email_key(request.body.email)
    throttle.admit(email_key, request.client)
    with ExitStack() as unless_judged:
        unless_judged.callback(throttle.give_back, email_key)
        with context.transaction() as tx:
            found = accounts.find_by_email(tx, request.body.email)
        password = request.body.password.get_secret_value()
        account = _proven(found, password)
        unless_judged.pop_all()
    if account is None:
        throttle.note_failure(request.client)
        raise _not_signed_in("INVALID_CREDENTIALS", "e-mail or password is wrong")
    throttle.note_success(email_key)
    new_hash = hash_password(password) if needs_rehash(account.password_hash) else None
    with context.transaction() as tx:
        session = accounts.start_session(tx, user_id=account.user_id, role=account.role)
        if new_hash is not None:
            accounts.renew_hash(
                tx,
                user_id=account.user_id,
                old_hash=account.password_hash,
                new_hash=new_hash,
            )
    return _token_pair(context.services.token_issuer, session)


def refresh(request: Request[Refresh, None], context: RequestContext) -> Response:
    """200 with the next pair; 401 for a used token (its session ends), an ended or unknown one."""
    with context.transaction() as tx:
        session = accounts.rotate(tx, request.body.refresh_token.get_secret_value())
    if session is None:
        raise _not_signed_in("INVALID_REFRESH_TOKEN", "the refresh token is not valid")
    return _token_pair(context.services.token_issuer, session)


def log_out(request: Request[Logout | None, None], context: RequestContext) -> Response:
    """204 once the session is over, again and again; 401 for a token that never was one of ours.

    The session's access tokens are refused from the next request on, everywhere.
    """
    token = None if request.body is None else request.body.refresh_token
    if token is not None:
        with context.transaction() as tx:
            known = accounts.end_session_of_token(tx, token.get_secret_value())
        if not known:
            raise unauthenticated()
        return Response(204)
    header = request.headers.get("authorization")
    caller = context.services.tokens.verify(header, request.now)
    with context.transaction() as tx:
        accounts.end_session(tx, session_id=caller.session_id, user_id=caller.user_id)
    return Response(204)


def show_keys(_request: Request[None, None], context: RequestContext) -> Response:
    """200 with the key set; no query, and five minutes in anybody's cache."""
    return Response(200, public_keys(context.settings.jwt_jwks), headers=KEYS_ARE_PUBLIC)


def _proven(found: Credentials | None, password: str) -> Credentials | None:
    """The account, if it is open and the password is its own; always at the cost of one hash."""
    account = found if found is not None and found.active else None
    stored_hash = DUMMY_HASH if account is None else account.password_hash
    return account if is_password(password, stored_hash) else None


def _token_pair(issuer: TokenIssuer, session: OpenSession) -> Response:
    access_token, expires_in = issuer.issue(session.user_id, session.role, session.session_id)
    pair = {
        "accessToken": access_token,
        "refreshToken": session.refresh_token,
        "tokenType": "Bearer",
        "expiresIn": expires_in,
    }
    return Response(200, pair, headers=NO_STORE)


def _not_signed_in(code: str, message: str) -> ClientError:
    return ClientError(401, code, message, headers={"WWW-Authenticate": "Bearer"})


@cache
def _throttle(counters: Cache) -> Throttle:
    """One throttle a process: what it counts while Redis is away has to be found again."""
    return Throttle(counters)
