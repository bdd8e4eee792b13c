"""Invites, finds, changes and disables accounts for administrators; shows the audit log."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from events.accounts import UserInvited
from shop import account_management, accounts, audit_log, one_time_links
from shop.audit_log import actor_of
from shop.messaging.outbox import emit
from shop.primitives.errors import not_found
from shop.primitives.etags import is_known, require_if_match
from shop.primitives.ids import parse_user_id
from shop.primitives.messages import Request, Response
from shop.primitives.statuses import AccountState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from functions.manage_accounts.schema import (
        AccountChange,
        Invitation,
        ListAccounts,
        ListEntries,
    )
    from shop.accounts import ManagedAccount
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

    The event names the link, which is valid for 72 hours.  409 when the address has an account.
    """
    tx, actor, body = context.tx, actor_of(request), request.body
    user_id = account_management.create(tx, actor, email=body.email, name=body.name, role=body.role)
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


def _link(path: str, filters: Mapping[str, object], limit: int, cursor: int) -> dict[str, str]:
    given = {name: value for name, value in filters.items() if value is not None}
    parameters = urlencode({**given, "limit": limit, "cursor": cursor})
    return {"link": f'<{path}?{parameters}>; rel="next"'}


def _user_id(path: Mapping[str, str]) -> int:
    user_id = parse_user_id(path["userId"])
    if user_id is None:
        raise not_found("the account")
    return user_id


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
        "createdAt": account.created_at.astimezone(UTC).isoformat(),
    }


def _represent_entry(entry: Entry) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "at": entry.at.astimezone(UTC).isoformat(),
        "actor": {"kind": entry.actor_kind, "id": entry.actor_id, "role": entry.actor_role},
        "action": entry.action,
        "object": {"kind": entry.object_kind, "id": entry.object_id},
        "before": entry.before,
        "after": entry.after,
        "traceId": entry.trace_id,
    }
