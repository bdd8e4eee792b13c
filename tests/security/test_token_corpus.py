"""Tokens that must be rejected, as data (RFC 8725, and the CVEs of JWT libraries).

``ATTACKS`` is a list of ``(name, make)``; ``make(factory)`` is the value of an ``Authorization``
header, or None for no header.  Each differs from a valid token in one respect, so each proves one
check.  The same list is sent over HTTP to every protected route, with a factory that signs with the
running shop's own key for an account with an open session.
"""

# The cache of verified tokens has no public size.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shop.adapters.tokens import TokenVerifier, public_jwk
from shop.primitives.errors import ClientError
from shop.primitives.ids import new_uuid

ORDER_OF_ED25519 = 2**252 + 27742317777372353535851937790883648493
STRANGER = ed25519.Ed25519PrivateKey.generate()


@dataclass
class TokenFactory:
    """Makes valid tokens, and invalid ones that are signed with the same key."""

    key: ed25519.Ed25519PrivateKey
    issuer: str
    audience: str
    user_id: int
    session_id: UUID
    now: int
    role: str = "customer"
    elsewhere: str = "http://127.0.0.1:9/jwks.json"
    header: dict[str, object] = field(init=False)
    claims: dict[str, object] = field(init=False)

    def __post_init__(self) -> None:
        self.header = {"alg": "EdDSA", "typ": "at+jwt", "kid": self.jwk["kid"]}
        self.claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": str(self.user_id),
            "sid": str(self.session_id),
            "jti": str(new_uuid()),
            "iat": self.now,
            "nbf": self.now,
            "exp": self.now + 600,
            "client_id": "shop",
            "scope": "shop",
            "role": self.role,
        }

    @property
    def jwk(self) -> dict[str, str]:
        return public_jwk(self.key.public_key().public_bytes_raw())

    def good(self) -> str:
        """A valid token."""
        return self.signed()

    def signed(
        self,
        *,
        header: Mapping[str, object] | None = None,
        without: str = "",
        raw_claims: str | None = None,
        key: ed25519.Ed25519PrivateKey | None = None,
        claims: Mapping[str, object] | None = None,
    ) -> str:
        """A token signed by us (or ``key``) with some header members and claims replaced."""
        members = {**self.claims, **(claims or {})}
        members.pop(without, None)
        payload = json.dumps(members) if raw_claims is None else raw_claims
        message = f"{encode(json.dumps({**self.header, **(header or {})}))}.{encode(payload)}"
        return f"{message}.{encode((key or self.key).sign(message.encode()))}"

    def raw_header(self, text: str) -> str:
        """A token whose header is this very text, signed by us."""
        message = f"{encode(text)}.{encode(json.dumps(self.claims))}"
        return f"{message}.{encode(self.key.sign(message.encode()))}"

    def hmac(self, secret: bytes) -> str:
        """A token whose HMAC secret is public (CVE-2022-29217, 2024-33663, 2026-48526)."""
        header = encode(json.dumps({**self.header, "alg": "HS256"}))
        message = f"{header}.{encode(json.dumps(self.claims))}"
        return f"{message}.{encode(hmac.digest(secret, message.encode(), hashlib.sha256))}"

    def unsigned(self, algorithm: str) -> str:
        header = encode(json.dumps({**self.header, "alg": algorithm}))
        return f"{header}.{encode(json.dumps(self.claims))}."

    def public(self, encoding: Encoding, form: PublicFormat) -> bytes:
        return self.key.public_key().public_bytes(encoding, form)

    def with_signature(self, change: Callable[[bytes], bytes]) -> str:
        message, _, signature = self.good().rpartition(".")
        return f"{message}.{encode(change(decode(signature)))}"


Make = Callable[[TokenFactory], str | None]


