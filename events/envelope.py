"""CloudEvents 1.0 over HTTP, strict: everything that is not exactly an event is rejected.

The official SDK is not used here because it accepts invalid events: 1.x fills in a missing time,
does not decode percent-encoded headers and accepts duplicate names; 2.x generates a missing id,
so that a duplicate is taken for a new event.  The tests compare this module with the SDK.

Sources: CloudEvents 1.0.2 core, HTTP protocol binding and JSON event format; RFC 3339, RFC 3986.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from events import strict_json
from events.errors import Malformed
from events.records import frozen

if TYPE_CHECKING:
    from events.event import ShopEvent

BODY_BYTES_MAX = 64 * 1024
ATTRIBUTE_CHARACTERS_MAX = 1024
EXTENSION_CHARACTERS_MAX = 4096
EXTENSIONS_MAX = 64
NAME_CHARACTERS_MAX = 20
STRUCTURED = "application/cloudevents+json"
JSON = "application/json"

_REQUIRED = ("id", "source", "type")
_OPTIONAL = ("subject", "datacontenttype", "dataschema")
_CONTEXT = frozenset((*_REQUIRED, *_OPTIONAL, "time", "specversion"))

_SEGMENT = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})"
_AUTHORITY = (
    r"//(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*@)?"
    r"(?:\[[0-9A-Fa-fvV:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)
_URI_REFERENCE = (
    rf"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*:)?(?:{_AUTHORITY}(?=[/?#]|\Z))?"
    rf"(?P<path>(?:{_SEGMENT}|/)*)(?:\?(?:{_SEGMENT}|[/?])*)?(?:\#(?:{_SEGMENT}|[/?])*)?"
)
_RFC_3339 = (
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"([Zz]|[+-][0-9]{2}:[0-5][0-9])"
)
_FORBIDDEN = r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"


@frozen(kw_only=True)
class CloudEvent:
    """One event in transport; its attributes are checked against CloudEvents 1.0.

    ``data`` is the event's bytes (JSON, for every event of the shop); ``time`` has a zone;
    ``extensions`` are attributes that the core does not define, as text.  Raises Malformed 400.
    """

    id: str
    source: str
    type: str
    subject: str | None = None
    time: datetime | None = None
    datacontenttype: str | None = JSON
    dataschema: str | None = None
    extensions: Mapping[str, str] = field(default_factory=dict[str, str])
    data: bytes = b""

    def __post_init__(self) -> None:
        for name in (*_REQUIRED, *_OPTIONAL):
            _check_attribute(name, getattr(self, name))
        if not is_uri_reference(self.source):
            raise Malformed(400, "source is not a URI-reference")
        if self.dataschema is not None and not is_absolute_uri(self.dataschema):
            raise Malformed(400, "dataschema is not an absolute URI")
        if self.time is not None and self.time.tzinfo is None:
            raise Malformed(400, "time has no zone")
        _check_extensions(self.extensions)


def parse(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """The event in an HTTP message, binary or structured; ``headers`` have lower-case names.

    Raises Malformed: 413 for a body over 64 KiB; 415 for a batch, another event format or data that
    is not JSON in UTF-8; 400 for any other violation of CloudEvents 1.0.
    """
    if len(body) > BODY_BYTES_MAX:
        raise Malformed(413, f"an event is at most {BODY_BYTES_MAX} bytes")
    content_type = headers.get("content-type", "").strip()
    is_binary = any(name.startswith("ce-") for name in headers)
    if _media_type(content_type).startswith("application/cloudevents"):
        if _media_type(content_type) != STRUCTURED or not _is_utf_8(content_type):
            raise Malformed(415, f"only single events are taken, binary or as {STRUCTURED}")
        if is_binary:
            raise Malformed(400, "the message is in binary and in structured mode at once")
        return _from_structured(body)
    if not is_binary and not _is_json(content_type):
        raise Malformed(415, "the message is not a CloudEvent")
    return _from_binary(headers, content_type, body)


def to_binary(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers (lower-case names) and body of the event in binary mode."""
    headers = {f"ce-{name}": _percent_encode(text) for name, text in _attributes(event).items()}
    datacontenttype = headers.pop("ce-datacontenttype", None)
    if datacontenttype is not None and event.datacontenttype is not None:
        headers["content-type"] = event.datacontenttype
    return headers, event.data


