"""One HTTP operation: policies, transaction, idempotency, handler, answer, commit, publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

from shop.messaging import idempotency
from shop.primitives import failpoints
from shop.primitives.clock import utc_now
from shop.primitives.errors import ClientError, Unavailable
from shop.primitives.messages import Caller, Request, Response
from shop.runtime import http_messages as http
from shop.runtime import log, rate_limit
from shop.runtime.http_messages import HttpRequest, HttpResponse
from shop.runtime.message_context import span

if TYPE_CHECKING:
    from shop.adapters.db import Session, Statement, Transaction
    from shop.runtime.app import Operation
    from shop.runtime.services import Services

ANONYMOUS = 0
TRIES_MAX = 3
STORED_HEADERS = ("location", "content-type", "etag")

ACT_AS: LiteralString = """
select set_config('shop.user_id', %(user_id)s, true) as user_id,
  set_config('shop.role', %(role)s, true) as role
"""


@dataclass
class Call:
    """One request on its way through the policies."""

    services: Services
    operation: Operation
    wire: HttpRequest
    request: Request
    session_index: int | None = None
    claim: dict[str, Any] | None = None
    # false while the opening waits, for the row of an idempotency key above all
    has_begun: bool = False
    announced: list[Any] = field(default_factory=list)


def handle_request(
    services: Services,
    operation: Operation,
    wire: HttpRequest,
    path: dict[str, str],
    traceparent: str,
) -> HttpResponse:
    """Answers one matched request; ``ClientError`` and ``Unavailable`` are left to the app."""
    route = operation.route
    http.check_accept(wire, route.media_type)
    caller, rate_headers = _admit(services, operation, wire)
    raw_body = http.read_body(wire)
    has_body = bool(raw_body) or not route.body_is_optional
    document = http.parse_json(wire, raw_body) if route.body and has_body else None
    request = Request(
        method=wire.method,
        route=route.path,
        path=path,
        headers=wire.headers,
        settings=services.settings,
        client=rate_limit.client_address(wire, services.settings.trusted_hops),
        now=utc_now(),
        traceparent=traceparent,
        query=_validated_query(operation, wire),
        body=_validated_body(operation, document) if has_body else None,
        raw_body=raw_body,
        caller=caller,
        idempotency_key=_key_of(services, operation, wire),
    )
    call = Call(services, operation, wire, request)
    if route.writes:
        failpoints.point("W0")
    if route.transaction:
        answer = _in_transaction(call)
    else:
        reply = operation.handler(request, lambda: open_transaction(call))
        answer = encode_reply(reply)
    _publish(services, call.announced)
    _run_after_commit(request)
    answer.headers.update({k: v for k, v in rate_headers.items() if k not in answer.headers})
    return answer


# ---------------------------------------------------------------- policies


def _admit(
    services: Services, operation: Operation, wire: HttpRequest
) -> tuple[Caller | None, dict[str, str]]:
    """Who asks, and what is left to them this minute, before a byte of the body is read.

    Whoever proves nothing is counted by address: refused tokens are requests too.
    """
    is_provider = operation.route.auth == "provider"
    try:
        caller = _authenticate(services, operation, wire)
    except ClientError:
        rate_limit.count_request(services, wire, None)
        raise
    counted_as = caller or _known_anyway(services, wire)
    return caller, rate_limit.count_request(services, wire, counted_as, is_provider=is_provider)


def _known_anyway(services: Services, wire: HttpRequest) -> Caller | None:
    """The account behind a public request that carries a good token; it counts for itself."""
    header = wire.headers.get("authorization")
    if header is None or not services.settings.jwt_jwks:
        return None
    try:
        return services.tokens.verify(header, utc_now())
    except ClientError:
        return None


def _authenticate(services: Services, operation: Operation, wire: HttpRequest) -> Caller | None:
    needed = operation.route.auth
    if needed == "settlements":
        needed = services.settings.settlements_auth  # type: ignore[assignment]
    if needed in ("public", "provider"):
        return None
    caller = services.tokens.verify(wire.headers.get("authorization"), utc_now())
    if needed != "customer" and caller.role != needed:
        raise ClientError(403, "FORBIDDEN", f"this needs the role {needed}")
    return caller


def _validated_body(operation: Operation, document: Any) -> Any:
    model = operation.body_model
    if model is None:
        return None
    return _validated(lambda: model.model_validate(document), status=422, code="INVALID")


def _validated_query(operation: Operation, wire: HttpRequest) -> Any:
    parameters = http.parse_query(wire.query)
    model = operation.query_model
    if model is None:
        if parameters:
            raise ClientError(400, "BAD_QUERY", "this resource takes no query parameters")
        return None
    return _validated(lambda: model.model_validate(parameters), status=400, code="BAD_QUERY")


def _validated(validate: Callable[[], Any], *, status: int, code: str) -> Any:
    from pydantic import ValidationError  # the model's module has imported it already

    try:
        return validate()
    except ValidationError as error:
        mistakes = [
            {"field": ".".join(str(part) for part in item["loc"]), "message": item["msg"]}
            for item in error.errors(include_url=False, include_input=False)[:20]
        ]
        first = mistakes[0]
        message = f"{first['field'] or 'body'}: {first['message']}"
        raise ClientError(status, code, message, extra={"errors": mistakes}) from error


def _key_of(services: Services, operation: Operation, wire: HttpRequest) -> str | None:
    header = wire.headers.get("idempotency-key")
    if header is not None:
        key = idempotency.parse_key(header)
        return key if operation.route.idempotent else None
    if operation.route.idempotent and services.settings.idempotency_key_required:
        raise ClientError(400, "IDEMPOTENCY_KEY_REQUIRED", "this route needs an Idempotency-Key")
    return None


# ---------------------------------------------------------------- transaction


def _in_transaction(call: Call) -> HttpResponse:
    from shop.adapters.db import CAN_BE_RETRIED

    for attempt in range(1, TRIES_MAX + 1):
        try:
            return _attempt(call)
        except CAN_BE_RETRIED as error:
            call.announced.clear()
            if attempt == TRIES_MAX:
                raise Unavailable("the database is busy") from error
    raise AssertionError("unreachable")


def _attempt(call: Call) -> HttpResponse:
    from shop.adapters import db

    call.has_begun = False
    try:
        with _open(call, *_claim(call)) as session:
            call.has_begun = True
            stored = _answer_of_key(call, session)
            if stored is not None:
                return stored
            if call.claim is not None:
                failpoints.point("W1")
            return _work(call, session)
    except db.CAN_BE_RETRIED:
        raise
    except db.LockNotAvailable as error:
        # a row that somebody else holds is no news about the key: only waiting for the key is
        if call.claim is None or call.has_begun:
            raise Unavailable("the database is busy") from error
        raise _in_progress() from error
    except db.NOT_NOW as error:
        log.write("database", error=type(error).__name__, route=call.operation.scope)
        raise db.unavailable() from error


def _work(call: Call, session: Session) -> HttpResponse:
    from shop.adapters import db

    tx = session.tx
    try:
        answer = encode_reply(call.operation.handler(call.request, tx))
    except ClientError as refusal:
        if call.claim is None or not refusal.stored:
            raise
        answer = http.problem(refusal, instance=call.wire.path)
        tx.announced.clear()
        session.commit((db.UNDO_WORK, {}), _finish(call, answer))
        return answer
    closing = (_finish(call, answer),) if call.claim is not None else ()
    session.commit(*closing)
    call.announced.extend(tx.announced)
    return answer


@contextmanager
def _open(call: Call, *claim: Statement) -> Iterator[Session]:
    """BEGIN, who acts, is the session still open, and the key's claim: one round trip."""
    opening: list[Statement] = []
    caller = call.request.caller
    if call.operation.spec.database_role is not None:
        user_id = str(caller.user_id) if caller else ""
        opening.append((ACT_AS, {"user_id": user_id, "role": caller.role if caller else ""}))
    if caller is not None:
        from shop.sessions import open_session

        call.session_index = len(opening)
        opening.append(open_session(caller.session_id, caller.user_id))
    opening.extend(claim)
    with (
        span("transaction"),
        call.services.database.transaction(
            opening=tuple(opening),
            traceparent=call.request.traceparent,
            actor=f"user:{caller.user_id}" if caller else "anonymous",
            is_read_only=not call.operation.route.writes,
        ) as session,
    ):
        if call.session_index is not None:
            _check_session(caller, session.opened[call.session_index])
        yield session