def encode(content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def bearer(make: Callable[[TokenFactory], str]) -> Make:
    return lambda factory: f"Bearer {make(factory)}"


def with_header(**members: object) -> Make:
    return bearer(lambda factory: factory.signed(header=members))


def with_claims(**claims: object) -> Make:
    return bearer(lambda factory: factory.signed(claims=claims))


def without(claim: str) -> Make:
    return bearer(lambda factory: factory.signed(without=claim))


def at(claim: str, seconds: int) -> Make:
    return bearer(lambda factory: factory.signed(claims={claim: factory.now + seconds}))


def moved(seconds: int) -> Make:
    """Issued ``seconds`` from now, with everything else in order."""

    def make(factory: TokenFactory) -> str:
        moment = factory.now + seconds
        return factory.signed(claims={"iat": moment, "nbf": moment, "exp": moment + 600})

    return bearer(make)


def raw_claim(name: str, text: str) -> Make:
    """A claim written with this very JSON text."""

    def make(factory: TokenFactory) -> str:
        marked = json.dumps({**factory.claims, name: "<here>"})
        return factory.signed(raw_claims=marked.replace('"<here>"', text))

    return bearer(make)


def noncanonical_s(signature: bytes) -> bytes:
    s = int.from_bytes(signature[32:], "little") + ORDER_OF_ED25519
    return signature[:32] + s.to_bytes(32, "little")


def respelled(token: str) -> str:
    """The same bytes in other letters: the last character has bits that decode to nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


def stranger_by_header(factory: TokenFactory, member: str) -> str:
    jwk = public_jwk(STRANGER.public_key().public_bytes_raw())
    value = {
        "jwk": jwk,
        "jku": factory.elsewhere,
        "x5u": factory.elsewhere,
        "x5c": [base64.b64encode(STRANGER.public_key().public_bytes_raw()).decode()],
    }[member]
    return factory.signed(header={member: value, "kid": jwk["kid"]}, key=STRANGER)


def other_algorithm(algorithm: str) -> Make:
    def make(factory: TokenFactory) -> str:
        key = rsa_key() if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
        return jwt.encode(
            factory.claims, key, algorithm, {"typ": "at+jwt", "kid": factory.jwk["kid"]}
        )

    return bearer(make)


def encrypted_form(factory: TokenFactory) -> str:
    header = encode(json.dumps({**factory.header, "alg": "dir", "enc": "A256GCM"}))
    return ".".join([header, "", encode(b"0" * 12), encode(factory.good()), encode(b"0" * 16)])


def json_form(factory: TokenFactory) -> str:
    protected, payload, signature = factory.good().split(".")
    return json.dumps({"protected": protected, "payload": payload, "signature": signature})


def detached(factory: TokenFactory) -> str:
    header, _, signature = factory.good().split(".")
    return f"{header}..{signature}"


def swapped_claims(factory: TokenFactory) -> str:
    header, _, signature = factory.good().split(".")
    claims = {**factory.claims, "sub": "1", "role": "staff"}
    return f"{header}.{encode(json.dumps(claims))}.{signature}"


def of_another_token(factory: TokenFactory) -> str:
    other = factory.signed(claims={"jti": str(new_uuid())}).rpartition(".")[2]
    return f"{factory.good().rpartition('.')[0]}.{other}"


def nested(factory: TokenFactory) -> str:
    return factory.raw_header(json.dumps({**factory.header, "cty": "JWT"}))


def inner_token(factory: TokenFactory) -> str:
    return factory.signed(raw_claims=json.dumps(factory.good()))


def doubled_claim(factory: TokenFactory) -> str:
    text = json.dumps(factory.claims)
    return factory.signed(raw_claims=text[:-1] + ', "role": "staff"}')


def doubled_header(factory: TokenFactory) -> str:
    return factory.raw_header(json.dumps(factory.header)[:-1] + ', "alg": "none"}')


def in_utf16(factory: TokenFactory) -> str:
    claims = json.dumps(factory.claims).encode("utf-16")
    message = f"{encode(json.dumps(factory.header))}.{encode(claims)}"
    return f"{message}.{encode(factory.key.sign(message.encode()))}"


ATTACKS: list[tuple[str, Make]] = [
    # form
    ("no header", lambda f: None),
    ("empty header", lambda f: ""),
    ("scheme only", lambda f: "Bearer"),
    ("scheme and a space", lambda f: "Bearer "),
    ("not a token", lambda f: "Bearer x"),
    ("three empty segments", lambda f: "Bearer .."),
    ("basic", lambda f: "Basic " + base64.b64encode(b"admin:admin").decode()),
    ("token without scheme", lambda f: f.good()),
    ("other scheme", lambda f: f"Token {f.good()}"),
    ("two spaces", lambda f: f"Bearer  {f.good()}"),
    ("two headers joined", lambda f: f"Bearer {f.good()}, Bearer {f.good()}"),
    ("tokens joined", lambda f: f"Bearer {f.good()},{f.good()}"),
    ("five KiB", bearer(lambda f: f.signed(claims={"padding": "x" * 5000}))),
    ("two segments", bearer(lambda f: f.good().rpartition(".")[0])),
    ("four segments", bearer(lambda f: f.good() + "." + f.good().rpartition(".")[2])),
    ("detached payload", bearer(detached)),
    ("json serialization", bearer(json_form)),
    ("jwe", bearer(encrypted_form)),
    ("nested by cty", bearer(nested)),
    ("a token as claims", bearer(inner_token)),
    ("padded signature", bearer(lambda f: f.good() + "==")),
    ("padded header", bearer(lambda f: f.good().replace(".", "=.", 1))),
    ("blank in a segment", bearer(lambda f: f.good().replace(".", ". ", 1))),
    ("tab after the token", bearer(lambda f: f.good() + "\t")),
    ("other letters, same bytes", bearer(lambda f: respelled(f.good()))),
    ("standard base64 letters", bearer(lambda f: f.good()[:-2] + "+/")),
    ("header not json", bearer(lambda f: f.raw_header("alg=EdDSA"))),
    ("header a list", bearer(lambda f: f.raw_header("[]"))),
    ("header deeply nested", bearer(lambda f: f.raw_header("[" * 1500))),
    ("header names alg twice", bearer(doubled_header)),
    ("claims name role twice", bearer(doubled_claim)),
    ("claims in utf-16", bearer(in_utf16)),
    ("claims a list", bearer(lambda f: f.signed(raw_claims="[]"))),
    ("claims null", bearer(lambda f: f.signed(raw_claims="null"))),
    # algorithm and signature
    ("alg none", bearer(lambda f: f.unsigned("none"))),
    ("alg None", bearer(lambda f: f.unsigned("None"))),
    ("alg nOnE", bearer(lambda f: f.unsigned("nOnE"))),
    ("alg none with a signature", with_header(alg="none")),
    ("alg eddsa in lower case", with_header(alg="eddsa")),
    ("alg Ed25519", with_header(alg="Ed25519")),
    ("alg null", with_header(alg=None)),
    ("alg a list", with_header(alg=["EdDSA"])),
    ("signature stripped", bearer(lambda f: f.good().rpartition(".")[0] + ".")),
    ("signature of another token", bearer(of_another_token)),
    ("claims changed under the signature", bearer(swapped_claims)),
    ("signature cut", bearer(lambda f: f.with_signature(lambda s: s[:-1]))),
    ("signature and a byte", bearer(lambda f: f.with_signature(lambda s: s + b"\0"))),
    ("signature of zeros", bearer(lambda f: f.with_signature(lambda s: bytes(64)))),
    ("identity point", bearer(lambda f: f.with_signature(lambda s: b"\1" + bytes(63)))),
    ("non-canonical S", bearer(lambda f: f.with_signature(noncanonical_s))),
    ("one bit flipped", bearer(lambda f: f.with_signature(lambda s: bytes([s[0] ^ 1]) + s[1:]))),
    ("hs256 with public pem", bearer(
        lambda f: f.hmac(f.public(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)))),
    ("hs256 with public der", bearer(
        lambda f: f.hmac(f.public(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)))),
    ("hs256 with public openssh", bearer(
        lambda f: f.hmac(f.public(Encoding.OpenSSH, PublicFormat.OpenSSH)))),
    ("hs256 with public raw", bearer(
        lambda f: f.hmac(f.public(Encoding.Raw, PublicFormat.Raw)))),
    ("hs256 with jwk text", bearer(lambda f: f.hmac(json.dumps(f.jwk).encode()))),
    ("hs256 with x of the jwk", bearer(lambda f: f.hmac(f.jwk["x"].encode()))),
    ("hs256 with no secret", bearer(lambda f: f.hmac(b""))),
    ("rs256 with a key of one's own", other_algorithm("RS256")),
    ("es256 with a key of one's own", other_algorithm("ES256")),
    # selection of the key
    ("a stranger's key under our kid", bearer(lambda f: f.signed(key=STRANGER))),
    ("jwk in the header", bearer(lambda f: stranger_by_header(f, "jwk"))),
    ("jku in the header", bearer(lambda f: stranger_by_header(f, "jku"))),
    ("x5u in the header", bearer(lambda f: stranger_by_header(f, "x5u"))),
    ("x5c in the header", bearer(lambda f: stranger_by_header(f, "x5c"))),
    ("our jwk in the header", bearer(lambda f: f.signed(header={"jwk": f.jwk}))),
    ("jku beside our key", bearer(lambda f: f.signed(header={"jku": f.elsewhere}))),
    ("kid unknown", with_header(kid="unknown")),
    ("kid a path", with_header(kid="../../dev/null")),
    ("kid sql", with_header(kid="' UNION SELECT 'x")),
    ("kid of ten KB", with_header(kid="k" * 10_000)),
    ("kid a number", with_header(kid=0)),
    ("kid a list", bearer(lambda f: f.signed(header={"kid": [f.jwk["kid"]]}))),
    ("kid null", with_header(kid=None)),
    ("no kid", bearer(lambda f: f.raw_header('{"alg":"EdDSA","typ":"at+jwt"}'))),
    # header members that are not supported
    ("crit", with_header(crit=["x"], x=1)),
    ("crit empty", with_header(crit=[])),
    ("b64 false", with_header(b64=False, crit=["b64"])),
    ("zip", with_header(zip="DEF")),
    ("typ JWT", with_header(typ="JWT")),
    ("typ in capitals", with_header(typ="AT+JWT")),
    ("typ null", with_header(typ=None)),
    ("no typ", bearer(lambda f: f.raw_header(json.dumps({"alg": "EdDSA", "kid": f.jwk["kid"]})))),
    ("typ of an event", with_header(typ="ce+jwt")),
    # time
    ("expired a second past the leeway", moved(-661)),
    ("expired long ago", moved(-86_400)),
    ("not yet", at("nbf", 300)),
    ("issued in five minutes", moved(300)),
    ("issued in five minutes, valid now", at("iat", 300)),
    ("nbf true", with_claims(nbf=True)),
    ("a claim we do not know is NaN", raw_claim("acr", "NaN")),
    ("lives ten years", at("exp", 315_360_000)),
    ("lives an hour", at("exp", 3_600)),
    ("expires before it was issued", at("exp", -10)),
    ("no exp", without("exp")),
    ("no iat", without("iat")),
    ("no nbf", without("nbf")),
    ("exp text", bearer(lambda f: f.signed(claims={"exp": str(f.now + 600)}))),
    ("exp a fraction", bearer(lambda f: f.signed(claims={"exp": f.now + 600.5}))),
    ("exp true", with_claims(exp=True)),
    ("exp null", with_claims(exp=None)),
    ("exp 1e400", raw_claim("exp", "1e400")),
    ("exp Infinity", raw_claim("exp", "Infinity")),
    ("exp NaN", raw_claim("exp", "NaN")),
    ("exp of 500 digits", raw_claim("exp", "9" * 500)),
    ("iat negative", with_claims(iat=-1)),
    # issuer, audience and client
    ("no iss", without("iss")),
    ("other iss", with_claims(iss="https://evil.test")),
    ("iss a part of ours", bearer(lambda f: f.signed(claims={"iss": f.issuer[:-1]}))),
    ("iss one letter", bearer(lambda f: f.signed(claims={"iss": f.issuer[0]}))),
    ("iss empty", with_claims(iss="")),
    ("iss a list", bearer(lambda f: f.signed(claims={"iss": [f.issuer]}))),
    ("no aud", without("aud")),
    ("aud of events", with_claims(aud="shop-events")),
    ("aud of services", with_claims(aud="shop-services")),
    ("aud a list with a wrong one", bearer(
        lambda f: f.signed(claims={"aud": [f.audience, "other"]}))),
    ("aud a part of ours", bearer(lambda f: f.signed(claims={"aud": f.audience[:-1]}))),
    ("aud empty", with_claims(aud="")),
    ("aud null", with_claims(aud=None)),
    ("client of someone else", with_claims(client_id="other")),
    ("no client_id", without("client_id")),
    # subject, session and role
    ("no sub", without("sub")),
    ("sub a number", bearer(lambda f: f.signed(claims={"sub": f.user_id}))),
    ("sub zero", with_claims(sub="0")),
    ("sub negative", with_claims(sub="-1")),
    ("sub with a sign", bearer(lambda f: f.signed(claims={"sub": f"+{f.user_id}"}))),
    ("sub with a zero before", bearer(lambda f: f.signed(claims={"sub": f"0{f.user_id}"}))),
    ("sub with a line break", bearer(lambda f: f.signed(claims={"sub": f"{f.user_id}\n"}))),
    ("sub in other digits", with_claims(sub="\u0661")),
    ("sub too large", with_claims(sub="9223372036854775808")),
    ("sub sql", with_claims(sub="1 or 1=1")),
    ("no sid", without("sid")),
    ("sid not a uuid", with_claims(sid="1")),
    ("sid null", with_claims(sid=None)),
    ("sid in braces", bearer(lambda f: f.signed(claims={"sid": f"{{{f.session_id}}}"}))),
    ("no jti", without("jti")),
    ("jti empty", with_claims(jti="")),
    ("jti a number", with_claims(jti=7)),
    ("no role", without("role")),
    ("role unknown", with_claims(role="root")),
    ("role a list", with_claims(role=["customer", "staff"])),
    ("no scope", without("scope")),
    # secrets that are not access tokens
    ("a refresh token", lambda f: "Bearer " + encode(bytes(range(32)))),
]  # fmt: skip

# Valid signature and claims, but no such open session of the account in the database.
SESSION_ATTACKS: list[tuple[str, Make]] = [
    ("unknown session", bearer(lambda f: f.signed(claims={"sid": str(new_uuid())}))),
    (
        "session of another account",
        bearer(lambda f: f.signed(claims={"sub": str(f.user_id + 1)})),
    ),
]


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


@pytest.fixture
def verifier(factory: TokenFactory) -> TokenVerifier:
    return TokenVerifier(json.dumps({"keys": [factory.jwk]}), factory.issuer, factory.audience)


def moment(factory: TokenFactory) -> datetime:
    return datetime.fromtimestamp(factory.now, UTC)


def test_valid_token_is_verified_as_its_caller(
    factory: TokenFactory, verifier: TokenVerifier
) -> None:
    caller = verifier.verify(f"Bearer {factory.good()}", moment(factory))

    assert (caller.user_id, caller.role, caller.session_id) == (42, "customer", factory.session_id)


def test_token_with_an_unknown_claim_is_accepted(
    factory: TokenFactory, verifier: TokenVerifier
) -> None:
    token = factory.signed(claims={"acr": "urn:any"})

    assert verifier.verify(f"Bearer {token}", moment(factory)).user_id == 42


@pytest.mark.parametrize("make", [make for _, make in ATTACKS], ids=[name for name, _ in ATTACKS])
def test_invalid_token_gets_the_same_401_twice(
    factory: TokenFactory, verifier: TokenVerifier, make: Make
) -> None:
    header = make(factory)

    with pytest.raises(ClientError) as caught:
        verifier.verify(header, moment(factory))

    assert (caught.value.status, caught.value.code) == (401, "UNAUTHENTICATED")
    assert caught.value.headers == {"www-authenticate": 'Bearer error="invalid_token"'}
    assert len(verifier._verified) <= 1, "an expired token may be cached, no other"
    with pytest.raises(ClientError):
        verifier.verify(header, moment(factory))


def test_key_url_in_the_header_is_not_fetched(
    factory: TokenFactory, verifier: TokenVerifier
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        factory.elsewhere = f"http://127.0.0.1:{server.getsockname()[1]}/jwks.json"
        for member in ("jku", "x5u"):
            with pytest.raises(ClientError):
                verifier.verify(f"Bearer {stranger_by_header(factory, member)}", moment(factory))

        with pytest.raises(BlockingIOError):
            server.accept()


def test_corpus_has_at_least_40_attacks_with_unique_names() -> None:
    names = [name for name, _ in ATTACKS]

    assert len(names) >= 40
    assert len(set(names)) == len(names)


def test_tokens_of_other_sessions_pass_the_verifier(
    factory: TokenFactory, verifier: TokenVerifier
) -> None:
    for _, make in SESSION_ATTACKS:
        caller = verifier.verify(make(factory), moment(factory))
        assert (caller.user_id, caller.session_id) != (42, factory.session_id)
