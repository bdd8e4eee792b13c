"""HTTP as bytes: strict JSON in, problem documents out, limits on everything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from shop.primitives.errors import ClientError

BODY_MAX = 64 * 1024
PATH_MAX = 2 * 1024
HEADERS_MAX = 16 * 1024
DEPTH_MAX = 32

# a weight of nought (RFC 9110 section 12.4.2)
UNWANTED = re.compile(r"q\s*=\s*0(?:\.0{0,3})?")

JSON = "application/json"
PROBLEM = "application/problem+json"


@dataclass
class HttpRequest:
    """A request as it came: raw path, lower-case headers, a body that is read only when asked."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    peer: str
    read: Callable[[int], bytes]
    content_length: int | None = None


@dataclass
class HttpResponse:
    """A response as it goes: status, headers and bytes."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def read_body(wire: HttpRequest) -> bytes:
    """The request's body, at most 64 KiB; 413 before more than that is read."""
    if wire.content_length is not None and wire.content_length > BODY_MAX:
        raise ClientError(413, "TOO_LARGE", "the body may have at most 65536 bytes")
    # not a byte more than announced: some servers do not end a body for us
    body = wire.read(BODY_MAX + 1 if wire.content_length is None else wire.content_length)
    if len(body) > BODY_MAX:
        raise ClientError(413, "TOO_LARGE", "the body may have at most 65536 bytes")
    if wire.content_length is not None and len(body) != wire.content_length:
        raise ClientError(400, "BAD_REQUEST", "the body is shorter than its Content-Length")
    return body


def check_limits(wire: HttpRequest) -> None:
    """414 for long paths, 431 for many headers, 415 for compressed bodies."""
    if len(wire.path) + len(wire.query) > PATH_MAX:
        raise ClientError(414, "URI_TOO_LONG", "the path may have at most 2048 characters")
    if sum(len(k) + len(v) + 4 for k, v in wire.headers.items()) > HEADERS_MAX:
        raise ClientError(431, "HEADERS_TOO_LARGE", "the headers may have at most 16384 bytes")
    if wire.headers.get("content-encoding", "identity") not in ("", "identity"):
        raise ClientError(415, "UNSUPPORTED_MEDIA_TYPE", "compressed bodies are not accepted")


def check_accept(wire: HttpRequest, media_type: str) -> None:
    """406 when the caller's Accept leaves no room for what the route answers."""
    accept = wire.headers.get("accept", "")
    if not accept:
        return
    main_type = media_type.split(";")[0]
    wanted = {media_type, main_type, f"{main_type.split('/')[0]}/*", "*/*", PROBLEM}
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        if kind in wanted and not any(UNWANTED.fullmatch(parameter) for parameter in parameters):
            return
    raise ClientError(406, "NOT_ACCEPTABLE", f"this resource is {main_type}")


def parse_json(wire: HttpRequest, body: bytes) -> Any:
    """One JSON document (RFC 8259) in UTF-8, without duplicate keys, NaN or lone surrogates.

    Raises 415 for another media type and 400 for anything that is not such a document.
    """
    content_type = wire.headers.get("content-type", "")
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if kind != JSON or any(p and p.replace('"', "") != "charset=utf-8" for p in parameters):
        raise ClientError(
            415, "UNSUPPORTED_MEDIA_TYPE", "the body must be application/json in UTF-8"
        )
    try:
        text = body.decode("utf-8")
        document = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ClientError(400, "BAD_JSON", "the body is not one valid JSON document") from error
    if _depth(document) > DEPTH_MAX:
        raise ClientError(400, "BAD_JSON", "the body is nested too deeply")
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_constant=_refuse, parse_float=_finite
)


def _depth(document: Any) -> int:
    deepest, stack = 0, [(document, 1)]
    while stack:
        value, depth = stack.pop()
        deepest = max(deepest, depth)
        if isinstance(value, dict):
            stack.extend((member, depth + 1) for member in value.values())
        elif isinstance(value, list):
            stack.extend((member, depth + 1) for member in value)
    return deepest


def parse_query(query: str) -> dict[str, str]:
    """The query's parameters; 400 when one is repeated or not UTF-8."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=50)
    except (ValueError, UnicodeDecodeError) as error:
        raise ClientError(400, "BAD_QUERY", "the query string cannot be read") from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise ClientError(400, "BAD_QUERY", "a query parameter is given twice")
    return parameters


def encode(document: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def problem(refusal: ClientError, *, instance: str) -> HttpResponse:
    """RFC 9457 problem details, with the ``error`` and ``message`` members older clients read."""
    document = {
        "type": f"urn:msa-shop:problem:{refusal.code.lower().replace('_', '-')}",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.message,
        "instance": instance,
        "error": refusal.code,
        "message": refusal.message,
        **refusal.extra,
    }
    headers = {"content-type": PROBLEM, "cache-control": "no-store", **refusal.headers}
    return HttpResponse(refusal.status, encode(document), headers)
