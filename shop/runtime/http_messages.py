"""HTTP requests and responses: size limits, strict JSON, problem documents."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NoReturn, cast
from urllib.parse import parse_qsl, unquote_plus

from shop.primitives import languages
from shop.primitives.errors import ClientError
from shop.primitives.languages import ENGLISH, Phrase

BODY_MAX = 64 * 1024
PATH_MAX = 2 * 1024
HEADERS_MAX = 16 * 1024
DEPTH_MAX = 32
INSTANCE_LENGTH_MAX = 200

# a weight of zero (RFC 9110 section 12.4.2)
NOT_ACCEPTABLE = re.compile(r"q\s*=\s*0(?:\.0{0,3})?")

HTML = "text/html"
JSON = "application/json"
# the second is no registered name, but what some clients send
UTF_8 = ("charset=utf-8", "charset=utf8")
PROBLEM = "application/problem+json"


@dataclass
class HttpRequest:
    """A request: raw path, lower-case header names, and a body that has not been read."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    peer: str
    read: Callable[[int], bytes]
    content_length: int | None = None


@dataclass
class HttpResponse:
    """A response: status, lower-case header names, and bytes; ``pending`` while preliminary.

    ``parts`` is a body that is made while it is sent; its length is not known.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    pending: Pending | None = None
    parts: Iterator[bytes] | None = None


class BrokenOff(Exception):
    """A body that is made while it is sent cannot be completed: the connection has to be ended."""


@dataclass(frozen=True)
class Pending:
    """An account waits up to ``seconds`` for a final response; ``again`` looks for it."""

    account: int
    seconds: float
    again: Callable[[], HttpResponse]


def read_body(http_request: HttpRequest) -> bytes:
    """The request's body, at most 64 KiB; 413 before more than that is read."""
    if http_request.content_length is not None and http_request.content_length > BODY_MAX:
        raise ClientError(413, "TOO_LARGE", "the body may have at most 65536 bytes")
    # not a byte more than Content-Length: some servers do not end the body
    body = http_request.read(
        BODY_MAX + 1 if http_request.content_length is None else http_request.content_length
    )
    if len(body) > BODY_MAX:
        raise ClientError(413, "TOO_LARGE", "the body may have at most 65536 bytes")
    if http_request.content_length is not None and len(body) != http_request.content_length:
        raise ClientError(400, "BAD_REQUEST", "the body is shorter than its Content-Length")
    return body


def incomplete_request() -> ClientError:
    """400 for a message that ended early or is malformed; it must not run (RFC 9112 section 8)."""
    return ClientError(
        400,
        "BAD_REQUEST",
        "this is not a complete request",
        headers={"connection": "close"},
    )


def request_timeout() -> ClientError:
    """408 for a request that did not arrive completely in time."""
    return ClientError(
        408,
        "REQUEST_TIMEOUT",
        "the request did not arrive in time",
        headers={"connection": "close"},
    )


def check_limits(http_request: HttpRequest) -> None:
    """414 for long paths, 431 for many headers, 415 for compressed bodies."""
    if len(http_request.path) + len(http_request.query) > PATH_MAX:
        raise ClientError(414, "URI_TOO_LONG", "the path may have at most 2048 characters")
    if sum(len(k) + len(v) + 4 for k, v in http_request.headers.items()) > HEADERS_MAX:
        raise ClientError(431, "HEADERS_TOO_LARGE", "the headers may have at most 16384 bytes")
    if http_request.headers.get("content-encoding", "identity") not in ("", "identity"):
        raise ClientError(415, "UNSUPPORTED_MEDIA_TYPE", "compressed bodies are not accepted")


def check_accept(http_request: HttpRequest, media_type: str) -> None:
    """406 when the caller's Accept excludes the media type of the route."""
    accept = http_request.headers.get("accept", "")
    if not accept:
        return
    main_type = media_type.split(";")[0]
    acceptable = {media_type, main_type, f"{main_type.split('/')[0]}/*", "*/*", PROBLEM}
    for entry in accept.split(","):
        accepted, *parameters = (part.strip().lower() for part in entry.split(";"))
        if accepted in acceptable and not any(
            NOT_ACCEPTABLE.fullmatch(parameter) for parameter in parameters
        ):
            return
    raise ClientError(
        406, "NOT_ACCEPTABLE", Phrase("this resource is {media_type}", media_type=main_type)
    )


