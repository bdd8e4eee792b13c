"""Manages an account for its holder: password, address, profile, sessions, export, closing."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from events.accounts import (
    UserClosed,
    UserEmailChanged,
    UserEmailChangeRequested,
    UserEmailChangeStarted,
    UserEmailVerificationRequested,
    UserPasswordChanged,
    UserPasswordResetRequested,
)
from shop import accounts, login_failures, one_time_links, profiles, saved_addresses
from shop.adapters import db
from shop.messaging.outbox import emit
from shop.primitives.errors import ClientError, not_found
from shop.primitives.etags import check_if_match, is_known, require_if_match
from shop.primitives.ids import new_uuid, parse_uuid
from shop.primitives.languages import Phrase
from shop.primitives.messages import Request, Response
from shop.primitives.statuses import LinkPurpose
from shop.runtime.authentication import session_ended

if TYPE_CHECKING:
    from uuid import UUID

    from functions.account.schema import (
        AccountClosure,
        AddressChange,
        EmailChange,
        EmailConfirmation,
        ListSessions,
        NewAddress,
        PasswordChange,
        PasswordReset,
        PasswordResetRequest,
        ProfileChange,
    )
    from shop.accounts import OpenSession, OwnCredentials
    from shop.adapters.db import Transaction
    from shop.login_failures import Attempt
    from shop.one_time_links import LinkedAccount, Requester, UsedLink
    from shop.primitives.messages import Caller
    from shop.runtime.request_context import RequestContext
    from shop.saved_addresses import SavedAddress

CUSTOMER = "customer"
NO_STORE = {"cache-control": "no-store"}


def change_password(request: Request[PasswordChange, None], context: RequestContext) -> Response:
    """204 once the password is replaced, and every other session and link has ended.

    403 WRONG_PASSWORD, counted for this session only, so that guesses with a stolen token do not
    lock the owner out; 429 after five of them in 15 minutes.  422 for a password that is easy to
    guess; 409 when another request has changed it meanwhile.  No transaction is open while Argon2
    runs.
    """
    # imported here: sessions are listed and ended without argon2
    from shop.adapters.passwords import hash_password

    caller, body = _caller(request), request.body
    account, attempt = _begin_attempt(request, context)
    new_password = body.new_password.get_secret_value()
    _check_new_password(context, new_password, account.email)
    current_password = body.current_password.get_secret_value()
    _check_password(context, current_password, account, attempt, field="currentPassword")
    _replace(context, caller, account, attempt, hash_password(new_password))
    return Response(204)


def request_password_reset(
    request: Request[PasswordResetRequest, None], context: RequestContext
) -> Response:
    """202, whether or not the address has an account, after the same work.

    The event names a link, and the link an account or none; neither has the token.  Of one address
    there are at most three links an hour, and further requests make none; 429 after 100 links an
    hour from one network.
    """
    tx, email_key = context.tx, accounts.email_key(request.body.email)
    by = _requester(request, context, LinkPurpose.SET_PASSWORD, email_key)
    link_id = new_uuid()
    _, requested = tx.pipeline(
        one_time_links.lock(by), one_time_links.request_reset(link_id, by, email_key=email_key)
    )
    one_time_links.check_allowed(requested)
    if requested[0].is_made:
        announcement, _ = emit(tx, UserPasswordResetRequested(link_id=link_id))
        tx.execute(announcement)
    return Response(202)


def reset_password(request: Request[PasswordReset, None], context: RequestContext) -> Response:
    """204 once the account of the link has the password, and no session; failed log-ins are over.

    The address counts as verified, since the link was sent to it, or handed over by an operator.
    The same 403 for a link that was used, has expired or never existed; 422 for a password that
    is easy to guess, after which the link is still valid.  No transaction is open while Argon2
    runs.
    """
    # imported here: sessions are listed and ended without argon2
    from shop.adapters.passwords import hash_password

    link_id, account = _open_link(request.body.token.get_secret_value(), context)
    new_password = request.body.new_password.get_secret_value()
    _check_new_password(context, new_password, account.email)
    new_hash = hash_password(new_password)
    with context.transaction() as tx:
        if tx.fetch_one(one_time_links.use(link_id, LinkPurpose.SET_PASSWORD)) is None:
            raise _invalid_link()
        announcement, _ = emit(tx, UserPasswordChanged(user_id=account.user_id))
        tx.pipeline(
            accounts.set_password(account.user_id, new_hash=new_hash),
            accounts.verify_email(account.user_id),
            accounts.end_sessions(account.user_id),
            login_failures.disregard_account(account.email_key),
            announcement,
        )
    return Response(204)


def change_profile(request: Request[ProfileChange, None], context: RequestContext) -> Response:
    """200 with the account; 428 without If-Match, 412 when it names another state of it."""
    if_match = require_if_match(request.headers.get("if-match"), "account")
    tx, body = context.tx, request.body
    account = tx.fetch_one(accounts.lock_account(request.user_id))
    if account is None:
        raise not_found("the account")
    check_if_match(if_match, profiles.etag_of(account))
    changed = tx.fetch_one(
        accounts.change_profile(
            request.user_id,
            name=body.name or account.name,
            language=body.language or account.language,
        )
    )
    assert changed is not None, "the account is locked"
    return Response(200, profiles.represent(changed), {"etag": profiles.etag_of(changed)})


def request_email_verification(request: Request[None, None], context: RequestContext) -> Response:
    """202 once the event names a link with which the address is verified.

    There are at most three links an hour, and further requests make none; 429 after 100 links an
    hour from one network; 409 when the address is verified already.
    """
    tx = context.tx
    account = tx.fetch_one(accounts.read_account(request.user_id))
    assert account is not None, "the session was checked with BEGIN"
    if account.is_verified:
        raise ClientError(409, "EMAIL_VERIFIED", "the account's address is verified already")
    email_key = accounts.email_key(account.email)
    by = _requester(request, context, LinkPurpose.VERIFY_EMAIL, email_key)
    link_id = new_uuid()
    _, requested = tx.pipeline(
        one_time_links.lock(by),
        one_time_links.request_verification(link_id, by, user_id=account.user_id),
    )
    one_time_links.check_allowed(requested)
    if requested[0].is_made:
        announcement, _ = emit(tx, UserEmailVerificationRequested(link_id=link_id))
        tx.execute(announcement)
    return Response(202)


def request_email_change(request: Request[EmailChange, None], context: RequestContext) -> Response:
    """202, whether or not the next address has an account, after the same work.

    The events name a link, which that address gets unless it has an account, and the account, whose
    own address gets a notice in either case.
    403 WRONG_PASSWORD and 429 as for ``change_password``; 409 for the address that the account has;
    of one address there are at most three links an hour, and further requests make none.
    """
    user_id, email = request.user_id, request.body.email
    email_key = accounts.email_key(email)
    account, attempt = _begin_attempt(request, context)
    password = request.body.password.get_secret_value()
    _check_password(context, password, account, attempt, field="password")
    if email_key == account.email_key:
        raise ClientError(409, "SAME_EMAIL", "the account has this address")
    by = _requester(request, context, LinkPurpose.CHANGE_EMAIL, email_key)
    link_id = new_uuid()
    with context.transaction() as tx:
        _, requested, _ = tx.pipeline(
            one_time_links.lock(by),
            one_time_links.request_change(
                link_id,
                by,
                user_id=user_id,
                email=email,
                email_before=account.email,
            ),
            login_failures.disregard(attempt),
        )
        one_time_links.check_allowed(requested)
        if requested[0].is_made:
            announcement, _ = emit(
                tx,
                UserEmailChangeRequested(link_id=link_id, user_id=user_id),
                UserEmailChangeStarted(user_id=user_id, link_id=link_id),
            )
            tx.execute(announcement)
    return Response(202)


def confirm_email(request: Request[EmailConfirmation, None], context: RequestContext) -> Response:
    """204 once the account's address is verified, or replaced by that of the link.

    Sessions stay.  The same 403 for a link that was used, has expired or never existed, and for
    an address that another account has got meanwhile.
    """
    tx = context.tx
    token = request.body.token.get_secret_value()
    link_id = one_time_links.link_of(token, context.settings.link_key.reveal())
    if link_id is None:
        raise _invalid_link()
    link = tx.fetch_one(
        one_time_links.use(link_id, LinkPurpose.VERIFY_EMAIL, LinkPurpose.CHANGE_EMAIL)
    )
    if link is None:
        raise _invalid_link()
    if link.email is not None:
        _change_email(tx, link, link.email)
    elif tx.fetch_one(accounts.verify_email(link.user_id)) is None:
        raise _invalid_link()
    return Response(204)


def list_sessions(request: Request[None, ListSessions], context: RequestContext) -> Response:
    """200 with a page of the caller's open sessions, newest first, and the next one in ``Link``."""
    caller = _caller(request)
    limit, cursor = request.query.limit, request.query.cursor
    before = parse_uuid(cursor) if cursor else None
    if cursor and before is None:
        raise ClientError(400, "BAD_QUERY", "cursor: not one of ours")
    rows = context.tx.fetch_all(
        accounts.open_sessions(caller.user_id, before=before, limit=limit + 1)
    )
    page = rows[:limit]
    headers: dict[str, str] = {}
    if len(rows) > limit:
        link = f"/users/me/sessions?limit={limit}&cursor={page[-1].session_id}"
        headers["link"] = f'<{link}>; rel="next"'
    return Response(200, [_represent(row, caller) for row in page], headers)


