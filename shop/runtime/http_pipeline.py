"""One matched HTTP request: the policies between its route and its response, in this order.

1. content negotiation (``http_messages.check_accept``)
2. authentication and authorisation (``authentication``)
3. rate limit (``rate_limit``)
4. body, query and idempotency key (``request_validation``)
5. one transaction with the handler, retried on serialization failures (``_run_in_transaction``),
   under the request's idempotency key (``idempotency_policy``)
6. publication of the events that the transaction emitted, then the handler's actions after the
   commit (``RequestContext``)

Size limits and routing come before (``app``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from shop.primitives import failpoints
from shop.primitives.clock import utc_now
from shop.primitives.errors import ClientError, Unavailable
from shop.primitives.failpoints import Failpoint
from shop.primitives.messages import Caller, Request, Response
from shop.primitives.spec import SIGNED
from shop.runtime import authentication, rate_limit, request_validation
from shop.runtime import http_messages as http
from shop.runtime.client_address import client_network
from shop.runtime.http_messages import HttpRequest, HttpResponse
from shop.runtime.idempotency_policy import KeyClaim, request_in_progress
from shop.runtime.request_context import RequestContext
from shop.runtime.routing import unknown_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shop.adapters.statements import Row, Statement
    from shop.primitives.spec import Route
    from shop.runtime.routing import Operation
    from shop.runtime.services import Services

ATTEMPTS_MAX = 3


def handle_request(
    services: Services,
    operation: Operation,
    http_request: HttpRequest,
    path: Mapping[str, str],
    traceparent: str,
) -> HttpResponse:
    """The response to one matched request; raises ``ClientError`` and ``Unavailable``."""
    _negotiate(operation.route, http_request)
    caller, rate_headers = _admit(services, operation, http_request)
    request = _validate(services, operation, http_request, path, traceparent, caller)
    context = RequestContext(
        services,
        source=operation.spec.source,
        caller=caller,
        traceparent=traceparent,
        has_database=operation.spec.database_role is not None,
        is_read_only=not operation.route.writes,
        may_lag=operation.route.may_lag,
    )
    if operation.route.writes:
        failpoints.hit(Failpoint.MESSAGE_READ)
    if operation.route.transaction:
        response = _run_in_transaction(operation, http_request, request, context)
    else:
        response = _run_own_transactions(operation, request, context)
    context.publish()
    context.run_after_commit()
    response.headers.update({k: v for k, v in rate_headers.items() if k not in response.headers})
    return response


def _negotiate(route: Route, http_request: HttpRequest) -> None:
    """406 if the client does not accept what the route returns, 404 if it looks for no page."""
    if route.static is None:
        if not (route.is_also_page and http.names_html(http_request)):
            http.check_accept(http_request, route.media_type)
    elif route.static == "page" and not http.names_html(http_request):
        raise unknown_path()


def _run_own_transactions(
    operation: Operation, request: Request[Any, Any], context: RequestContext
) -> HttpResponse:
    """Runs a handler that opens its own transactions; a preliminary response can be run again."""
    result: Response = operation.handler(request, context)
    response = encode_response(result)
    if result.wait_seconds and request.caller is not None:
        response.pending = http.Pending(
            request.caller.user_id,
            result.wait_seconds,
            lambda: _run_own_transactions(operation, request, context),
        )
    return response


def _admit(
    services: Services, operation: Operation, http_request: HttpRequest
) -> tuple[Caller | None, dict[str, str]]:
    """Authenticates and counts the request; returns the caller and the rate limit headers.

    Static files are public and not counted: one view of a page needs dozens.

    A request whose token is rejected counts against its address.
    """
    if operation.route.static is not None:
        return None, {}
    is_provider = operation.route.auth in SIGNED
    try:
        caller = authentication.authenticate(services, operation.route, http_request)
    except ClientError:
        rate_limit.count_request(services, http_request, None)
        raise
    counted_as = caller or authentication.caller_of_optional_token(services, http_request)
    return caller, rate_limit.count_request(
        services, http_request, counted_as, is_provider=is_provider
    )


def _validate(
    services: Services,
    operation: Operation,
    http_request: HttpRequest,
    path: Mapping[str, str],
    traceparent: str,
    caller: Caller | None,
) -> Request[Any, Any]:
    """Reads the body, at most 64 KiB, and validates what the route declares."""
    settings = services.settings
    raw_body = http.read_body(http_request)
    authentication.check_signature(services, operation.route, http_request, raw_body)
    return Request(
        method=http_request.method,
        route=operation.route.path,
        path=path,
        headers=http_request.headers,
        client=client_network(http_request, settings),
        now=utc_now(),
        traceparent=traceparent,
        query=request_validation.parse_query(
            operation, http_request, ignores_unknown=settings.unknown_query_parameters_ignored
        ),
        body=request_validation.parse_body(operation, http_request, raw_body),
        raw_body=raw_body,
        caller=caller,
        idempotency_key=request_validation.parse_idempotency_key(
            operation, http_request, is_required=settings.idempotency_key_required
        ),
    )


def _run_in_transaction(
    operation: Operation,
    http_request: HttpRequest,
    request: Request[Any, Any],
    context: RequestContext,
) -> HttpResponse:
    """Runs the handler in one transaction, again after a deadlock or a serialization failure."""
    from shop.adapters import db

    key = request.idempotency_key
    # every function whose routes honour keys has one (needs_of)
    secret_key = context.settings.event_signing_key.reveal().encode()
    claim = (
        KeyClaim(request, operation.scope, key, secret_key=secret_key) if key is not None else None
    )
    failure: db.DatabaseError | None = None
    for _ in range(ATTEMPTS_MAX):
        try:
            return _attempt(operation, http_request, request, context, claim)
        except db.RETRYABLE_ERRORS as error:
            failure = error
            context.discard_attempt()
        except db.UNAVAILABLE_ERRORS as error:
            raise db.unavailable() from error
    raise Unavailable("the database is busy") from failure


def _attempt(
    operation: Operation,
    http_request: HttpRequest,
    request: Request[Any, Any],
    context: RequestContext,
    claim: KeyClaim | None,
) -> HttpResponse:
    from shop.adapters import db

    has_begun = False
    try:
        with context.session(*(claim.statements() if claim else ())) as session:
            has_begun = True
            if claim is not None:
                stored = claim.stored_response(session)
                if stored is not None:
                    return stored
                failpoints.hit(Failpoint.CLAIMED)
            closing: tuple[Statement[Row], ...] = ()
            try:
                response = encode_response(operation.handler(request, context))
            except ClientError as error:
                if claim is None or not error.stored:
                    raise
                response = http.problem(error, http_request)
                session.tx.announced.clear()
                closing = (db.ROLLBACK_TO_CLAIM(),)
            if claim is not None:
                closing = (*closing, claim.store(response))
            session.commit(*closing)
            context.emitted.extend(session.tx.announced)
            return response
    except db.LockNotAvailable as error:
        # before BEGIN has returned, the only lock waited for is that of the key
        if claim is not None and not has_begun:
            raise request_in_progress() from error
        raise Unavailable("the database is busy") from error


def encode_response(response: Response) -> HttpResponse:
    """A handler's response as status, lower-case header names and bytes."""
    headers = {name.lower(): text for name, text in response.headers.items()}
    if response.body is None:
        return HttpResponse(response.status, b"", headers)
    if isinstance(response.body, Iterator):
        headers.setdefault("content-type", response.media_type)
        parts = cast("Iterator[bytes]", response.body)
        return HttpResponse(response.status, b"", headers, parts=parts)
    body = response.body if isinstance(response.body, bytes) else http.encode(response.body)
    headers.setdefault("content-type", response.media_type)
    return HttpResponse(response.status, body, headers)
