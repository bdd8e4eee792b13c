"""Our token verifier and PyJWT reach the same verdict on every token (ADR 0020)."""

# The verifier's key is replaced by one that verifies each signature once.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from shop.adapters.tokens import (
    ALGORITHM,
    BEARER,
    CLIENT_ID,
    HEADER_NAMES,
    LEEWAY_SECONDS,
    LIFETIME_SECONDS,
    TOKEN_BYTES_MAX,
    TOKEN_TYPE,
    TokenVerifier,
)
from shop.primitives.errors import ClientError
from shop.primitives.ids import new_uuid, parse_uuid
from shop.primitives.spec import ROLES
from tests.security.test_token_corpus import ATTACKS, Make, TokenFactory, decode, encode

MUTATED_TOKENS = 100_000
SEED = 20_261_128
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n"
REQUIRED = ["iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp", "client_id", "scope", "role"]


class MemoizedKey:
    """An Ed25519 public key that verifies each signature once for both verifiers."""

    def __init__(self, key: ed25519.Ed25519PublicKey) -> None:
        self._verifies = lru_cache(maxsize=16)(key.verify)

    def verify(self, signature: bytes, data: bytes) -> None:
        self._verifies(signature, data)


ed25519.Ed25519PublicKey.register(MemoizedKey)


class Verifiers:
    """Both verifiers with one key, issuer and audience, at one time."""

    def __init__(self, factory: TokenFactory) -> None:
        self.now = datetime.fromtimestamp(factory.now, UTC)
        self._key = cast("ed25519.Ed25519PublicKey", MemoizedKey(factory.key.public_key()))
        self._kid = factory.jwk["kid"]
        self._factory = factory
        jwks = json.dumps({"keys": [factory.jwk]})
        self._ours = TokenVerifier(jwks, factory.issuer, factory.audience)
        self._ours._keys[self._kid] = self._key

    def ours(self, header: str | None) -> tuple[int, str, UUID] | None:
        self._ours._verified.clear()
        try:
            caller = self._ours.verify(header, self.now)
        except ClientError:
            return None
        return caller.user_id, caller.role, caller.session_id

    def pyjwt(self, header: str | None) -> tuple[int, str, UUID] | None:
        """PyJWT's verdict, with the rules that it leaves to its caller."""
        match = BEARER.fullmatch(header or "")
        if header is None or match is None or len(header) > TOKEN_BYTES_MAX:
            return None
        token = header[len("Bearer ") :]
        try:
            decoded = jwt.decode_complete(
                token,
                self._key,
                algorithms=[ALGORITHM],
                audience=self._factory.audience,
                issuer=self._factory.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": REQUIRED, "verify_exp": False, "verify_nbf": False,
                         "verify_iat": False},
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError, RecursionError):
            return None
        header_members, claims = decoded["header"], decoded["payload"]
        if not is_canonical(match.groups()) or not self._has_our_form(header_members, claims):
            return None
        return int(claims["sub"]), claims["role"], UUID(claims["sid"])

    def _has_our_form(self, header: dict[str, object], claims: dict[str, object]) -> bool:
        sub, sid = claims["sub"], claims["sid"]
        texts = (sub, sid, claims["jti"], claims["role"], claims["scope"])
        times = (claims["iat"], claims["nbf"], claims["exp"])
        if not all(isinstance(text, str) for text in texts):
            return False
        if not all(type(time) is int and 0 < time < 2**53 for time in times):
            return False
        issued_at, not_before, expires_at = cast("tuple[int, int, int]", times)
        now = self.now.timestamp()
        return (
            set(header) == HEADER_NAMES
            and (header["typ"], header["kid"]) == (TOKEN_TYPE, self._kid)
            and claims["aud"] == self._factory.audience
            and claims["client_id"] == CLIENT_ID
            and claims["role"] in ROLES
            and bool(claims["jti"])
            and parse_uuid(cast("str", sid)) is not None
            and cast("str", sub).isascii()
            and cast("str", sub).isdigit()
            and not cast("str", sub).startswith("0")
            and int(cast("str", sub)) < 2**63
            and issued_at < expires_at <= issued_at + LIFETIME_SECONDS + LEEWAY_SECONDS
            and max(issued_at, not_before) - LEEWAY_SECONDS <= now < expires_at + LEEWAY_SECONDS
        )


