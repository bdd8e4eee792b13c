"""Event signatures: the sources that a key may sign for, and rejected forgeries."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from events.envelope import CloudEvent, parse, to_binary, to_structured, wrap, write_time
from events.orders import OrderPlaced
from shop.adapters.signatures import EventKey, Signer, Verifier, signed_bytes, verifier_from_json
from shop.primitives.errors import ClientError

NOW = datetime(2026, 1, 31, 12, 0, 0, 120_000, tzinfo=UTC)
ORDER = UUID("01920000-0000-7000-8000-00000000000a")
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493

ORDERING = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
PAYMENT = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
EVENT = wrap(
    OrderPlaced(order_id=ORDER),
    id="7",
    source="/shop/place_order",
    time=NOW,
    traceparent="00-a-b-01",
)


def pem(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


VERIFIER = Verifier(
    {
        "ordering": EventKey(public(ORDERING), ("/shop/place_order", "/shop/cancel_order")),
        "payment": EventKey(public(PAYMENT), ("/shop/charge",)),
        "tests": EventKey(public(PAYMENT), ("/shop/*",)),
    }
)
SIGNED = Signer("ordering", pem(ORDERING)).sign(EVENT)
SIGNATURE = SIGNED.extensions["sig"]


def with_extensions(**changes: str | None) -> CloudEvent:
    merged = {**SIGNED.extensions, **changes}
    return replace(SIGNED, extensions={n: v for n, v in merged.items() if v is not None})


def error_of(event: CloudEvent, *, known_to_outbox: bool = False) -> tuple[int, str]:
    with pytest.raises(ClientError) as raised:
        VERIFIER.verify(event, NOW, known_to_outbox=known_to_outbox)
    return raised.value.status, raised.value.code


def forged_s(signature: str) -> str:
    """The other S of RFC 8032 5.1.7, which a lax verifier takes for the same signature."""
    raw = Signer("ordering", pem(ORDERING)).sign(EVENT).extensions["sig"]
    assert raw == signature
    data = ORDERING.sign(signed_bytes(EVENT))
    s = int.from_bytes(data[32:], "little") + GROUP_ORDER
    return base64url(data[:32] + s.to_bytes(32, "little"))


INVALID = (401, "INVALID_EVENT_SIGNATURE")
FORGERIES = [
    ("unsigned", with_extensions(sig=None, sigkid=None), (401, "UNSIGNED_EVENT")),
    ("no sig", with_extensions(sig=None), (401, "UNSIGNED_EVENT")),
    ("no sigkid", with_extensions(sigkid=None), (401, "UNSIGNED_EVENT")),
    ("empty sig", with_extensions(sig=""), (401, "UNSIGNED_EVENT")),
    ("no time", replace(SIGNED, time=None), (401, "UNSIGNED_EVENT")),
    ("unknown sigkid", with_extensions(sigkid="stranger"), (401, "UNKNOWN_EVENT_KEY")),
    ("wrong key", with_extensions(sigkid="tests"), INVALID),
    ("other id", replace(SIGNED, id="8"), INVALID),
    ("other type", replace(SIGNED, type="com.msashop.order.paid.v1"), INVALID),
    ("other data", replace(SIGNED, data=b'{"orderId":"x"}'), INVALID),
    ("no data", replace(SIGNED, data=b""), INVALID),
    ("other source", replace(SIGNED, source="/shop/cancel_order"), INVALID),
    ("other subject", replace(SIGNED, subject="x"), INVALID),
    ("no subject", replace(SIGNED, subject=None), INVALID),
    ("other time", replace(SIGNED, time=NOW + timedelta(microseconds=1)), INVALID),
    ("other dataschema", replace(SIGNED, dataschema="https://msashop.example/x"), INVALID),
    ("no dataschema", replace(SIGNED, dataschema=None), INVALID),
    ("padded base64", with_extensions(sig=SIGNATURE + "=="), INVALID),
    ("base64 with a space", with_extensions(sig=SIGNATURE[:10] + " " + SIGNATURE[10:]), INVALID),
    ("base64 with a spare bit", with_extensions(sig=SIGNATURE[:-1] + "B"), INVALID),
    ("standard base64", with_extensions(sig="+/" + SIGNATURE[2:]), INVALID),
    ("base64 of another length", with_extensions(sig=SIGNATURE[:-3]), INVALID),
    ("not ASCII", with_extensions(sig="é" + SIGNATURE[1:]), INVALID),
    ("63 bytes", with_extensions(sig=base64url(b"x" * 63)), INVALID),
    ("all zero", with_extensions(sig=base64url(bytes(64))), INVALID),
    ("S not reduced", with_extensions(sig=forged_s(SIGNATURE)), INVALID),
    (
        "payment's key for an order's source",
        Signer("payment", pem(PAYMENT)).sign(EVENT),
        (403, "SOURCE_NOT_ALLOWED"),
    ),
    (
        "a source that only begins like an allowed one",
        Signer("payment", pem(PAYMENT)).sign(replace(EVENT, source="/shop/charge/x")),
        (403, "SOURCE_NOT_ALLOWED"),
    ),
    (
        "a source outside the wildcard",
        Signer("tests", pem(PAYMENT)).sign(replace(EVENT, source="/shopping/charge")),
        (403, "SOURCE_NOT_ALLOWED"),
    ),
]


def test_a_signed_event_is_accepted() -> None:
    VERIFIER.verify(SIGNED, NOW)
    assert SIGNED.extensions["sigkid"] == "ordering"
    assert len(SIGNATURE) == 86
    assert replace(SIGNED, extensions=EVENT.extensions) == EVENT


@pytest.mark.parametrize(
    ("forged", "error"), [f[1:] for f in FORGERIES], ids=[f[0] for f in FORGERIES]
)
def test_a_forged_event_is_rejected(forged: CloudEvent, error: tuple[int, str]) -> None:
    assert error_of(forged) == error
    assert error_of(forged, known_to_outbox=True) == error


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_day_of_clock_difference_is_accepted_and_a_microsecond_more_is_stale(hours: int) -> None:
    edge = NOW + timedelta(hours=hours)
    beyond = edge + timedelta(microseconds=1 if hours > 0 else -1)
    signer = Signer("ordering", pem(ORDERING))
    VERIFIER.verify(signer.sign(replace(EVENT, time=edge)), NOW)
    stale = signer.sign(replace(EVENT, time=beyond))
    assert error_of(stale) == (401, "STALE_EVENT")
    VERIFIER.verify(stale, NOW, known_to_outbox=True)


def test_a_wildcard_source_does_not_allow_the_clock() -> None:
    wildcard = EventKey(public(PAYMENT), ("/shop/*",))

    assert wildcard.may_sign_for("/shop/charge")
    assert not wildcard.may_sign_for("/shop/clock")
    assert EventKey(public(PAYMENT), ("/shop/*", "/shop/clock")).may_sign_for("/shop/clock")


def test_a_wildcard_source_allows_every_function() -> None:
    VERIFIER.verify(Signer("tests", pem(PAYMENT)).sign(EVENT), NOW)


def test_a_broker_may_change_mode_time_spelling_and_extensions() -> None:
    headers, body = to_structured(SIGNED)
    through_go = body.replace(write_time(NOW).encode(), b"2026-01-31T21:00:00.12+09:00")
    assert through_go != body
    unpacked = parse(headers, through_go.replace(b'{"data"', b'{"knativearrivaltime":"x", "data"'))
    VERIFIER.verify(unpacked, NOW)
    VERIFIER.verify(parse(*to_binary(unpacked)), NOW)


# st.datetimes requires bounds without a zone when it gets time zones.
EARLIEST = datetime(1900, 1, 1)  # noqa: DTZ001
FIELDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=4)
ENVELOPES = st.builds(
    CloudEvent,
    id=FIELDS,
    source=st.sampled_from(["/a", "/b", "/ab"]),
    type=FIELDS,
    subject=st.none() | FIELDS,
    time=st.none() | st.datetimes(EARLIEST, timezones=st.just(UTC)),
    dataschema=st.none() | st.sampled_from(["a:b", "a:c"]),
    data=st.binary(max_size=3),
)


@given(ENVELOPES, ENVELOPES)
def test_different_events_have_different_signed_bytes(one: CloudEvent, other: CloudEvent) -> None:
    assert (signed_bytes(one) == signed_bytes(other)) == (one == other)


def test_moving_text_between_fields_changes_the_signed_bytes() -> None:
    one = CloudEvent(id="1", source="/a", type="bc", data=b"")
    other = CloudEvent(id="1", source="/ab", type="c", data=b"")
    assert signed_bytes(one) != signed_bytes(other)
    assert signed_bytes(one).startswith(b"msashop/event-signature/v1\n")


# --- keys -------------------------------------------------------------------------------------


def test_a_key_is_read_in_every_spelling_of_its_pem() -> None:
    for spelling in (pem(ORDERING), pem(ORDERING).replace("\n", "\r\n"), pem(ORDERING).strip()):
        assert Signer("ordering", spelling).sign(EVENT) == SIGNED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not a key",
        "-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----",
        pem(ORDERING)[:60],
        pem(ORDERING).replace("PRIVATE", "EC PRIVATE"),
        pem(ORDERING).replace("\n", "é\n", 2),
        generate_private_key(SECP256R1())
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode(),
        ORDERING.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
        ).decode(),
    ],
    ids=[
        "empty",
        "words",
        "not base64",
        "cut",
        "another label",
        "not ASCII",
        "another curve",
        "encrypted",
    ],
)
def test_a_key_that_is_not_ed25519_raises_an_error_that_does_not_show_it(text: str) -> None:
    with pytest.raises(ValueError, match="not an unencrypted Ed25519 key") as raised:
        Signer("k", text)
    assert not text or text not in str(raised.value)


@pytest.mark.parametrize("kid", ["", "k" * 129])
def test_a_key_id_that_is_too_long_is_rejected(kid: str) -> None:
    with pytest.raises(ValueError, match="key id"):
        Signer(kid, pem(ORDERING))


def test_an_event_without_a_time_is_not_signed() -> None:
    with pytest.raises(ValueError, match="time"):
        Signer("k", pem(ORDERING)).sign(replace(EVENT, time=None))


def test_event_keys_are_read_from_the_setting() -> None:
    text = json.dumps({"ordering": {"x": base64url(public(ORDERING)), "sources": ["/shop/*"]}})
    verifier_from_json(text).verify(SIGNED, NOW)


X = base64url(public(ORDERING))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        json.dumps({"k": "x"}),
        json.dumps({"k": {"x": X}}),
        json.dumps({"k": {"x": X, "sources": []}}),
        json.dumps({"k": {"x": X, "sources": "/shop/*"}}),
        json.dumps({"k": {"x": X, "sources": [""]}}),
        json.dumps({"k": {"x": X, "sources": ["*"]}}),
        json.dumps({"k": {"x": X, "sources": ["/sh*p/charge"]}}),
        json.dumps({"k": {"x": X, "sources": [7]}}),
        json.dumps({"k": {"x": X + "=", "sources": ["/shop/*"]}}),
        json.dumps({"k": {"x": X[:-4], "sources": ["/shop/*"]}}),
        json.dumps({"k": {"x": None, "sources": ["/shop/*"]}}),
        json.dumps({"k": {"x": X, "sources": ["/shop/*"], "d": "secret"}}),
    ],
)
def test_an_invalid_setting_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="EVENT_KEYS"):
        verifier_from_json(text)


def test_import_loads_no_cryptography_and_verification_loads_no_key_readers() -> None:
    program = (
        "import sys, shop.adapters.signatures as s;"
        "from events.envelope import CloudEvent;"
        "from datetime import datetime, UTC;"
        f"v = s.Verifier({{'k': s.EventKey({public(ORDERING)!r}, ('/shop/*',))}});"
        "assert not any(m.startswith('cryptography') for m in sys.modules), 'too early';"
        "now = datetime.now(UTC);"
        "error = None\n"
        "try: v.verify(CloudEvent(id='1', source='/shop/x', type='t', time=now,"
        f" extensions={{'sigkid': 'k', 'sig': {SIGNED.extensions['sig']!r}}}), now)\n"
        "except Exception as failure: error = failure.code\n"
        "assert error == 'INVALID_EVENT_SIGNATURE', error\n"
        "assert 'cryptography.hazmat.primitives.asymmetric.ed25519' in sys.modules\n"
        "print('cryptography.hazmat.primitives.serialization' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
