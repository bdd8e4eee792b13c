"""Serves the API documents: files of this folder, from fixed lists; uses no database.

``assets/rendered`` is written by ``make render``, ``assets/vendor`` is Swagger UI.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import events
from shop.primitives.errors import not_found
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from shop.runtime.request_context import RequestContext

HERE = Path(__file__).parent / "assets"
RENDERED = HERE / "rendered"
VENDOR = HERE / "vendor"

HTML = "text/html; charset=utf-8"
JAVASCRIPT = "text/javascript; charset=utf-8"
CSS = "text/css; charset=utf-8"
JSON = "application/json"

ASSETS: Mapping[str, tuple[Path, str]] = {
    "swagger-ui.css": (VENDOR, CSS),
    "swagger-ui-bundle.js": (VENDOR, JAVASCRIPT),
    "swagger-ui-standalone-preset.js": (VENDOR, JAVASCRIPT),
    "favicon-32x32.png": (VENDOR, "image/png"),
    "start-swagger-ui.js": (HERE, JAVASCRIPT),
    "api-docs.css": (HERE, CSS),
    "groups.json": (RENDERED, JSON),
    "local-accounts.json": (RENDERED, JSON),
}
# the accounts of the local seed, whose passwords are public: pages of other profiles have none
LOCAL_ACCOUNTS = "local-accounts.json"

# the services of the replaced system, and the groups of the operations that each of them had
SERVICES: Mapping[str, tuple[str, ...]] = {
    "user-service": ("users", "auth"),
    "product-service": ("catalog",),
    "order-service": ("orders", "cart"),
    "payment-service": ("payments",),
    "settlement-service": ("settlements",),
}

# Same origin only, no framing, and nothing inline but the style in the logo of Swagger UI, by its
# hash.  ``data:`` is needed for the images in Swagger UI's style sheet.
LOGO_STYLE_HASH = "sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w="
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' '{LOGO_STYLE_HASH}'; "
    "img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "cache-control": "public, max-age=300",
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
TO_API_DOCS = Response(302, None, {**HEADERS, "location": "/api-docs"})


def show_api_docs(_request: Request[None, None], _context: RequestContext) -> Response:
    """200 with Swagger UI, as HTML."""
    return _file(HERE, "api-docs.html", HTML)


def redirect_swagger_ui(_request: Request[None, None], _context: RequestContext) -> Response:
    """302 to Swagger UI."""
    return TO_API_DOCS


def redirect_api_docs(_request: Request[None, None], _context: RequestContext) -> Response:
    """302 to Swagger UI."""
    return TO_API_DOCS


def show_asset(request: Request[None, None], context: RequestContext) -> Response:
    """200 with a file of the pages, or OpenAPI 3.1 of a replaced service; 404 for another name."""
    name = request.path["asset"]
    if name in SERVICES:
        return _openapi_of_service(name)
    if name not in ASSETS:
        raise not_found("the file")
    if name == LOCAL_ACCOUNTS and context.settings.profile != "local":
        return Response(200, {"accounts": []}, HEADERS)
    folder, media_type = ASSETS[name]
    return _file(folder, name, media_type)


def show_openapi(_request: Request[None, None], _context: RequestContext) -> Response:
    """200 with OpenAPI 3.1 of all functions."""
    return _file(RENDERED, "openapi.json", JSON)


def show_openapi_of_group(request: Request[None, None], _context: RequestContext) -> Response:
    """200 with OpenAPI 3.1 of one group; 404 when there is no such group."""
    return _file_if_present(RENDERED, f"openapi-{request.path['group']}.json", JSON, "the group")


def show_asyncapi_page(_request: Request[None, None], _context: RequestContext) -> Response:
    """200 with the event catalogue, as HTML."""
    return _file(RENDERED, "asyncapi.html", HTML)


def show_asyncapi(_request: Request[None, None], _context: RequestContext) -> Response:
    """200 with AsyncAPI 3.0 of all events."""
    return _file(RENDERED, "asyncapi.json", JSON)


def show_event_schema(request: Request[None, None], _context: RequestContext) -> Response:
    """200 with the JSON Schema of an event type and version; 404 when there is none."""
    folder = Path(next(iter(events.__path__))) / "schemas"
    return _file_if_present(folder, request.path["name"], "application/schema+json", "the schema")


@cache
def _openapi_of_service(name: str) -> Response:
    """The whole document with only the operations of the service's groups."""
    document = json.loads((RENDERED / "openapi.json").read_bytes())
    groups = set(SERVICES[name])
    document["info"]["title"] += f": {name}"
    for path, operations in list(document["paths"].items()):
        kept = {
            m: operation for m, operation in operations.items() if groups & {*operation["tags"]}
        }
        document["paths"][path] = kept
        if not kept:
            del document["paths"][path]
    return Response(200, document, HEADERS)


def _file_if_present(folder: Path, name: str, media_type: str, what: str) -> Response:
    if name not in _names_in(folder):
        raise not_found(what)
    return _file(folder, name, media_type)


@cache
def _names_in(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.glob("*.json"))


@cache
def _file(folder: Path, name: str, media_type: str) -> Response:
    return Response(200, (folder / name).read_bytes(), HEADERS, media_type)
