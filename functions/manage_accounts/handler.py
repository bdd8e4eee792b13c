"""Manages accounts and API keys for administrators; shows the audit log."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from events.accounts import UserInvited
from shop import (
    account_management,
    accounts,
    api_keys,
    audit_log,
    one_time_links,
    service_accounts,
)
from shop.audit_log import actor_of
from shop.messaging.outbox import emit
from shop.primitives.errors import ClientError, not_found
from shop.primitives.etags import is_known, require_if_match
from shop.primitives.ids import parse_user_id, parse_uuid
from shop.primitives.languages import preferred_language
from shop.primitives.messages import Request, Response
from shop.primitives.statuses import AccountState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from functions.manage_accounts.schema import (
        AccountChange,
        Invitation,
        KeyRequest,
        KeyRotation,
        ListAccounts,
        ListEntries,
        ListKeys,
        ServiceAccount,
    )
    from shop.accounts import ManagedAccount
    from shop.api_keys import ApiKey
    from shop.audit_log import Entry
    from shop.runtime.request_context import RequestContext


def list_accounts(request: Request[None, ListAccounts], context: RequestContext) -> Response:
    """200 with a page of accounts, newest first, and the next page in ``Link``."""
    query = request.query
    rows = context.tx.fetch_all(
        accounts.list_accounts(
            email=query.email,
            role=query.role,
            state=query.state,
            before=query.cursor,
            limit=query.limit + 1,
        )
    )
    page = rows[: query.limit]
    filters = {"email": query.email, "role": query.role, "state": query.state}
    is_last = len(rows) <= query.limit
    headers = {} if is_last else _link("/admin/users", filters, query.limit, page[-1].user_id)
    return Response(200, [_represent(account) for account in page], headers)


def invite(request: Request[Invitation, None], context: RequestContext) -> Response:
    """201 with the account, which cannot be used until its owner has set a password by a link.

    The event names the link, which is valid for 72 hours; its mail is in ``language``, else in the
    language that ``Accept-Language`` prefers, else in SHOP_LANGUAGE.  409 when the address has an
    account.
    """
    tx, actor, body = context.tx, actor_of(request), request.body
    user_id = account_management.create(
        tx,
        actor,
        email=body.email,
        name=body.name,
        role=body.role,
        language=body.language or _preferred_language(request, context),
    )
    link_id, _ = account_management.make_link(
        tx, actor, user_id, minutes=one_time_links.INVITATION_MINUTES
    )
    announcement, _ = emit(tx, UserInvited(link_id=link_id))
    (account,), _ = tx.pipeline(accounts.read_managed(user_id), announcement)
    headers = {"etag": account_management.etag_of(account), "location": f"/admin/users/{user_id}"}
    return Response(201, _represent(account), headers)


def read_account(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the account and its ETag, which a change must name; 304 to one who has it."""
    account = context.tx.fetch_one(accounts.read_managed(_user_id(request.path)))
    if account is None:
        raise not_found("the account")
    etag = account_management.etag_of(account)
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(304, None, {"etag": etag})
    return _response(account)


def change_account(request: Request[AccountChange, None], context: RequestContext) -> Response:
    """200 with the account; 428 without If-Match, 412 when it names another state of it.

    409 LAST_ADMIN for the last active administrator, ACCOUNT_CLOSED for a closed account.  Four
    round trips, with BEGIN and COMMIT.
    """
    user_id = _user_id(request.path)
    if_match = require_if_match(request.headers.get("if-match"), "account")
    body = request.body
    changed = account_management.change(
        context.tx,
        actor_of(request),
        user_id,
        role=body.role,
        state=AccountState(body.state) if body.state else None,
        if_match=if_match,
    )
    return _response(changed)


def close_customer(request: Request[None, None], context: RequestContext) -> Response:
    """204 once the account is closed and its personal data is erased; also when repeated.

    409 OPEN_ORDERS while an order, refund or dispute is open, OPERATOR_ACCOUNT for other roles.
    """
    account_management.close(context.tx, actor_of(request), _user_id(request.path))
    return Response(204)


def create_service(request: Request[ServiceAccount, None], context: RequestContext) -> Response:
    """201 with a service account, which has no password and acts by API keys only.

    409 when there is one with this name.
    """
    tx, body = context.tx, request.body
    user_id = account_management.create(
        tx,
        actor_of(request),
        email=service_accounts.address_of(body.name),
        name=body.name,
        role=body.role,
        language=context.settings.shop_language,
        is_service=True,
    )
    (account,) = tx.fetch_all(accounts.read_managed(user_id))
    headers = {"etag": account_management.etag_of(account), "location": f"/admin/users/{user_id}"}
    return Response(201, _represent(account), headers)


