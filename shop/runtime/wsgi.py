"""The WSGI adapter (PEP 3333) of ``python -m shop.runtime``, without Flask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from shop.primitives import failpoints
from shop.primitives.failpoints import Failpoint
from shop.runtime.app import SAFE_METHODS, App
from shop.runtime.http_messages import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
NO_BODY = (204, 304)


def wsgi(app: App) -> WSGIApplication:
    """The app as a WSGI callable."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        http_request = http_request_of(environ)
        response = app.answer(http_request)
        start_response(REASONS[response.status], headers_of(response))
        return body_of(http_request, response)

    return application


def http_request_of(environ: WSGIEnvironment) -> HttpRequest:
    """The request in a WSGI environment; header names in lower case."""
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


def body_of(http_request: HttpRequest, response: HttpResponse) -> Iterable[bytes]:
    """The body in one piece, or in two where a failpoint between them is armed; HEAD has none.

    A body that is made while it is sent is an iterator, which raises ``BrokenOff``.
    """
    if http_request.method == "HEAD":
        return [b""]
    if response.parts is not None:
        return response.parts
    is_write = http_request.method not in SAFE_METHODS and response.status < HTTPStatus.BAD_REQUEST
    if is_write and response.body and failpoints.is_armed(Failpoint.HALF_RESPONSE_SENT):
        return _halves(response.body)
    return [response.body]


def _halves(body: bytes) -> Iterator[bytes]:
    middle = (len(body) + 1) // 2
    yield body[:middle]
    failpoints.hit(Failpoint.HALF_RESPONSE_SENT)
    yield body[middle:]


def headers_of(response: HttpResponse) -> list[tuple[str, str]]:
    """The response headers with Content-Length, where the body has one and its length is known.

    Each line of ``set-cookie`` is a header of its own (RFC 6265 section 3).
    """
    cookies = [("set-cookie", line) for line in response.headers.get("set-cookie", "").splitlines()]
    headers = [header for header in response.headers.items() if header[0] != "set-cookie"]
    headers += cookies
    if response.status not in NO_BODY and response.parts is None:
        headers.append(("content-length", str(len(response.body))))
    return headers


def _raw_path(environ: WSGIEnvironment) -> str:
    """The path before decoding, where the server gives it: ``/%6frders`` is not ``/orders``."""
    raw: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw and raw.startswith("/"):
        return raw.split("?", 1)[0]
    path: str = environ["PATH_INFO"]
    return path
