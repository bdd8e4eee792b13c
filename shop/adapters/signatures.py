"""Signatures of events: Ed25519 (RFC 8032) over an event's values and its source.

Each trust domain has a separate key, and each key is valid for certain sources only, so a stolen
payment key cannot sign orders.  The signature is sent as two extensions, ``sigkid`` and ``sig``,
and covers values rather than bytes: a broker may change the content mode or the spelling of the
time, but no value.

``cryptography`` is imported with the first signature that is made or verified, not at start.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, cast

from events.records import frozen
from shop.adapters.ed25519 import load_private_key
from shop.primitives.errors import ClientError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from events.envelope import CloudEvent

AGE_MAX = timedelta(hours=24)
KEY_ID_CHARACTERS_MAX = 128
# its ticks are commands: only a key that names this source may sign them
CLOCK = "/shop/clock"

_DOMAIN = b"msashop/event-signature/v1\n"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@frozen
class EventKey:
    """A public key (32 raw bytes) and the sources it may sign for, exact or as ``/shop/*``."""

    public: bytes
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.public) != 32:
            raise ValueError("an Ed25519 public key has 32 bytes")
        if not self.sources or any("*" in s.removesuffix("/*") or not s for s in self.sources):
            raise ValueError("sources must be a list of names; only a final /* is a wildcard")

    def may_sign_for(self, source: str) -> bool:
        """Whether this key may sign events of this source; no wildcard includes the clock's."""
        return source in self.sources or any(
            allowed.endswith("/*") and source.startswith(allowed[:-1]) and source != CLOCK
            for allowed in self.sources
        )


class Signer:
    """Signs events with one private key.

    ``private_key_pem`` is an unencrypted PKCS #8 PEM of an Ed25519 key; any other text raises
    ValueError that does not show it.
    """

    def __init__(self, kid: str, private_key_pem: str) -> None:
        if not 0 < len(kid) <= KEY_ID_CHARACTERS_MAX:
            raise ValueError(f"a key id has 1 to {KEY_ID_CHARACTERS_MAX} characters")
        self.kid = kid
        self._private = load_private_key(private_key_pem)

    def sign(self, event: CloudEvent) -> CloudEvent:
        """The same event with ``sigkid`` and ``sig``; an event without a time raises ValueError."""
        if event.time is None:
            raise ValueError("an event must have a time to be signed")
        signature = self._private.sign(signed_bytes(event))
        extensions = {"sigkid": self.kid, "sig": _to_base64url(signature)}
        return replace(event, extensions={**event.extensions, **extensions})


class Verifier:
    """Verifies signatures with the public keys of all trust domains."""

    def __init__(self, keys: Mapping[str, EventKey]) -> None:
        self._keys = dict(keys)
        self._public: dict[str, Ed25519PublicKey] = {}

    def verify(self, event: CloudEvent, now: datetime, *, known_to_outbox: bool = False) -> None:
        """Returns if the event is authentic and fresh; otherwise raises ``ClientError``.

        401 ``UNSIGNED_EVENT``, ``UNKNOWN_EVENT_KEY``, ``INVALID_EVENT_SIGNATURE``; 403
        ``SOURCE_NOT_ALLOWED``; 401 ``STALE_EVENT`` when ``time`` is over 24 hours from ``now``,
        unless ``known_to_outbox`` (a late retry, a replayed dead letter).  ``STALE_EVENT`` is
        checked last: its sender is authenticated, so the caller may look into the outbox and verify
        again.
        """
        kid, signature = _signature_of(event)
        key = self._keys.get(kid)
        if key is None:
            raise ClientError(401, "UNKNOWN_EVENT_KEY", "The event is signed with an unknown key")
        self._check_signature(kid, key, signature, event)
        if not key.may_sign_for(event.source):
            raise ClientError(403, "SOURCE_NOT_ALLOWED", "The key may not sign for this source")
        if not known_to_outbox and abs(now - (event.time or _EPOCH)) > AGE_MAX:
            raise ClientError(401, "STALE_EVENT", "The event's time is more than 24 hours off")

    def _check_signature(
        self, kid: str, key: EventKey, signature: bytes, event: CloudEvent
    ) -> None:
        from cryptography.exceptions import InvalidSignature

        try:
            self._public_key(kid, key).verify(signature, signed_bytes(event))
        except InvalidSignature as error:
            raise _invalid_signature() from error

    def _public_key(self, kid: str, key: EventKey) -> Ed25519PublicKey:
        if kid not in self._public:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

            self._public[kid] = Ed25519PublicKey.from_public_bytes(key.public)
        return self._public[kid]


def verifier_from_json(text: str) -> Verifier:
    """The verifier that the EVENT_KEYS setting describes.

    The form is ``{kid: {"x": <base64url of the raw public key>, "sources": ["/shop/charge"]}}``;
    anything else raises ValueError naming the key id and the mistake.
    """
    return Verifier({kid: _event_key(kid, member) for kid, member in _members(text).items()})


def key_id_of(private_key_pem: str, event_keys: str, sources: tuple[str, ...] = ()) -> str:
    """The key id under which EVENT_KEYS lists the public half of a private key.

    Raises ValueError when it lists none, or none that may sign for all ``sources``: no receiver
    would accept its signatures.
    """
    public = load_private_key(private_key_pem).public_key().public_bytes_raw()
    for kid, member in _members(event_keys).items():
        key = _event_key(kid, member)
        if key.public == public:
            if refused := [source for source in sources if not key.may_sign_for(source)]:
                raise ValueError(f"EVENT_KEYS does not allow {kid!r} to sign for {refused[0]}")
            return kid
    raise ValueError("EVENT_KEYS does not list the public half of EVENT_SIGNING_KEY")


def signed_bytes(event: CloudEvent) -> bytes:
    """What a signature covers: id, source, type, subject, time, dataschema and the data's SHA-256.

    Each field is one byte (0 absent, 1 present), and if present four bytes of length, big-endian,
    and the UTF-8 text; the time is microseconds since 1970.  No two events have the same bytes.
    """
    time = None if event.time is None else str((event.time - _EPOCH) // timedelta(microseconds=1))
    texts = (event.id, event.source, event.type, event.subject, time, event.dataschema)
    fields = [None if text is None else text.encode("utf-8") for text in texts]
    fields.append(sha256(event.data).digest())
    return _DOMAIN + b"".join(_length_prefixed(field) for field in fields)


def _length_prefixed(field: bytes | None) -> bytes:
    return b"\x00" if field is None else b"\x01" + len(field).to_bytes(4, "big") + field


def _signature_of(event: CloudEvent) -> tuple[str, bytes]:
    kid, encoded = event.extensions.get("sigkid"), event.extensions.get("sig")
    if not kid or not encoded or event.time is None:
        raise ClientError(401, "UNSIGNED_EVENT", "The event must carry a time, sigkid and sig")
    try:
        return kid, _from_base64url(encoded)
    except ValueError as error:
        raise _invalid_signature() from error


def _invalid_signature() -> ClientError:
    return ClientError(401, "INVALID_EVENT_SIGNATURE", "The event's signature does not hold")


def _members(event_keys: str) -> dict[str, object]:
    try:
        members = json.loads(event_keys)
    except ValueError as error:
        raise ValueError("EVENT_KEYS is not JSON") from error
    if not isinstance(members, dict) or not members:
        raise ValueError("EVENT_KEYS must be an object with at least one key")
    return cast("dict[str, object]", members)  # JSON object names are text


def _event_key(kid: str, member: object) -> EventKey:
    fields = cast("dict[str, object]", member) if isinstance(member, dict) else {}
    if set(fields) != {"x", "sources"}:
        raise ValueError(f"EVENT_KEYS: {kid!r} must have x and sources, and nothing else")
    x, listed = fields["x"], fields["sources"]
    sources = cast("list[object]", listed) if isinstance(listed, list) else [None]
    names = tuple(source for source in sources if isinstance(source, str))
    if len(names) != len(sources):
        raise ValueError(f"EVENT_KEYS: the sources of {kid!r} must be a list of strings")
    try:
        return EventKey(_from_base64url(x if isinstance(x, str) else ""), names)
    except ValueError as error:
        raise ValueError(f"EVENT_KEYS: {kid!r}: {error}") from error


def _to_base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _from_base64url(text: str) -> bytes:
    """The bytes of unpadded base64url (RFC 4648 section 5); ValueError unless canonical."""
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (Base64Error, UnicodeEncodeError) as error:
        raise ValueError("not base64url") from error
    if _to_base64url(raw) != text:
        raise ValueError("not canonical base64url")
    return raw
