"""Caches pages as serialised bytes, in the process and in Redis, both under a version token.

Every response first reads the token from Redis, so a changed price shows at once in every process.
Only while Redis does not respond is a copy served unchecked, for at most a second.  A page expires
after one second in Redis and one in a process, so stock in lists may be two seconds old.  The token
is read before the database, so data from before a change is never cached under the token set after
it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from events.records import frozen
from shop.catalog import VERSION_KEY, list_version
from shop.primitives.etags import tag_of_bytes

if TYPE_CHECKING:
    from shop.adapters.cache import Cache

ENTRY_SECONDS = 1.0
COPY_SECONDS = 1.0
# Redis also counts requests, and must not be filled with lists; longer ones have copies only
ENTRY_BYTES_MAX = 64 * 1024
COPIES_MAX = 256
COPIES_BYTES_MAX = 8 * 1024 * 1024


@frozen
class Page:
    """One page of a list: JSON bytes, the Link to the next page or "", the entity tag of both."""

    body: bytes
    link: str
    etag: str


@frozen
class _Copy:
    page: Page
    token: str | None
    read_at: float


class PageCache:
    """Looks pages up in the process, then in Redis; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: dict[str, _Copy] = {}
        self._bytes = 0
        self._token = ""

    def find_or_make(self, cache: Cache, digest: str, read: Callable[[], Page]) -> Page:
        """The cached page with this digest, or what ``read()`` returns, which is then cached.

        A cached page takes one round trip to Redis, or two after the version token changed.
        """
        copy = self._copies.get(digest)
        if copy is not None and monotonic() - copy.read_at > COPY_SECONDS:
            copy = None
        last_token = self._token
        found, entry = _read_token_and_entry(cache, digest, last_token, copy)
        token = list_version(cache, found)
        if copy is not None and token in (None, copy.token):
            return copy.page
        if token is not None and token != last_token:
            entry = cache.get(_key(token, digest))
            self._token = token
        page = unpack(entry) if token is not None and entry is not None else None
        read_at = monotonic()
        if page is None:
            page = read()
            if token is not None and len(page.body) <= ENTRY_BYTES_MAX:
                cache.set(_key(token, digest), pack(page), ENTRY_SECONDS)
        self._keep(digest, _Copy(page, token, read_at))
        return page

    def _keep(self, digest: str, copy: _Copy) -> None:
        with self._lock:
            before = self._copies.get(digest)
            self._bytes += len(copy.page.body) - (len(before.page.body) if before else 0)
            self._copies[digest] = copy
            if len(self._copies) > COPIES_MAX or self._bytes > COPIES_BYTES_MAX:
                self._copies, self._bytes = {}, 0


def make_page(body: str, link: str) -> Page:
    """A page of JSON that was read from the database."""
    content = body.encode()
    return Page(content, link, _tag(content, link))


def pack(page: Page) -> bytes:
    """A page as one Redis value."""
    return f"{page.etag}\n{page.link}\n".encode() + page.body


def unpack(entry: bytes) -> Page | None:
    """The page in a Redis value, or None when its tag does not match."""
    etag, _, rest = entry.partition(b"\n")
    link, _, body = rest.partition(b"\n")
    page = Page(body, link.decode("ascii", "replace"), etag.decode("ascii", "replace"))
    return page if page.etag == _tag(body, page.link) else None


def _read_token_and_entry(
    cache: Cache, digest: str, last_token: str, copy: _Copy | None
) -> tuple[bytes | None, bytes | None]:
    """The version token and, in the same round trip, the entry under the last known token."""
    if copy is not None or not last_token:
        return cache.get(VERSION_KEY), None
    found, entry = cache.get_many(VERSION_KEY, _key(last_token, digest))
    return found, entry


def _key(token: str, digest: str) -> str:
    return f"catalog:{token}:{digest}"


def _tag(body: bytes, link: str) -> str:
    return tag_of_bytes(link.encode("ascii", "replace") + b"\n" + body)
