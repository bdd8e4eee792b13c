"""Access tokens: issuing and verifying JWTs signed with Ed25519 (RFC 7519, 8037, 8725, 9068).

One algorithm, one type, one issuer and one audience are accepted.  The key is selected by ``kid``
from the configured key set; a header that contains or refers to another key is rejected, so no key
is ever fetched.

PyJWT issues tokens.  They are verified here with cryptography's Ed25519: stricter than PyJWT and
without its import time (ADR 0020 has the measurements).  Tests compare the results with PyJWT's for
the token corpus and 100,000 mutated tokens.  Neither library is imported before the first token, so
a public function loads none.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Literal, cast
from uuid import UUID

from shop.adapters.ed25519 import load_private_key
from shop.primitives.errors import ClientError
from shop.primitives.ids import new_uuid, parse_uuid
from shop.primitives.messages import Caller
from shop.primitives.spec import ROLES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ALGORITHM: Literal["EdDSA"] = "EdDSA"
TOKEN_TYPE = "at+jwt"  # noqa: S105 (the type of our tokens, not one of them)
CLIENT_ID = "shop"
LIFETIME_SECONDS = 600
LEEWAY_SECONDS = 60
TOKEN_BYTES_MAX = 4096
CACHED_TOKENS_MAX = 1024
USER_ID_MAX = 2**63 - 1
NUMERIC_DATE_MAX = 2**53

# A header has exactly these members.  jwk, jku, x5u, x5c, crit, b64, zip and cty are not part of
# our tokens, and an unknown member could change what the signature means.
HEADER_NAMES = {"alg", "typ", "kid"}

BEARER = re.compile(r"(?i:Bearer) ([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
USER_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


class TokenIssuer:
    """Issues access tokens with the shop's private key, which only ``login`` has.

    ``private_key_pem`` is an Ed25519 key in PKCS #8 PEM; any other raises ``ValueError``.
    ``clock`` returns the time of issue.
    """

    def __init__(
        self,
        private_key_pem: str,
        issuer: str,
        audience: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._key = load_private_key(private_key_pem)
        self._jwk = public_jwk(self._key.public_key().public_bytes_raw())
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    def issue(self, user_id: int, role: str, session_id: UUID) -> tuple[str, int]:
        """A token for one session of one account, and its lifetime in seconds."""
        import jwt  # imported here: only the function that issues tokens needs it

        issued_at = int(self._clock().timestamp())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": str(new_uuid()),
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + LIFETIME_SECONDS,
            "client_id": CLIENT_ID,
            "scope": "shop",
            "role": role,
        }
        header = {"typ": TOKEN_TYPE, "kid": self._jwk["kid"]}
        return jwt.encode(claims, self._key, ALGORITHM, header), LIFETIME_SECONDS

    def derive_key(self, purpose: str) -> bytes:
        """A secret for another purpose, which does not disclose the private key."""
        return hmac.digest(self._key.private_bytes_raw(), purpose.encode(), hashlib.sha256)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public key as a JWK set (RFC 7517)."""
        return public_keys(json.dumps({"keys": [self._jwk]}))


class TokenVerifier:
    """Verifies ``Authorization`` headers.

    ``jwks_json`` is a JWK set of Ed25519 public keys, each with its ``kid``; anything else in it
    raises ``ValueError`` before the first request.  Verified tokens are cached by SHA-256, at most
    ``CACHED_TOKENS_MAX`` of them; whether the session is still open is checked in PostgreSQL with
    every request (``shop.sessions``).
    """

    def __init__(self, jwks_json: str, issuer: str, audience: str) -> None:
        self._raw_keys = read_jwks(jwks_json)
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._issuer = issuer
        self._audience = audience
        self._verified: dict[bytes, tuple[Caller, int, int]] = {}
        self._lock = threading.Lock()

    def verify(self, authorization_header: str | None, now: datetime) -> Caller:
        """The caller, or ``ClientError`` 401, the same for everything wrong with a token."""
        if authorization_header is None or len(authorization_header) > TOKEN_BYTES_MAX:
            raise unauthenticated()
        match = BEARER.fullmatch(authorization_header)
        if match is None:
            raise unauthenticated()
        digest = hashlib.sha256(authorization_header[len("Bearer ") :].encode()).digest()
        with self._lock:
            known = self._verified.get(digest)
        if known is None:
            known = self._read(match[1], match[2], match[3])
            self._cache(digest, known)
        caller, valid_from, valid_until = known
        if not valid_from <= now.timestamp() < valid_until:
            raise unauthenticated()
        return caller

    def _read(self, header: str, claims: str, signature: str) -> tuple[Caller, int, int]:
        """Verifies everything that does not depend on the time: form, key, signature, claims."""
        key_id = _key_id(_json_object(header))
        if key_id not in self._raw_keys:
            raise unauthenticated()
        self._check_signature(key_id, f"{header}.{claims}".encode(), _base64url(signature))
        return self._caller(_json_object(claims))

    def _check_signature(self, key_id: str, signed: bytes, signature: bytes) -> None:
        # imported here: a function with public routes only does not need it
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        key = self._keys.get(key_id)
        if key is None:
            key = Ed25519PublicKey.from_public_bytes(self._raw_keys[key_id])
            self._keys[key_id] = key
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            raise unauthenticated() from None

    def _caller(self, claims: Mapping[str, object]) -> tuple[Caller, int, int]:
        names = {"iss": self._issuer, "aud": self._audience, "client_id": CLIENT_ID}
        if any(claims.get(name) != value for name, value in names.items()):
            raise unauthenticated()
        text = {name: claims.get(name) for name in ("sub", "sid", "jti", "role", "scope")}
        if not all(isinstance(value, str) for value in text.values()):
            raise unauthenticated()
        session_id = parse_uuid(str(text["sid"]))
        if session_id is None or not text["jti"] or text["role"] not in ROLES:
            raise unauthenticated()
        caller = Caller(_user_id(str(text["sub"])), str(text["role"]), session_id)
        return caller, *_validity(claims)

    def _cache(self, digest: bytes, known: tuple[Caller, int, int]) -> None:
        with self._lock:
            while len(self._verified) >= CACHED_TOKENS_MAX:
                del self._verified[next(iter(self._verified))]  # the oldest
            self._verified[digest] = known