def names_html(http_request: HttpRequest) -> bool:
    """True when Accept names text/html itself, as a browser's does when it opens a page."""
    accept = http_request.headers.get("accept", "")
    return any(entry.split(";")[0].strip().lower() == HTML for entry in accept.split(","))


def parse_json(http_request: HttpRequest, body: bytes) -> object:
    """One JSON document (RFC 8259) in UTF-8, without duplicate keys, NaN or lone surrogates.

    Raises 415 for another media type and 400 for anything that is not such a document.
    """
    content_type = http_request.headers.get("content-type", "")
    sent, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if sent != JSON or any(p and p.replace('"', "") not in UTF_8 for p in parameters):
        raise ClientError(
            415, "UNSUPPORTED_MEDIA_TYPE", "the body must be application/json in UTF-8"
        )
    try:
        text = body.decode("utf-8")
        document: object = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ClientError(400, "BAD_JSON", "the body is not one valid JSON document") from error
    if _depth(document) > DEPTH_MAX:
        raise ClientError(400, "BAD_JSON", "the body is nested too deeply")
    return document


def _unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_names, parse_constant=_reject_constant, parse_float=_finite
)


def _depth(document: object) -> int:
    deepest = 0
    stack: list[tuple[object, int]] = [(document, 1)]
    while stack:
        value, depth = stack.pop()
        deepest = max(deepest, depth)
        if isinstance(value, dict):
            stack.extend(
                (member, depth + 1) for member in cast("dict[str, object]", value).values()
            )
        elif isinstance(value, list):
            stack.extend((member, depth + 1) for member in cast("list[object]", value))
    return deepest


def parse_query(query: str, *, known: Collection[str] | None = None) -> dict[str, str]:
    """The query's parameters; 400 when one is repeated or not UTF-8.

    With ``known`` all others are left out unread, whatever their values are encoded in.
    """
    if known is not None:
        fields = query.split("&")
        query = "&".join(f for f in fields if unquote_plus(f.partition("=")[0]) in known)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=50)
    except (ValueError, UnicodeDecodeError) as error:
        raise ClientError(400, "BAD_QUERY", "the query string cannot be read") from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise ClientError(400, "BAD_QUERY", "a query parameter is given twice")
    return parameters


def encode(document: object) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def problem(error: ClientError, http_request: HttpRequest) -> HttpResponse:
    """RFC 9457 problem details, with the members ``error`` and ``message`` for older clients.

    Sentences for people are in the language that the request prefers, if all of them are known in
    it, else in English.
    """
    language = languages.preferred_language(
        http_request.headers.get("accept-language"), default=ENGLISH
    )
    sentences = None if language == ENGLISH else _translate(error, language)
    if sentences is None:
        language = ENGLISH
        sentences = HTTPStatus(error.status).phrase, error.message, error.extra
    title, message, extra = sentences
    document = {
        "type": f"urn:msa-shop:problem:{error.code.lower().replace('_', '-')}",
        "title": title,
        "status": error.status,
        "detail": message,
        "instance": _instance_of(http_request),
        "error": error.code,
        "message": message,
        **extra,
    }
    headers = {
        "content-type": PROBLEM,
        "content-language": language,
        "vary": "Accept-Language",
        "cache-control": "no-store",
        **error.headers,
    }
    return HttpResponse(error.status, encode(document), headers)


def _translate(error: ClientError, language: str) -> tuple[str, str, Mapping[str, object]] | None:
    """Title, message and further members in a language; None when one of them is unknown in it."""
    title = languages.title_in(language, error.status)
    message = languages.translate(error.message, language)
    if title is None or message is None:
        return None
    if "errors" not in error.extra:
        return title, message, error.extra
    mistakes = cast("list[dict[str, str]]", error.extra["errors"])
    translated = [
        {**each, "message": languages.translate(each["message"], language)} for each in mistakes
    ]
    if any(each["message"] is None for each in translated):
        return None
    return title, message, {**error.extra, "errors": translated}


def _instance_of(http_request: HttpRequest) -> str:
    """The path for a problem document, cut before an escape that would be incomplete."""
    shown = http_request.path[:INSTANCE_LENGTH_MAX]
    head, percent, escaped = shown.rpartition("%")
    return head if percent and len(escaped) < 2 else shown
