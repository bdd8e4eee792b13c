"""Secrets and signatures of webhooks, as in Standard Webhooks 1.0 (standardwebhooks.com).

A secret is not stored: it is an HMAC of the webhook's id and the number of the secret under
WEBHOOK_KEY.  Who reads the database can sign nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

SECRET_PREFIX = "whsec_"  # noqa: S105 (of every secret)


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
