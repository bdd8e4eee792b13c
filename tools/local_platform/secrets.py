"""The local platform's secrets: generated at the first start, kept in ``<data>/secrets``."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes, token_urlsafe

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from shop.adapters.tokens import public_jwk
from shop.primitives import webhook_signatures
from shop.primitives.spec import DATABASE_ROLES, FunctionSpec

CLOCK = "clock"
RELAY = "relay"


@dataclass(frozen=True, repr=False)
class Secrets:
    """Every secret of the platform; its repr shows none.

    ``event_keys`` are PEMs by trust domain (database role or ``clock``), also their key ids;
    ``event_key_set`` is the EVENT_KEYS setting and ``jwks`` the JWT_JWKS setting.
    """

    jwt_private_key: str
    jwks: str
    link_key: str
    second_factor_key: str
    webhook_key: str
    event_keys: dict[str, str]
    event_key_set: str
    provider_api_key: str
    webhook_secret: str
    carrier_secret: str
    database_password: str

    def __repr__(self) -> str:
        return "Secrets(***)"


def local_secrets(folder: Path, specs: Iterable[FunctionSpec]) -> Secrets:
    """Reads the secrets in ``folder`` and generates those that are missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    jwt_private_key = read_or_create(folder / "jwt.pem", new_key)
    event_keys = {
        domain: read_or_create(folder / f"events-{domain}.pem", new_key)
        for domain in (*DATABASE_ROLES, CLOCK)
    }
    return Secrets(
        jwt_private_key=jwt_private_key,
        jwks=json.dumps({"keys": [_jwk(jwt_private_key)]}),
        link_key=read_or_create(folder / "link-key", lambda: token_urlsafe(32)),
        second_factor_key=read_or_create(folder / "second-factor-key", lambda: token_urlsafe(32)),
        webhook_key=read_or_create(folder / "webhook-key", lambda: token_urlsafe(32)),
        event_keys=event_keys,
        event_key_set=json.dumps(_key_set(event_keys, specs)),
        provider_api_key=read_or_create(
            folder / "provider-api-key", lambda: f"sk_local_{token_urlsafe(24)}"
        ),
        webhook_secret=read_or_create(
            folder / "webhook-secret", lambda: f"whsec_{token_urlsafe(32)}"
        ),
        carrier_secret=read_or_create(
            folder / "carrier-webhook-secret", lambda: webhook_signatures.written(token_bytes(32))
        ),
        database_password=read_or_create(folder / "database-password", lambda: token_urlsafe(24)),
    )


def _key_set(keys: dict[str, str], specs: Iterable[FunctionSpec]) -> dict[str, dict[str, object]]:
    """The event sources that each key may sign for: its role's functions, or all for the relay.

    The relay publishes what functions left in the outbox; the clock's ticks are not among it.
    """
    sources: dict[str, list[str]] = {CLOCK: ["/shop/clock"]}
    for spec in specs:
        if spec.database_role:
            sources.setdefault(spec.database_role, []).append(spec.source)
    sources[RELAY] = [spec.source for spec in specs if spec.database_role]
    return {
        domain: {"x": _public(keys[domain]), "sources": allowed}
        for domain, allowed in sources.items()
    }


def read_or_create(file: Path, generate: Callable[[], str]) -> str:
    """The content of a file, which is generated the first time, readable by its owner only."""
    if not file.exists():
        unfinished = file.with_suffix(f".{os.getpid()}")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="ascii") as output:
            output.write(generate())
        unfinished.rename(file)
    return file.read_text(encoding="ascii")


def new_key() -> str:
    """A new Ed25519 private key, PKCS #8 in PEM."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode("ascii")


def _public(pem: str) -> str:
    key = load_pem_private_key(pem.encode("ascii"), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    raw = key.public_key().public_bytes_raw()
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _jwk(pem: str) -> dict[str, str]:
    key = load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return public_jwk(key.public_key().public_bytes_raw())
