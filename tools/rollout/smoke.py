"""Requests that a new revision must answer before it receives any of the customers'.

They change nothing: public reads, and everything else without a token, signature or body, which a
working function rejects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx

from shop.primitives.spec import FunctionSpec, Route

TIMEOUT_SECONDS = 30.0
# A function that does not serve its own route, or not in time.
WRONG_REJECTIONS = frozenset({404, 405, 408, 429})


def smoke(spec: FunctionSpec, url: str) -> list[str]:
    """What the function at a URL answers wrongly, one line each."""
    with httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS) as client:
        return [
            f"{method} {path} is answered with {status}"
            for method, path, is_read in _requests(spec)
            if not _is_expected(status := _status(client, method, path), is_read=is_read)
        ]


def _requests(spec: FunctionSpec) -> Iterator[tuple[str, str, bool]]:
    yield "GET", "/health/readiness", True
    for route in spec.routes:
        is_read = route.method == "GET" and route.auth == "public"
        if not (is_read and "{" in route.path):
            yield route.method, _path(route), is_read
    if spec.receives_events:
        yield "POST", "/events", False


def _path(route: Route) -> str:
    return re.sub(r"\{.+?\}", "1", route.path)


def _status(client: httpx.Client, method: str, path: str) -> int | str:
    try:
        return client.request(method, path).status_code
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}"


def _is_expected(status: int | str, *, is_read: bool) -> bool:
    if isinstance(status, str):
        return False
    if is_read:
        return 200 <= status < 400
    return 400 <= status < 500 and status not in WRONG_REJECTIONS
