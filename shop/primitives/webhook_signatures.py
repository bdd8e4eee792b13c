"""Secrets and signatures of webhooks, as in Standard Webhooks 1.0 (standardwebhooks.com).

A secret is not stored: it is an HMAC of the webhook's id and the number of the secret under
WEBHOOK_KEY.  Who reads the database can sign nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import TYPE_CHECKING

from shop.primitives.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

SECRET_PREFIX = "whsec_"  # noqa: S105 (of every secret)


SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
AGE_SECONDS_MAX = 300
TIMESTAMP = r"[1-9][0-9]{0,11}"
ID_LENGTH_MAX = 200
SIGNATURES_MAX = 8


def secret_of(webhook_id: UUID, number: int, key: str) -> bytes:
    """The 32 bytes with which messages to a webhook are signed."""
    return hmac.digest(key.encode(), f"webhook:{webhook_id}:{number}".encode(), hashlib.sha256)


def written(secret: bytes) -> str:
    """A secret as its receiver is given it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def headers_of(
    message_id: str, timestamp: int, body: bytes, secrets: Iterable[bytes]
) -> dict[str, str]:
    """The three headers of a signed message: one signature for each secret that is valid."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(secret, content, hashlib.sha256) for secret in secrets)
    signatures = " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signatures,
    }


def read_secret(text: str) -> bytes:
    """The bytes of a secret as ``written``; ``ValueError`` for other text."""
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(f"does not begin with {SECRET_PREFIX}")
    secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise ValueError(f"is not {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64")
    return secret


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> None:
    """Checks the signature of a received message under one of the secrets, as ``written``.

    ``ClientError`` 401 when a header is missing or the signature wrong, or when it was made more
    than five minutes before or after ``now``.  Repeated messages are found by ``webhook-id``.
    """
    message_id = headers.get("webhook-id", "")
    stamp = headers.get("webhook-timestamp", "")
    given = headers.get("webhook-signature", "").split(" ")[:SIGNATURES_MAX]
    if not (0 < len(message_id) <= ID_LENGTH_MAX and message_id.isascii()):
        raise _not_authentic("webhook-id is missing or unreadable")
    if re.fullmatch(TIMESTAMP, stamp, re.ASCII) is None:
        raise _not_authentic("webhook-timestamp is missing or unreadable")
    expected = [
        signature.encode()
        for secret in secrets
        for signature in headers_of(message_id, int(stamp), body, [read_secret(secret)])[
            "webhook-signature"
        ].split(" ")
    ]
    # every pair is compared in constant time
    if not any([hmac.compare_digest(e, g.encode()) for e in expected for g in given]):
        raise _not_authentic("the signature is wrong")
    if abs(now.timestamp() - int(stamp)) > AGE_SECONDS_MAX:
        raise _not_authentic("the signature is too old or too far ahead")


def _not_authentic(message: str) -> ClientError:
    return ClientError(401, "INVALID_SIGNATURE", message)