def is_canonical(segments: Sequence[str]) -> bool:
    """Each segment is spelled canonically; header and claims are UTF-8 without duplicate names."""
    if any(encode(decode(segment)) != segment for segment in segments):
        return False
    return all(is_strict_json(decode(segment)) for segment in segments[:2])


def is_strict_json(document: bytes) -> bool:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    def reject(constant: str) -> float:
        raise ValueError(constant)

    try:
        json.loads(document.decode(), object_pairs_hook=unique, parse_constant=reject)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def factory() -> TokenFactory:
    return TokenFactory(
        key=ed25519.Ed25519PrivateKey.generate(),
        issuer="https://shop.test",
        audience="shop-api",
        user_id=42,
        session_id=new_uuid(),
        now=1_800_000_000,
    )


@pytest.fixture(scope="module")
def verifiers(factory: TokenFactory) -> Verifiers:
    return Verifiers(factory)


@pytest.mark.parametrize("make", [make for _, make in ATTACKS], ids=[name for name, _ in ATTACKS])
def test_both_reject_every_attack_of_the_corpus(
    make: Make, factory: TokenFactory, verifiers: Verifiers
) -> None:
    header = make(factory)

    assert verifiers.ours(header) is None
    assert verifiers.pyjwt(header) is None


def test_both_accept_a_valid_token_with_the_same_caller(
    factory: TokenFactory, verifiers: Verifiers
) -> None:
    header = f"Bearer {factory.good()}"

    assert verifiers.ours(header) == (42, "customer", factory.session_id)
    assert verifiers.pyjwt(header) == (42, "customer", factory.session_id)


@pytest.mark.timeout(300)
def test_both_agree_on_100_000_mutated_tokens(factory: TokenFactory, verifiers: Verifiers) -> None:
    generator = random.Random(SEED)
    tokens = [factory.signed(claims=_changed_claim(factory, generator)) for _ in range(500)]
    accepted = 0

    for number in range(MUTATED_TOKENS):
        token = tokens[number % len(tokens)]
        header = f"Bearer {_mutate(token, generator) if generator.random() < 0.95 else token}"
        ours, pyjwt = verifiers.ours(header), verifiers.pyjwt(header)
        assert ours == pyjwt, header
        accepted += ours is not None

    assert 1_000 < accepted < MUTATED_TOKENS // 2


def _changed_claim(factory: TokenFactory, generator: random.Random) -> dict[str, object]:
    """One claim with another value, valid or not; or none."""
    values: list[object] = [
        None, True, 0, 1, -1, 1.5, "", "1", "42", "0", "shop", "staff", "customer", [], {},
        "\u0661",
        factory.now, factory.now + 59, factory.now + 61, factory.now - 59, factory.now + 660,
        factory.now + 661, float(factory.now), str(factory.session_id), factory.issuer,
        factory.audience, [factory.audience], 2**53, 2**63,
    ]  # fmt: skip
    if generator.random() < 0.5:
        return {}
    return {generator.choice([*REQUIRED, "acr"]): generator.choice(values)}


def _mutate(token: str, generator: random.Random) -> str:
    """The token with one to three characters replaced, removed, inserted or swapped."""
    characters = list(token)
    for _ in range(generator.randint(1, 3)):
        place = generator.randrange(len(characters))
        match generator.randrange(4):
            case 0:
                characters[place] = generator.choice(CHARACTERS)
            case 1:
                del characters[place]
            case 2:
                characters.insert(place, generator.choice(CHARACTERS))
            case _:
                other = generator.randrange(len(characters))
                characters[place], characters[other] = characters[other], characters[place]
    return "".join(characters)