def end_session(request: Request[None, None], context: RequestContext) -> Response:
    """204 once the session has ended; the same 404 for one that is not open or another's."""
    session_id = parse_uuid(request.path["sessionId"])
    if session_id is None:
        raise not_found("the session")
    ended = context.tx.execute(accounts.end_session(session_id=session_id, user_id=request.user_id))
    if not ended:
        raise not_found("the session")
    return Response(204)


def end_other_sessions(request: Request[None, None], context: RequestContext) -> Response:
    """204 once the session of this request is the caller's only one."""
    caller = _caller(request)
    context.tx.execute(accounts.end_sessions(caller.user_id, but=caller.session_id))
    return Response(204)


def list_addresses(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the caller's addresses, the default first; at most ``ADDRESSES_MAX``."""
    rows = context.tx.fetch_all(saved_addresses.addresses(request.user_id))
    return Response(200, [saved_addresses.represent(row) for row in rows])


def read_address(request: Request[None, None], context: RequestContext) -> Response:
    """200 with one address, 304 to one who has it.

    The same 404 for one that does not exist and another customer's.
    """
    address_id = _address_id(request)
    row = context.tx.fetch_one(saved_addresses.read(request.user_id, address_id))
    if row is None:
        raise not_found("the address")
    headers = {"etag": saved_addresses.etag_of(row)}
    if is_known(request.headers.get("if-none-match"), headers["etag"]):
        return Response(304, None, headers)
    return Response(200, saved_addresses.represent(row), headers)


def add_address(request: Request[NewAddress, None], context: RequestContext) -> Response:
    """201 with the id, so that no stored response has the address; 409 ADDRESS_BOOK_FULL."""
    user_id, body, address_id = request.user_id, request.body, new_uuid()
    fields = body.address.model_dump()
    _, added, read = context.tx.pipeline(
        saved_addresses.lock(user_id),
        saved_addresses.add(user_id, address_id, fields, is_chosen=body.is_default),
        saved_addresses.read(user_id, address_id),
    )
    if not added:
        message = Phrase(
            "at most {count} addresses may be saved", count=saved_addresses.ADDRESSES_MAX
        )
        raise ClientError(409, "ADDRESS_BOOK_FULL", message)
    headers = {
        "Location": f"/users/me/addresses/{address_id}",
        "etag": saved_addresses.etag_of(read[0]),
    }
    return Response(201, {"id": str(address_id)}, headers)


def change_address(request: Request[AddressChange, None], context: RequestContext) -> Response:
    """204 with the new ETag; 428 without If-Match, 412 when it names another state, 404."""
    if_match = require_if_match(request.headers.get("if-match"), "address")
    tx, user_id, body = context.tx, request.user_id, request.body
    present = _locked_address(request, tx)
    check_if_match(if_match, saved_addresses.etag_of(present))
    fields = body.address.model_dump() if body.address else saved_addresses.fields_of(present)
    _, read = tx.pipeline(
        saved_addresses.change(
            user_id, present.address_id, fields, is_chosen=bool(body.is_default)
        ),
        saved_addresses.read(user_id, present.address_id),
    )
    return Response(204, headers={"etag": saved_addresses.etag_of(read[0])})


def remove_address(request: Request[None, None], context: RequestContext) -> Response:
    """204 once the address is removed; 404, 412 when If-Match is given and names another state."""
    present = _locked_address(request, context.tx)
    check_if_match(request.headers.get("if-match"), saved_addresses.etag_of(present))
    context.tx.execute(saved_addresses.remove(request.user_id, present.address_id))
    return Response(204)


def export_data(_request: Request[None, None], context: RequestContext) -> Response:
    """200 with every row that tables declare as personal data of the caller (docs/PRIVACY.md)."""
    data = context.tx.fetch_one(accounts.export())
    assert data is not None and data.document is not None, "the session was checked with BEGIN"
    return Response(200, data.document.encode(), NO_STORE)


def close_account(request: Request[AccountClosure, None], context: RequestContext) -> Response:
    """204 once the account is closed, its sessions have ended and its personal data is erased.

    Also when repeated, with a token of before.  403 WRONG_PASSWORD, counted as when changing it.
    409 OPEN_ORDERS while an order, refund, dispute, delivery or return is open; OPERATOR_ACCOUNT
    for an account with a role, which administrators answer for.  No transaction is open while
    Argon2 runs.
    """
    try:
        _close_account(request, context)
    except ClientError:
        # also when another request has closed it meanwhile
        if not _is_closed(request, context):
            raise
    return Response(204)


# Any: the body and query of a request, which are not read
def _caller(request: Request[Any, Any]) -> Caller:
    assert request.caller is not None, "these routes require a token"
    return request.caller


# Any: the body of a request, which is not read
def _address_id(request: Request[Any, None]) -> UUID:
    address_id = parse_uuid(request.path["addressId"])
    if address_id is None:
        raise not_found("the address")
    return address_id


def _locked_address(request: Request[Any, None], tx: Transaction) -> SavedAddress:
    """An address of the caller's book, which no other transaction changes meanwhile."""
    user_id = request.user_id
    _, read = tx.pipeline(
        saved_addresses.lock(user_id), saved_addresses.read(user_id, _address_id(request))
    )
    if not read:
        raise not_found("the address")
    return read[0]


def _requester(
    # Any: the body and query of a request, which are not read
    request: Request[Any, Any],
    context: RequestContext,
    purpose: LinkPurpose,
    email_key: str,
) -> Requester:
    key = context.settings.link_key.reveal()
    return one_time_links.requester(purpose, email_key=email_key, network=request.client, key=key)


def _change_email(tx: Transaction, link: UsedLink, email: str) -> None:
    announcement, _ = emit(tx, UserEmailChanged(user_id=link.user_id, link_id=link.link_id))
    try:
        changed, *_ = tx.pipeline(
            accounts.change_email(link.user_id, email=email),
            login_failures.disregard_account(accounts.email_key(email)),
            announcement,
        )
    except db.UniqueViolation as error:
        raise _invalid_link() from error
    if not changed:
        raise _invalid_link()


def _check_new_password(context: RequestContext, password: str, email: str) -> None:
    """422 for a password that is easy to guess, unless ``COMMON_PASSWORDS_ALLOWED``."""
    from shop.adapters.passwords import check_not_common

    if not context.settings.common_passwords_allowed:
        shop_names = (*accounts.SHOP_NAMES, context.settings.jwt_issuer)
        check_not_common(password, email=email, shop_names=shop_names)


def _open_link(token: str, context: RequestContext) -> tuple[UUID, LinkedAccount]:
    """The link of a token, and its account; 403 unless both are valid."""
    link_id = one_time_links.link_of(token, context.settings.link_key.reveal())
    if link_id is None:
        raise _invalid_link()
    with context.transaction() as tx:
        account = tx.fetch_one(one_time_links.find(link_id))
    if account is None:
        raise _invalid_link()
    return link_id, account


def _invalid_link() -> ClientError:
    message = "the link was used, has expired or never existed"
    return ClientError(403, "INVALID_LINK", message)


def _begin_attempt(
    request: Request[Any, None], context: RequestContext
) -> tuple[OwnCredentials, Attempt]:
    """The caller's credentials, and the attempt to prove the password; 429 after too many."""
    caller = _caller(request)
    with context.transaction() as tx:
        account = tx.fetch_one(accounts.read_credentials(caller.user_id))
        assert account is not None, "the session was checked with BEGIN"
        if not account.password_hash:  # closed between BEGIN and this statement
            raise session_ended()
        attempt = login_failures.attempt_on(
            account.email_key, device=f"session {caller.session_id}", network=request.client
        )
        waits = tx.fetch_all(login_failures.check(attempt))
    login_failures.check_allowed(waits)
    return account, attempt


def _check_password(
    context: RequestContext, password: str, account: OwnCredentials, attempt: Attempt, *, field: str
) -> None:
    """403 for another password than the account's, which is counted; 429 after too many."""
    from shop.adapters.passwords import matching_form

    if matching_form(password, account.password_hash) is None:
        with context.transaction() as tx:
            _, waits = tx.pipeline(login_failures.lock(attempt), login_failures.record(attempt))
        login_failures.check_allowed(waits)
        raise ClientError(
            403, "WRONG_PASSWORD", Phrase("{field} is not the account's password", field=field)
        )


def _is_closed(request: Request[AccountClosure, None], context: RequestContext) -> bool:
    with context.transaction(session_may_be_over=True) as tx:
        return tx.fetch_one(accounts.find_closed(_caller(request).user_id)) is not None


def _close_account(request: Request[AccountClosure, None], context: RequestContext) -> None:
    caller = _caller(request)
    account, attempt = _begin_attempt(request, context)
    if caller.role != CUSTOMER:
        message = "an administrator must make this a customer's account before it can be closed"
        raise ClientError(409, "OPERATOR_ACCOUNT", message)
    password = request.body.password.get_secret_value()
    _check_password(context, password, account, attempt, field="password")
    with context.transaction() as tx:
        announcement, _ = emit(tx, UserClosed(user_id=caller.user_id))
        (result,), _ = tx.pipeline(accounts.close(known_hash=account.password_hash), announcement)
        accounts.check_no_open_orders(result)
        if not result.is_closed:
            raise ClientError(409, "CONFLICT", "the account was changed meanwhile")


def _replace(
    context: RequestContext,
    caller: Caller,
    account: OwnCredentials,
    attempt: Attempt,
    new_hash: str,
) -> None:
    with context.transaction() as tx:
        announcement, _ = emit(tx, UserPasswordChanged(user_id=caller.user_id))
        replaced, *_ = tx.pipeline(
            accounts.replace_password(
                user_id=caller.user_id, old_hash=account.password_hash, new_hash=new_hash
            ),
            one_time_links.end_all(caller.user_id),
            accounts.end_sessions(caller.user_id, but=caller.session_id),
            login_failures.disregard(attempt),
            announcement,
        )
        if not replaced:
            raise ClientError(409, "CONFLICT", "the password was changed meanwhile")


def _represent(session: OpenSession, caller: Caller) -> dict[str, object]:
    return {
        "id": str(session.session_id),
        "createdAt": session.created_at.astimezone(UTC).isoformat(),
        "renewedAt": session.renewed_at.astimezone(UTC).isoformat(),
        "expiresAt": session.expires_at.astimezone(UTC).isoformat(),
        "current": session.session_id == caller.session_id,
    }
