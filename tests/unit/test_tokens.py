"""Access tokens: issuing, verification and the cache of verified tokens."""

# The cache of verified tokens has no public size, the issuer no public private key.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shop.adapters import tokens
from shop.adapters.tokens import TokenIssuer, TokenVerifier, public_jwk, read_jwks
from shop.primitives.errors import ClientError
from shop.primitives.messages import Caller

ISSUER = "https://shop.test"
AUDIENCE = "shop-api"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SESSION = uuid4()


def make_pem(key: PrivateKeyTypes | None = None) -> str:
    private = key or Ed25519PrivateKey.generate()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer(make_pem(), ISSUER, AUDIENCE, lambda: NOW)


@pytest.fixture
def verifier(issuer: TokenIssuer) -> TokenVerifier:
    return TokenVerifier(json.dumps(issuer.jwks()), ISSUER, AUDIENCE)


def rejected(verifier: TokenVerifier, header: str | None, now: datetime = NOW) -> ClientError:
    with pytest.raises(ClientError) as caught:
        verifier.verify(header, now)
    return caught.value


def test_issued_token_is_verified_as_its_caller(
    issuer: TokenIssuer, verifier: TokenVerifier
) -> None:
    token, expires_in = issuer.issue(42, "staff", SESSION)

    assert expires_in == 600
    assert verifier.verify(f"Bearer {token}", NOW) == Caller(42, "staff", SESSION)
    assert verifier.verify(f"bearer {token}", NOW) == Caller(42, "staff", SESSION)


def test_token_has_the_claims_of_rfc_9068(issuer: TokenIssuer) -> None:
    token, _ = issuer.issue(42, "customer", SESSION)

    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})

    assert header == {"typ": "at+jwt", "alg": "EdDSA", "kid": issuer.jwks()["keys"][0]["kid"]}
    issued_at = int(NOW.timestamp())
    assert claims | {"jti": ""} == {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "42",
        "sid": str(SESSION),
        "jti": "",
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + 600,
        "client_id": "shop",
        "scope": "shop",
        "role": "customer",
    }


def test_every_token_has_a_unique_id(issuer: TokenIssuer) -> None:
    ids = {
        jwt.decode(issuer.issue(1, "customer", SESSION)[0], options={"verify_signature": False})[
            "jti"
        ]
        for _ in range(20)
    }

    assert len(ids) == 20


def test_pyjwt_accepts_the_tokens_that_we_accept(
    issuer: TokenIssuer, verifier: TokenVerifier
) -> None:
    token, _ = TokenIssuer(
        make_pem(issuer._key), ISSUER, AUDIENCE, lambda: datetime.now(UTC)
    ).issue(7, "finance", SESSION)
    jwk = issuer.jwks()["keys"][0]

    claims = jwt.decode(
        token,
        jwt.PyJWK(jwk).key,
        algorithms=["EdDSA"],
        issuer=ISSUER,
        audience=AUDIENCE,
        options={"require": ["iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"]},
    )

    assert claims["sub"] == "7"
    assert verifier.verify(f"Bearer {token}", datetime.now(UTC)).user_id == 7


@pytest.mark.parametrize(
    ("seconds", "accepted"),
    [(-61, False), (-60, True), (0, True), (600, True), (659, True), (660, False), (661, False)],
)
def test_token_is_valid_from_a_minute_before_issue_to_a_minute_after_expiry(
    issuer: TokenIssuer, verifier: TokenVerifier, seconds: int, accepted: bool
) -> None:
    header = f"Bearer {issuer.issue(1, 'customer', SESSION)[0]}"
    then = NOW + timedelta(seconds=seconds)

    for _ in ("first reading", "from memory"):
        if accepted:
            assert verifier.verify(header, then).user_id == 1
        else:
            assert rejected(verifier, header, then).status == 401


def test_cached_token_still_expires(issuer: TokenIssuer, verifier: TokenVerifier) -> None:
    header = f"Bearer {issuer.issue(1, 'customer', SESSION)[0]}"
    assert verifier.verify(header, NOW).user_id == 1

    assert rejected(verifier, header, NOW + timedelta(seconds=660)).status == 401


