"""Authentication and authorisation of a request: its token or API key, and what its route needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.primitives import api_key
from shop.primitives.clock import utc_now
from shop.primitives.errors import ClientError
from shop.primitives.languages import Phrase
from shop.primitives.spec import PERMITTED_ROLES, WITHOUT_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shop.primitives.messages import Caller
    from shop.primitives.spec import Route
    from shop.runtime.http_messages import HttpRequest
    from shop.runtime.services import Services
    from shop.sessions import SessionAccount


def authenticate(services: Services, route: Route, http_request: HttpRequest) -> Caller | None:
    """The caller of a protected route, None on a public one; 401 without a token, 403 by role or
    scope.

    The session is checked with BEGIN, so it is checked here only before a 403: a token whose
    session has ended gets 401 on every route.
    """
    is_policy = route.auth == "settlements"
    needed = services.settings.settlements_auth if is_policy else route.auth
    if needed in WITHOUT_ACCOUNT:
        return None
    caller = _verify(services, http_request.headers.get("authorization"))
    permitted = PERMITTED_ROLES.get(route.auth, (needed,))
    if needed != "customer" and caller.role not in permitted:
        check_session_now(services, caller)
        english = f"this needs the role {' or '.join(permitted)}"
        message = Phrase("this needs the role {roles}", english=english, roles=", ".join(permitted))
        raise ClientError(403, "FORBIDDEN", message)
    if caller.scopes is not None and route.scope not in caller.scopes:
        check_session_now(services, caller)
        raise _insufficient_scope(route.scope)
    return caller


def check_signature(
    services: Services, route: Route, http_request: HttpRequest, body: bytes
) -> None:
    """401 unless a carrier signed the body, on routes of carriers; it is parsed afterwards."""
    if route.auth == "carrier":
        from shop.primitives.webhook_signatures import verify

        keys = services.settings.carrier_webhook_secret.reveal().split()
        verify(http_request.headers, body, keys, utc_now())


def check_session(caller: Caller, rows: Sequence[SessionAccount]) -> None:
    """401 unless the account of the caller's open session was found, and with the token's role."""
    if not rows or rows[0].role != caller.role:
        raise session_ended()


def session_ended() -> ClientError:
    """The 401 for a caller whose session was open when the token was issued."""
    return ClientError(
        401,
        "UNAUTHENTICATED",
        "the session has ended",
        headers={"www-authenticate": 'Bearer error="invalid_token"'},
    )


def check_session_now(services: Services, caller: Caller) -> None:
    """Checks the caller's session at the primary (one round trip), as ``check_session`` does."""
    from shop.adapters import db
    from shop.sessions import open_session

    query = open_session(caller.session_id, caller.user_id)
    try:
        with services.database.transaction(opening=(query,), is_read_only=True) as session:
            rows = session.rows_of(query)
    except db.UNAVAILABLE_ERRORS as error:
        raise db.unavailable() from error
    check_session(caller, rows)


def _verify(services: Services, authorization_header: str | None) -> Caller:
    key = api_key.key_in(authorization_header)
    if key is not None:
        return services.key_callers.caller_of(key)
    return services.tokens.verify(authorization_header, utc_now())


def _insufficient_scope(scope: str) -> ClientError:
    """RFC 6750 section 3.1."""
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    return ClientError(
        403,
        "INSUFFICIENT_SCOPE",
        Phrase("the API key does not have the scope {scope}", scope=scope),
        headers={"www-authenticate": challenge},
    )


def caller_of_optional_token(services: Services, http_request: HttpRequest) -> Caller | None:
    """The caller of a public route who sent a valid token all the same; an invalid one is ignored.

    Only the rate limit uses it: signed-in callers are counted by account, not by address.
    """
    header = http_request.headers.get("authorization")
    if header is None or not services.settings.jwt_jwks:
        return None
    try:
        return services.tokens.verify(header, utc_now())
    except ClientError:
        return None