def _check_session(caller: Caller | None, rows: list[Any]) -> None:
    if not rows or (caller is not None and rows[0].role != caller.role):
        raise ClientError(
            401,
            "UNAUTHENTICATED",
            "the session has ended",
            headers={"www-authenticate": 'Bearer error="invalid_token"'},
        )


@contextmanager
def open_transaction(call: Call) -> Iterator[Transaction]:
    """A transaction for handlers that open their own; committed when the block ends well."""
    from shop.adapters import db

    try:
        with _open(call) as session:
            yield session.tx
            session.commit()
            call.announced.extend(session.tx.announced)
    except db.NOT_NOW as error:
        raise db.unavailable() from error


# ---------------------------------------------------------------- idempotency


def _claim(call: Call) -> tuple[Statement, ...]:
    request = call.request
    if request.idempotency_key is None:
        return ()
    from shop.adapters import db

    body = request.body.model_dump(mode="json") if request.body is not None else None
    call.claim = {
        "user_id": request.caller.user_id if request.caller else ANONYMOUS,
        "scope": call.operation.scope,
        "key": request.idempotency_key,
        "fingerprint": idempotency.fingerprint(request.path, body),
    }
    return (*idempotency.claim(**call.claim), (db.SAVEPOINT, {}))


def _answer_of_key(call: Call, session: Session) -> HttpResponse | None:
    """None when this request took the key; otherwise what the key was answered before."""
    if call.claim is None:
        return None
    claimed, stored, _ = session.opened[-3:]
    if claimed:
        return None
    if not stored or stored[0].state != "DONE":
        raise _in_progress()
    row = stored[0]
    if bytes(row.fingerprint) != call.claim["fingerprint"]:
        raise ClientError(
            422, "IDEMPOTENCY_KEY_REUSED", "this Idempotency-Key was used with another request"
        )
    headers = {**row.headers, "idempotent-replayed": "true"}
    return HttpResponse(row.status_code, bytes(row.body), headers)


