"""Cross-origin requests of browsers (CORS; the Fetch standard, section 3.2).

Callers send a token in ``Authorization``, and the cookie of a known device is for the shop's own
pages only, so no response allows credentials.  Origins are compared as a whole: there is no
wildcard.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

METHODS = "GET, HEAD, POST, PATCH, DELETE"
REQUEST_HEADERS = (
    "authorization, content-type, idempotency-key, if-match, if-none-match, prefer, traceparent"
)
RESPONSE_HEADERS = (
    "etag, idempotent-replayed, link, location, preference-applied, ratelimit, ratelimit-policy, "
    "retry-after, www-authenticate"
)
PREFLIGHT_SECONDS = 600
# as browsers write it: lower case, without path and default port
ORIGIN = re.compile(
    r"(?:http(?!.*:80$)|https(?!.*:443$))://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]+)?"
)


def parse_origins(text: str) -> frozenset[str]:
    """The origins of a list with commas; ``ValueError`` for anything that no browser sends."""
    origins = [origin.strip() for origin in text.split(",")] if text else []
    if not all(ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError(
            "is not a list of origins such as https://www.shop.kr, with commas between"
        )
    return frozenset(origins)


def response_headers(
    origins: Collection[str], method: str, request_headers: Mapping[str, str]
) -> dict[str, str]:
    """The headers that let scripts of these origins read the response, or make the request.

    ``Vary`` is there for other origins too, because a cache must not give them this response.
    """
    headers = {"vary": "Origin"}
    origin = request_headers.get("origin", "")
    if origin not in origins:
        return headers
    headers["access-control-allow-origin"] = origin
    if method == "OPTIONS" and "access-control-request-method" in request_headers:
        return headers | {
            "access-control-allow-methods": METHODS,
            "access-control-allow-headers": REQUEST_HEADERS,
            "access-control-max-age": str(PREFLIGHT_SECONDS),
        }
    return headers | {"access-control-expose-headers": RESPONSE_HEADERS}
