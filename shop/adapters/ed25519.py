"""Private keys of Ed25519 (RFC 8032, RFC 8410), for tokens and for events."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# Every PKCS #8 document of an Ed25519 key without attributes begins so (RFC 8410 section 7).
PKCS8_PREFIX = bytes.fromhex("302e020100300506032b657004220420")
PKCS8_BYTES = len(PKCS8_PREFIX) + 32
PEM = re.compile(
    r"\s*-----BEGIN PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END PRIVATE KEY-----\s*", re.ASCII
)


def load_private_key(pem: str) -> Ed25519PrivateKey:
    """The key in an unencrypted PKCS #8 PEM; any other text raises ValueError without quoting it.

    Read here because cryptography's PEM reader takes 9 ms to import (ADR 0026).
    """
    # imported here: only processes that sign have a private key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    match = PEM.fullmatch(pem)
    try:
        document = b64decode("".join(match[1].split()), validate=True) if match else b""
    except ValueError:
        document = b""
    if not document.startswith(PKCS8_PREFIX) or len(document) != PKCS8_BYTES:
        raise ValueError("it is not an unencrypted Ed25519 key, PKCS #8 in PEM")
    return Ed25519PrivateKey.from_private_bytes(document[len(PKCS8_PREFIX) :])