def unauthenticated() -> ClientError:
    """401, the same for every missing or invalid token (RFC 6750 section 3)."""
    return ClientError(
        401,
        "UNAUTHENTICATED",
        "a valid access token is needed",
        headers={"www-authenticate": 'Bearer error="invalid_token"'},
    )


def public_jwk(raw_public_key: bytes) -> dict[str, str]:
    """An Ed25519 public key as a JWK (RFC 8037) whose ``kid`` is its RFC 7638 thumbprint."""
    required = {"crv": "Ed25519", "kty": "OKP", "x": _encode(raw_public_key)}
    canonical = json.dumps(required, sort_keys=True, separators=(",", ":"))
    return {**required, "kid": _encode(hashlib.sha256(canonical.encode()).digest())}


def read_jwks(jwks_json: str) -> dict[str, bytes]:
    """Raw Ed25519 public keys by ``kid``; ``ValueError`` for anything else, private keys too."""
    document: object = json.loads(jwks_json)
    keys = cast("dict[str, object]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not keys:
        raise ValueError("a key set has a list of keys")
    table: dict[str, bytes] = {}
    for key in cast("list[object]", keys):
        key_id, raw = _read_jwk(cast("dict[str, object]", key) if isinstance(key, dict) else {})
        if key_id in table:
            raise ValueError("a kid occurs twice in the key set")
        table[key_id] = raw
    return table


def check_listed(private_key_pem: str, jwks_json: str) -> None:
    """``ValueError`` unless the key set lists the public half under the ``kid`` of our tokens."""
    raw = load_private_key(private_key_pem).public_key().public_bytes_raw()
    if read_jwks(jwks_json).get(public_jwk(raw)["kid"]) != raw:
        raise ValueError("JWT_JWKS does not list its public half under its RFC 7638 thumbprint")


def public_keys(jwks_json: str) -> dict[str, list[dict[str, str]]]:
    """A key set for publication: the public members of each key and nothing else."""
    return {
        "keys": [
            {**public_jwk(raw), "kid": key_id, "use": "sig", "alg": ALGORITHM}
            for key_id, raw in read_jwks(jwks_json).items()
        ]
    }


def _read_jwk(key: Mapping[str, object]) -> tuple[str, bytes]:
    if (key.get("kty"), key.get("crv")) != ("OKP", "Ed25519"):
        raise ValueError("the key set holds a key that is not an Ed25519 key")
    key_id, encoded = key.get("kid"), key.get("x")
    if "d" in key or not isinstance(key_id, str) or not isinstance(encoded, str):
        raise ValueError("a key of the set needs kid and x, and must not hold its private half")
    raw = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    if len(raw) != 32:
        raise ValueError("a key of the set is not 32 bytes long")
    return key_id, raw


def _key_id(header: Mapping[str, object]) -> str:
    key_id = header.get("kid")
    if set(header) != HEADER_NAMES or not isinstance(key_id, str):
        raise unauthenticated()
    if header["alg"] != ALGORITHM or header["typ"] != TOKEN_TYPE:
        raise unauthenticated()
    return key_id


def _user_id(subject: str) -> int:
    if USER_ID.fullmatch(subject) is None or int(subject) > USER_ID_MAX:
        raise unauthenticated()
    return int(subject)


def _validity(claims: Mapping[str, object]) -> tuple[int, int]:
    """The token is valid from the first to before the second; both include the clock leeway."""
    issued_at, not_before, expires_at = (_moment(claims, name) for name in ("iat", "nbf", "exp"))
    if not issued_at < expires_at <= issued_at + LIFETIME_SECONDS + LEEWAY_SECONDS:
        raise unauthenticated()
    return max(issued_at, not_before) - LEEWAY_SECONDS, expires_at + LEEWAY_SECONDS


def _moment(claims: Mapping[str, object], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int or not 0 < value < NUMERIC_DATE_MAX:  # isinstance accepts true
        raise unauthenticated()
    return value


def _json_object(segment: str) -> dict[str, object]:
    """The JSON object in a segment: no duplicate names, no NaN, UTF-8 only."""
    try:
        value: object = json.loads(
            _base64url(segment).decode(),
            object_pairs_hook=_unique_names,
            parse_constant=_reject_constant,
        )
    except (ValueError, RecursionError):
        raise unauthenticated() from None
    if not isinstance(value, dict):
        raise unauthenticated()
    return cast("dict[str, object]", value)


def _unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name occurs twice")
    return names


def _reject_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _base64url(segment: str) -> bytes:
    """The bytes of a canonical, unpadded segment (RFC 7515 section 2); 401 for any other."""
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise unauthenticated() from None
    if _encode(raw) != segment:
        raise unauthenticated()
    return raw


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
