"""The plain WSGI adapter: our own container entry, without Flask on the way (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from shop.primitives import failpoints
from shop.runtime.app import READING, App
from shop.runtime.http_messages import HttpRequest, HttpResponse

REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
NO_BODY = (204, 304)


def wsgi(app: App) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """The app as a WSGI callable."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        wire = wire_of(environ)
        answer = app.answer(wire)
        start_response(REASONS[answer.status], headers_of(answer))
        return [b""] if wire.method == "HEAD" else body_of(wire, answer)

    return application


def wire_of(environ: dict[str, Any]) -> HttpRequest:
    """The request inside a WSGI environment."""
    headers = {
        name[5:].replace("_", "-").lower(): text
        for name, text in environ.items()
        if name.startswith("HTTP_")
    }
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = environ["CONTENT_TYPE"]
    length = environ.get("CONTENT_LENGTH") or headers.get("content-length")
    return HttpRequest(
        method=environ["REQUEST_METHOD"],
        path=_raw_path(environ),
        query=environ.get("QUERY_STRING", ""),
        headers=headers,
        peer=environ.get("REMOTE_ADDR", ""),
        read=environ["wsgi.input"].read,
        content_length=int(length) if length and length.isascii() and length.isdigit() else None,
    )


def body_of(wire: HttpRequest, answer: HttpResponse) -> Iterable[bytes]:
    """The body in one piece, or in two where the process may have to die between them."""
    is_writing = wire.method not in READING and answer.status < HTTPStatus.BAD_REQUEST
    if is_writing and answer.body and failpoints.is_armed(failpoints.HALF_AN_ANSWER):
        return _halves(answer.body)
    return [answer.body]


def _halves(body: bytes) -> Iterator[bytes]:
    middle = (len(body) + 1) // 2
    yield body[:middle]
    failpoints.point("W10")
    yield body[middle:]


def headers_of(answer: HttpResponse) -> list[tuple[str, str]]:
    """The response headers; a body's length is stated, an empty answer has no type."""
    headers = list(answer.headers.items())
    if answer.status not in NO_BODY:
        headers.append(("content-length", str(len(answer.body))))
    return headers


def _raw_path(environ: dict[str, Any]) -> str:
    """The path as it was sent, where the server tells it: ``/%6frders`` is not ``/orders``."""
    raw: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw and raw.startswith("/"):
        return raw.split("?", 1)[0]
    path: str = environ["PATH_INFO"]
    return path