def _finish(call: Call, answer: HttpResponse) -> Statement:
    assert call.claim is not None, "only a claimed key is finished"
    return idempotency.finish(
        user_id=call.claim["user_id"],
        scope=call.claim["scope"],
        key=call.claim["key"],
        status=answer.status,
        headers={k: v for k, v in answer.headers.items() if k in STORED_HEADERS},
        body=answer.body,
    )


def _in_progress() -> ClientError:
    return ClientError(
        409,
        "REQUEST_IN_PROGRESS",
        "a request with this Idempotency-Key is being answered",
        headers={"retry-after": "1"},
    )


# ---------------------------------------------------------------- answer and afterwards


def encode_reply(reply: Response) -> HttpResponse:
    """A handler's reply as bytes."""
    headers = {name.lower(): text for name, text in reply.headers.items()}
    if reply.body is None:
        return HttpResponse(reply.status, b"", headers)
    body = reply.body if isinstance(reply.body, bytes) else http.encode(reply.body)
    headers.setdefault("content-type", reply.media_type)
    return HttpResponse(reply.status, body, headers)


def _publish(services: Services, rows: list[Any]) -> None:
    if not rows:
        return
    from shop.adapters import db
    from shop.messaging import outbox

    accepted = services.publisher.publish(rows)
    if accepted:
        failpoints.point("W5")
        try:
            services.database.run_now(outbox.mark_sent(accepted))
        except db.DatabaseError as error:
            log.write("not marked sent", error=type(error).__name__)


def _run_after_commit(request: Request) -> None:
    for act in request.after_commit:
        try:
            act()
        except Exception as error:
            log.bug(error, route=request.route)
