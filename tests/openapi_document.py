"""Compares every response that the tests' HTTP clients see with the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from shop.registry import all_specs
from shop.runtime.routing import Operation, Router

DOCUMENT = Path(__file__).parent.parent / "functions/api_docs/assets/rendered/openapi.json"
# Headers of the connection and of every representation; those of CORS are a setting.
NOT_OF_THE_OPERATION = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "server",
        "transfer-encoding",
        "vary",
    }
)


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DOCUMENT.read_text("utf-8"))
    return document


@cache
def _router() -> Router:
    return Router(all_specs())


def undocumented(method: str, path: str, status: int, headers: Mapping[str, str]) -> list[str]:
    """What the document does not say about a response; nothing for what is no operation."""
    operation = operation_at(method, path.partition("?")[0])
    if operation is None:
        return []
    route = operation.route
    responses = _document()["paths"][route.path][route.method.lower()]["responses"]
    documented = responses.get(str(status))
    if documented is None:
        return [f"{operation.scope}: the document has no status {status}"]
    if "$ref" in documented:
        name = documented["$ref"].rpartition("/")[2]
        documented = _document()["components"]["responses"][name]
    known = {name.lower() for name in documented.get("headers", {})} | NOT_OF_THE_OPERATION
    return [
        f"{operation.scope}: {status} has the undocumented header {name}"
        for name in headers
        if name.lower() not in known and not name.lower().startswith("access-control-")
    ]


def operation_at(method: str, path: str) -> Operation | None:
    """The operation that serves a method and a path; a literal path has precedence."""
    wanted = "GET" if method == "HEAD" else method
    matches = [operation for operation in _router().operations if operation.pattern.fullmatch(path)]
    literal = [operation for operation in matches if "{" not in operation.route.path]
    for operation in literal or matches:
        if operation.route.method == wanted:
            return operation
    return None
