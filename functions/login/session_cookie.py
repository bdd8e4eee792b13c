"""The cookie mode of a session: the refresh token is in a cookie that no script can read.

A page asks for it with the header ``Refresh-Token: cookie``.  Only a page of the shop itself can:
the cookie is ``SameSite=Strict``; browsers send that header to another origin after a preflight
only, which no origin passes (``shop/primitives/cors.py``); and what says that it comes from another
origin is rejected.  The prefix ``__Host-`` (RFC 6265bis) keeps other hosts of the domain from
setting the cookie.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shop.accounts import SESSION_DAYS
from shop.primitives.errors import ClientError

COOKIE = "__Host-shop_refresh"
HEADER = "refresh-token"
ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Strict"
VALUE = re.compile(rf"(?:^|;\s*){COOKIE}=([A-Za-z0-9._~-]{{1,1024}})(?:;|$)")
REMOVE = f"{COOKIE}=; Max-Age=0; {ATTRIBUTES}"


def is_requested(headers: Mapping[str, str]) -> bool:
    """True for a request in cookie mode; 403 for one of another origin."""
    if headers.get(HEADER) != "cookie":
        return False
    if not _is_of_same_origin(headers):
        raise ClientError(403, "CROSS_ORIGIN", "the cookie is for the shop's own pages")
    return True


def token_in(headers: Mapping[str, str]) -> str | None:
    """The refresh token in the cookie."""
    match = VALUE.search(headers.get("cookie", ""))
    return None if match is None else match[1]


def set_cookie(refresh_token: str) -> str:
    """The Set-Cookie header that keeps a refresh token for as long as a session can last."""
    return f"{COOKIE}={refresh_token}; Max-Age={SESSION_DAYS * 86_400}; {ATTRIBUTES}"


def _is_of_same_origin(headers: Mapping[str, str]) -> bool:
    """What the browser says; a client that says nothing is no browser.

    An edge may rewrite Host, so Origin is compared only where Sec-Fetch-Site is missing: in
    browsers of before 2023, which an edge that rewrites then excludes from cookie mode.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site == "same-origin"
    return origin is None or origin.partition("://")[2] == headers.get("host")