def test_second_verification_of_a_token_does_no_cryptography(
    issuer: TokenIssuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = f"Bearer {issuer.issue(1, 'customer', SESSION)[0]}"
    verifier.verify(header, NOW)
    monkeypatch.setattr(verifier, "_check_signature", None)

    assert verifier.verify(header, NOW).user_id == 1


def test_invalid_tokens_are_not_cached_and_the_cache_is_bounded(
    issuer: TokenIssuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "CACHED_TOKENS_MAX", 3)
    header = f"Bearer {issuer.issue(1, 'customer', SESSION)[0]}"
    rejected(verifier, header[:-6] + "AAAAAA")
    assert len(verifier._verified) == 0

    headers = [f"Bearer {issuer.issue(n, 'customer', SESSION)[0]}" for n in range(1, 8)]
    assert [verifier.verify(each, NOW).user_id for each in headers] == list(range(1, 8))
    assert len(verifier._verified) == 3
    assert verifier.verify(headers[0], NOW).user_id == 1


def test_many_threads_share_one_verifier(
    issuer: TokenIssuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "CACHED_TOKENS_MAX", 2)
    headers = [f"Bearer {issuer.issue(n, 'customer', SESSION)[0]}" for n in range(1, 7)]
    together = Barrier(6)
    seen: list[int] = []

    def read(mine: str) -> None:
        together.wait()
        seen.extend(verifier.verify(mine, NOW).user_id for _ in range(50))

    threads = [Thread(target=read, args=(header,)) for header in headers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(seen) == sorted(list(range(1, 7)) * 50)


def test_every_invalid_token_gets_the_same_error(
    issuer: TokenIssuer, verifier: TokenVerifier
) -> None:
    token = issuer.issue(1, "customer", SESSION)[0]
    error_statuses = [
        rejected(verifier, header) for header in (None, "Basic eA==", f"Bearer {token}x")
    ]

    assert {(r.status, r.code, r.message) for r in error_statuses} == {
        (401, "UNAUTHENTICATED", "a valid access token is needed")
    }
    assert all(
        r.headers == {"www-authenticate": 'Bearer error="invalid_token"'} for r in error_statuses
    )


def test_both_keys_are_accepted_during_a_rotation(issuer: TokenIssuer) -> None:
    next_issuer = TokenIssuer(make_pem(), ISSUER, AUDIENCE, lambda: NOW)
    both = {"keys": issuer.jwks()["keys"] + next_issuer.jwks()["keys"]}
    verifier = TokenVerifier(json.dumps(both), ISSUER, AUDIENCE)

    for each in (issuer, next_issuer):
        token, _ = each.issue(5, "customer", SESSION)
        assert verifier.verify(f"Bearer {token}", NOW).user_id == 5


def test_key_id_is_the_thumbprint_of_rfc_7638() -> None:
    # RFC 8037 appendix A.2 and A.3
    x = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")

    assert public_jwk(x)["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_jwks_contains_the_public_key_only(issuer: TokenIssuer) -> None:
    (key,) = issuer.jwks()["keys"]

    assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
    Ed25519PublicKey.from_public_bytes(read_jwks(json.dumps(issuer.jwks()))[key["kid"]])


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        '{"keys": []}',
        '{"keys": [{"kty": "oct", "k": "AA", "kid": "a"}]}',
        '{"keys": [{"kty": "OKP", "crv": "X25519", "kid": "a", "x": "AA"}]}',
        '{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "AA"}]}',
        '{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": 1, "x": "AA"}]}',
    ],
)
def test_invalid_key_set_raises_value_error(document: str) -> None:
    with pytest.raises(ValueError):
        TokenVerifier(document, ISSUER, AUDIENCE)


def test_key_set_with_a_private_key_or_a_repeated_kid_raises_value_error(
    issuer: TokenIssuer,
) -> None:
    (key,) = issuer.jwks()["keys"]

    for keys in ([{**key, "d": "AA"}], [key, key]):
        with pytest.raises(ValueError):
            read_jwks(json.dumps({"keys": keys}))


def test_issuer_rejects_other_key_types() -> None:
    with pytest.raises(ValueError, match="not an unencrypted Ed25519 key"):
        TokenIssuer(make_pem(generate_private_key(SECP256R1())), ISSUER, AUDIENCE, lambda: NOW)


def test_verifier_that_verified_no_token_imports_no_cryptography() -> None:
    code = (
        "import sys; from shop.adapters.tokens import TokenVerifier, public_jwk; import json;"
        "TokenVerifier(json.dumps({'keys': [public_jwk(bytes(32))]}), 'i', 'a');"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'cryptography', 'jwt'}))"
    )

    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert printed == "[]\n"