def create_key(request: Request[KeyRequest, None], context: RequestContext) -> Response:
    """201 with a new API key, which is shown this once; 409 unless the account is an active service
    account with fewer than ten keys.
    """
    body = request.body
    key, stored = service_accounts.create_key(
        context.tx,
        actor_of(request),
        _user_id(request.path),
        scopes=sorted(set(body.scopes)),
        days=body.days,
    )
    return _new_key(key, stored)


def rotate_key(request: Request[KeyRotation, None], context: RequestContext) -> Response:
    """201 with a new key of the same scopes; the old one ends after ``overlapHours``."""
    body = request.body
    key, stored = service_accounts.rotate_key(
        context.tx,
        actor_of(request),
        _user_id(request.path),
        _key_id(request.path),
        days=body.days,
        overlap_hours=body.overlap_hours,
    )
    return _new_key(key, stored)


def end_key(request: Request[None, None], context: RequestContext) -> Response:
    """204 once the key is rejected; 404 for one that has ended already."""
    service_accounts.end_key(
        context.tx, actor_of(request), _user_id(request.path), _key_id(request.path)
    )
    return Response(204)


def list_keys(request: Request[None, ListKeys], context: RequestContext) -> Response:
    """200 with a page of an account's keys, newest first, ended ones too; 404 for no account."""
    user_id, query = _user_id(request.path), request.query
    before = parse_uuid(query.cursor) if query.cursor else None
    if query.cursor and before is None:
        raise ClientError(400, "BAD_QUERY", "cursor: not one of ours")
    account, rows = context.tx.pipeline(
        accounts.read_managed(user_id),
        api_keys.list_keys(user_id, before=before, limit=query.limit + 1),
    )
    if not account:
        raise not_found("the account")
    page = rows[: query.limit]
    is_last = len(rows) <= query.limit
    path = f"/admin/users/{user_id}/api-keys"
    headers = {} if is_last else _link(path, {}, query.limit, page[-1].key_id)
    return Response(200, [_represent_key(key) for key in page], headers)


def list_entries(request: Request[None, ListEntries], context: RequestContext) -> Response:
    """200 with a page of the audit log, newest first, and the next page in ``Link``."""
    query = request.query
    filters = {
        "actorId": query.actor_id,
        "action": query.action,
        "objectKind": query.object_kind,
        "objectId": query.object_id,
    }
    rows = context.tx.fetch_all(
        audit_log.list_entries(
            actor_id=query.actor_id,
            action=query.action,
            object_kind=query.object_kind,
            object_id=query.object_id,
            before=query.cursor,
            limit=query.limit + 1,
        )
    )
    page = rows[: query.limit]
    is_last = len(rows) <= query.limit
    headers = {} if is_last else _link("/admin/audit-log", filters, query.limit, page[-1].seq)
    return Response(200, [_represent_entry(entry) for entry in page], headers)


def _link(path: str, filters: Mapping[str, object], limit: int, cursor: object) -> dict[str, str]:
    given = {name: value for name, value in filters.items() if value is not None}
    parameters = urlencode({**given, "limit": limit, "cursor": cursor})
    return {"link": f'<{path}?{parameters}>; rel="next"'}


def _preferred_language(request: Request[Invitation, None], context: RequestContext) -> str:
    header = request.headers.get("accept-language")
    return preferred_language(header, default=context.settings.shop_language)


def _user_id(path: Mapping[str, str]) -> int:
    user_id = parse_user_id(path["userId"])
    if user_id is None:
        raise not_found("the account")
    return user_id


def _key_id(path: Mapping[str, str]) -> UUID:
    key_id = parse_uuid(path["keyId"])
    if key_id is None:
        raise not_found("the API key")
    return key_id


def _new_key(key: str, stored: ApiKey) -> Response:
    return Response(201, {**_represent_key(stored), "key": key}, {"cache-control": "no-store"})


def _represent_key(key: ApiKey) -> dict[str, object]:
    return {
        "id": str(key.key_id),
        "prefix": key.prefix,
        "scopes": key.scopes,
        "createdAt": _time(key.created_at),
        "expiresAt": _time(key.expires_at),
        "endedAt": key.ended_at and _time(key.ended_at),
        "lastUsedAt": key.last_used_at and _time(key.last_used_at),
    }


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _response(account: ManagedAccount) -> Response:
    return Response(200, _represent(account), {"etag": account_management.etag_of(account)})


def _represent(account: ManagedAccount) -> dict[str, object]:
    return {
        "id": account.user_id,
        "email": account.email,
        "name": account.name,
        "role": account.role,
        "state": account.state,
        "language": account.language,
        "emailVerified": account.is_verified,
        "service": account.is_service,
        "createdAt": _time(account.created_at),
    }


def _represent_entry(entry: Entry) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "at": _time(entry.at),
        "actor": {"kind": entry.actor_kind, "id": entry.actor_id, "role": entry.actor_role},
        "action": entry.action,
        "object": {"kind": entry.object_kind, "id": entry.object_id},
        "before": entry.before,
        "after": entry.after,
        "traceId": entry.trace_id,
    }