def to_structured(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and body of the event in structured mode.

    Canonical JSON is sent as ``data``, other bytes as ``data_base64``, so that the receiver gets
    the same bytes in both cases, as a signature requires.
    """
    members: dict[str, object] = dict(_attributes(event))
    if event.data:
        members |= _data_member(event.data, event.datacontenttype)
    return {"content-type": STRUCTURED}, strict_json.write(members)


def wrap(
    event: ShopEvent,
    *,
    id: str,
    source: str,
    time: datetime,
    traceparent: str | None = None,
) -> CloudEvent:
    """The envelope of a shop event, without a signature.

    ``id`` is its outbox row's, ``source`` is ``/shop/<function>``.  ``partitionkey`` is the
    subject, so that a broker with ordered delivery keeps the order per subject.
    """
    extensions = {"partitionkey": event.subject}
    if traceparent:
        extensions["traceparent"] = traceparent
    return CloudEvent(
        id=id,
        source=source,
        type=event.type,
        subject=event.subject,
        time=time,
        dataschema=event.dataschema,
        extensions=extensions,
        data=strict_json.write(event.data()),
    )


def parse_time(text: str) -> datetime:
    """The time of an RFC 3339 timestamp, to the microsecond (further digits are cut off).

    Raises Malformed 400, also for leap seconds, which PostgreSQL and Go's brokers do not write.
    """
    match = re.fullmatch(_RFC_3339, text)
    if match is None:
        raise Malformed(400, "time is not an RFC 3339 timestamp")
    day, clock, fraction, zone = match.groups()
    offset = "+00:00" if zone in "Zz" else zone
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}.{(fraction or '')[:6]:0<6}{offset}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed(400, "time is not an RFC 3339 timestamp") from error


def write_time(moment: datetime) -> str:
    """RFC 3339 in UTC, with six fraction digits, or none when the microseconds are 0."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


# few sources and schemas are in many events
@lru_cache(maxsize=256)
def is_uri_reference(text: str) -> bool:
    """Whether ``text`` is a URI-reference (RFC 3986 section 4.1) and not empty."""
    match = re.fullmatch(_URI_REFERENCE, text)
    if match is None or not text:
        return False
    first_segment = text.partition("/")[0].partition("?")[0].partition("#")[0]
    return match["scheme"] is not None or ":" not in first_segment


@lru_cache(maxsize=256)
def is_absolute_uri(text: str) -> bool:
    """Whether ``text`` is an absolute URI (RFC 3986 section 4.3): a scheme, and no fragment."""
    has_scheme = re.match(r"[A-Za-z][A-Za-z0-9+.\-]*:", text) is not None
    return has_scheme and "#" not in text and is_uri_reference(text)


def _from_binary(headers: Mapping[str, str], content_type: str, body: bytes) -> CloudEvent:
    if (body or content_type) and not _is_json(content_type):
        raise Malformed(415, "the data of an event must be JSON in UTF-8")
    attributes = {
        name[3:]: _percent_decode(name[3:], text)
        for name, text in headers.items()
        if name.startswith("ce-")
    }
    if "datacontenttype" in attributes:
        raise Malformed(400, "in binary mode Content-Type says what the data is")
    return _event(attributes | ({"datacontenttype": content_type} if content_type else {}), body)


def _from_structured(body: bytes) -> CloudEvent:
    members = strict_json.read(body)
    if not strict_json.is_object(members):
        raise Malformed(400, "a structured event must be a JSON object")
    data = members.pop("data", None)
    encoded = members.pop("data_base64", None)
    # a member that is null counts as absent (JSON event format, section 2.2)
    attributes = {n: _attribute_text(n, value) for n, value in members.items() if value is not None}
    if not _is_json(attributes.setdefault("datacontenttype", JSON)):
        raise Malformed(415, "the data of an event must be JSON in UTF-8")
    if encoded is not None:
        if data is not None:
            raise Malformed(400, "data and data_base64 exclude each other")
        return _event(attributes, _from_base64(encoded))
    return _event(attributes, b"" if data is None else strict_json.write(data))


def _event(attributes: Mapping[str, str], data: bytes) -> CloudEvent:
    for name in ("specversion", *_REQUIRED):
        if not attributes.get(name):
            raise Malformed(400, f"{name} is missing or empty")
    if attributes["specversion"] != "1.0":
        raise Malformed(400, "specversion must be 1.0")
    time = attributes.get("time")
    return CloudEvent(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        subject=attributes.get("subject"),
        time=None if time is None else parse_time(time),
        datacontenttype=attributes.get("datacontenttype"),
        dataschema=attributes.get("dataschema"),
        extensions={n: text for n, text in attributes.items() if n not in _CONTEXT},
        data=data,
    )


def _attributes(event: CloudEvent) -> dict[str, str]:
    """Every attribute that is set, as text, in a fixed order."""
    attributes = {"specversion": "1.0"}
    for name in (*_REQUIRED, *_OPTIONAL):
        text = getattr(event, name)
        if text is not None:
            attributes[name] = text
    if event.time is not None:
        attributes["time"] = write_time(event.time)
    return attributes | dict(event.extensions)


def _attribute_text(name: str, value: object) -> str:
    """A JSON attribute as text: a string, boolean or integer (CloudEvents 1.0 section 3.1)."""
    if isinstance(value, str):
        return value
    if name not in _CONTEXT and isinstance(value, bool):
        return "true" if value else "false"
    if name not in _CONTEXT and isinstance(value, int) and -(2**31) <= value < 2**31:
        return str(value)
    raise Malformed(400, f"{_shown(name)} has a JSON type that no attribute has")


def _data_member(data: bytes, datacontenttype: str | None) -> dict[str, object]:
    if datacontenttype is None or _is_json(datacontenttype):
        try:
            value = strict_json.read(data)
        except Malformed:
            value = None
        if value is not None and strict_json.write(value) == data:
            return {"data": value}
    return {"data_base64": b64encode(data).decode("ascii")}


def _from_base64(encoded: object) -> bytes:
    if not isinstance(encoded, str):
        raise Malformed(400, "data_base64 must be a string")
    try:
        data = b64decode(encoded.encode("ascii"), validate=True)
    except (Base64Error, ValueError) as error:
        raise Malformed(400, "data_base64 is not base64") from error
    if b64encode(data).decode("ascii") != encoded:
        raise Malformed(400, "data_base64 is not canonical base64")
    return data


def _check_attribute(name: str, text: str | None) -> None:
    if text is None and name in _OPTIONAL:
        return
    if not text:
        raise Malformed(400, f"{name} is missing or empty")
    if len(text) > ATTRIBUTE_CHARACTERS_MAX:
        raise Malformed(400, f"{name} is longer than {ATTRIBUTE_CHARACTERS_MAX} characters")
    _check_characters(name, text)


def _check_extensions(extensions: Mapping[str, str]) -> None:
    if len(extensions) > EXTENSIONS_MAX:
        raise Malformed(400, f"an event has at most {EXTENSIONS_MAX} extensions")
    for name, text in extensions.items():
        if name in _CONTEXT or name in ("data", "data_base64"):
            raise Malformed(400, f"{name} is not the name of an extension")
        if not _is_extension_name(name):
            raise Malformed(400, f"{_shown(name)} is not the name of an attribute")
        if len(text) > EXTENSION_CHARACTERS_MAX:
            raise Malformed(400, f"{name} is longer than {EXTENSION_CHARACTERS_MAX} characters")
        _check_characters(name, text)


def _is_extension_name(name: str) -> bool:
    """Lower-case letters and digits of ASCII (CloudEvents 1.0 section 3.1), and not too many."""
    is_alphanumeric = name.isascii() and name.isalnum() and name == name.lower()
    return is_alphanumeric and len(name) <= NAME_CHARACTERS_MAX


def _check_characters(name: str, text: str) -> None:
    """Rejects controls, surrogates and noncharacters (CloudEvents 1.0 section 3.1, String)."""
    if text.isascii() and text.isprintable():
        return
    if re.search(_FORBIDDEN, text) or any(ord(c) & 0xFFFE == 0xFFFE for c in text):
        raise Malformed(400, f"{name} has a character that no attribute may have")


def _percent_encode(text: str) -> str:
    """One header value (HTTP binding 3.1.3.2): printable ASCII as is, but space, " and %."""
    is_plain = text.isascii() and text.isprintable()
    if is_plain and " " not in text and '"' not in text and "%" not in text:
        return text
    return quote(text, safe="!#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


def _percent_decode(name: str, header: str) -> str:
    """The attribute in a header value: unquoted, then percent-decoded once."""
    text = header.strip(" \t")
    if text.startswith('"'):
        if not re.fullmatch(r'"(?:[^"\\]|\\.)*"', text):
            raise Malformed(400, f"{_shown(name)}: the quotes do not match")
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    if not (text.isascii() and text.isprintable()):
        raise Malformed(400, f"{_shown(name)}: a header must be percent-encoded")
    if "%" not in text:
        return text
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise Malformed(400, f"{_shown(name)} is not percent-encoded correctly")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(400, f"{_shown(name)} is not UTF-8") from error


def _shown(name: str) -> str:
    return repr(name[:40])


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_utf_8(content_type: str) -> bool:
    """True unless a charset parameter names another encoding."""
    for parameter in content_type.split(";")[1:]:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset":
            return value.strip().strip('"').lower() in ("utf-8", "utf8")
    return True


def _is_json(content_type: str) -> bool:
    media_type = _media_type(content_type)
    is_json = media_type == JSON or re.fullmatch(r"application/[a-z0-9.\-]+\+json", media_type)
    return bool(is_json) and _is_utf_8(content_type)
