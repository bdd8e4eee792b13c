"""Serves the storefront and the back office: the files that ``make web`` builds in ``pages``.

Every file is there as built, with gzip and with Brotli.  Names below ``/assets`` contain a digest
of the content, so browsers keep them for a year; pages are validated at each visit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from shop.primitives import etags
from shop.primitives.errors import Unavailable, not_found
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from shop.runtime.request_context import RequestContext

PAGES = Path(__file__).parent / "pages"
MEDIA_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# by preference: the smaller first
CODINGS: Mapping[str, str] = {"br": ".br", "gzip": ".gz"}
NOT_ACCEPTED = re.compile(r";\s*q\s*=\s*0(?:\.0{0,3})?\s*$")

# Nothing inline, nothing from elsewhere but pictures of products, no strings as HTML, no framing.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
}
PAGE_HEADERS = {**HEADERS, "cache-control": "no-cache", "vary": "Accept, Accept-Encoding"}
ASSET_HEADERS = {
    **HEADERS,
    "cache-control": "public, max-age=31536000, immutable",
    "vary": "Accept-Encoding",
}


def show_storefront(request: Request[None, None], _context: RequestContext) -> Response:
    """200 with the storefront."""
    return _page(request, "storefront.html")


def show_password_page(request: Request[None, None], _context: RequestContext) -> Response:
    """200 with the storefront, which reads the link's token from the fragment."""
    return _page(request, "storefront.html")


def show_email_page(request: Request[None, None], _context: RequestContext) -> Response:
    """200 with the storefront, which reads the link's token from the fragment."""
    return _page(request, "storefront.html")


def show_back_office(request: Request[None, None], _context: RequestContext) -> Response:
    """200 with the back office."""
    return _page(request, "admin.html")


def show_web_asset(request: Request[None, None], _context: RequestContext) -> Response:
    """200 with a file of the pages; 404 when there is none of this name."""
    name = request.path["asset"]
    if name not in _assets():
        raise not_found("the file")
    return _file(request, f"assets/{name}", ASSET_HEADERS)


def _page(request: Request[None, None], name: str) -> Response:
    if not (PAGES / name).is_file():
        raise Unavailable("the pages are not built; make web builds them")
    return _file(request, name, PAGE_HEADERS)


def _file(request: Request[None, None], name: str, headers: Mapping[str, str]) -> Response:
    """The file in the best coding that the client accepts; 304 if it has it."""
    coding = _coding(request.headers.get("accept-encoding", ""))
    content, etag = _content(name, coding)
    headers = {**headers, "etag": etag}
    if etags.is_known(request.headers.get("if-none-match"), etag):
        return Response(304, None, headers)
    if coding is not None:
        headers["content-encoding"] = coding
    return Response(200, content, headers, MEDIA_TYPES[Path(name).suffix])


def _coding(accept_encoding: str) -> str | None:
    """The coding to send (RFC 9110 section 12.5.3); None for the file as built."""
    accepted = {
        entry.partition(";")[0].strip().lower()
        for entry in accept_encoding.split(",")
        if not NOT_ACCEPTED.search(entry)
    }
    return next((coding for coding in CODINGS if coding in accepted), None)


@cache
def _assets() -> frozenset[str]:
    files = (PAGES / "assets").glob("*")
    return frozenset(file.name for file in files if file.suffix in MEDIA_TYPES)


@cache
def _content(name: str, coding: str | None) -> tuple[bytes, str]:
    content = (PAGES / (name + CODINGS.get(coding or "", ""))).read_bytes()
    return content, etags.tag_of_bytes(content)
