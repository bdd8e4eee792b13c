"""Idempotency-Key: claim the key with BEGIN, replay its stored response or store one."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from shop.messaging import idempotency
from shop.primitives.errors import ClientError
from shop.primitives.statuses import KeyState
from shop.runtime.http_messages import HttpResponse

if TYPE_CHECKING:
    from pydantic import BaseModel

    from shop.adapters.db import Session
    from shop.adapters.statements import Row, Statement
    from shop.primitives.messages import Request

ANONYMOUS = 0
STORED_HEADERS = ("location", "content-type", "content-language", "vary", "etag")


class KeyClaim:
    """The claim of one idempotency key by one request, inside the request's transaction."""

    def __init__(
        self,
        request: Request[BaseModel | None, object],
        scope: str,
        key: str,
        *,
        secret_key: bytes,
    ) -> None:
        body = comparable(request.body, secret_key) if request.body is not None else None
        self._user_id = request.caller.user_id if request.caller else ANONYMOUS
        self._scope = scope
        self._key = key
        self._fingerprint = idempotency.fingerprint(request.path, body)
        self._claim = idempotency.claim(
            user_id=self._user_id, scope=scope, key=key, fingerprint=self._fingerprint
        )
        self._stored = idempotency.stored(user_id=self._user_id, scope=scope, key=key)

    def statements(self) -> tuple[Statement[Row], ...]:
        """Sent with BEGIN: claim the key, read what is stored under it, set a savepoint."""
        from shop.adapters import db

        return (self._claim, self._stored, db.SAVEPOINT_AFTER_CLAIM())

    def stored_response(self, session: Session) -> HttpResponse | None:
        """None when this request claimed the key, else the response stored under it.

        409 while another request is being processed under the key, 422 when the key was used with
        another request.
        """
        if session.rows_of(self._claim):
            return None
        stored = session.rows_of(self._stored)
        if not stored or stored[0].state != KeyState.DONE:
            raise request_in_progress()
        row = stored[0]
        assert row.status_code is not None and row.body is not None, "a check constraint"
        if bytes(row.fingerprint) != self._fingerprint:
            raise ClientError(
                422, "IDEMPOTENCY_KEY_REUSED", "this Idempotency-Key was used with another request"
            )
        headers = {**(row.headers or {}), "idempotent-replayed": "true"}
        return HttpResponse(row.status_code, bytes(row.body), headers)

    def store(self, response: HttpResponse) -> Statement[Row]:
        """The statement, sent with COMMIT, that stores the response for later requests."""
        return idempotency.finish(
            user_id=self._user_id,
            scope=self._scope,
            key=self._key,
            status=response.status,
            headers={k: v for k, v in response.headers.items() if k in STORED_HEADERS},
            body=response.body,
        )


def comparable(body: BaseModel, secret_key: bytes) -> object:
    """The body as its fingerprint covers it; secrets, which JSON masks, as keyed digests.

    A fingerprint without a key would let a reader of the database try passwords faster than their
    Argon2id hash does.
    """
    from pydantic import SecretStr  # the body's model has imported it already

    digests = {
        name: hmac.digest(secret_key, value.get_secret_value().encode(), hashlib.sha256).hex()
        for name, value in body
        if isinstance(value, SecretStr)
    }
    document = body.model_dump(mode="json")
    return [document, digests] if digests else document


def request_in_progress() -> ClientError:
    """409 for a key whose first request is still being processed."""
    return ClientError(
        409,
        "REQUEST_IN_PROGRESS",
        "a request with this Idempotency-Key is being answered",
        headers={"retry-after": "1"},
    )
