"""Keyset paging: the requested page, its cursor, and the Link to the next page.

A cursor holds the last product's sort key and id, with a checksum over them, the sort and the
filters: one that was made up, truncated, or issued for another list is rejected.  The checksum
needs no secret, because the products are public.  A name for which it has no room is left out and
read from the product, so that a link with the longest filters still fits in a request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import astuple
from typing import TYPE_CHECKING
from urllib.parse import quote

from events.records import frozen
from shop.catalog import Filter, Position
from shop.primitives.errors import ClientError
from shop.primitives.ids import PRODUCT_ID_MAX

if TYPE_CHECKING:
    from functions.list_products.schema import ListProducts

CHECKSUM_BYTES = 8
PLACE_BYTES_MAX = 280
CURSOR_LENGTH_MAX = 4 * (CHECKSUM_BYTES + PLACE_BYTES_MAX) // 3


@frozen
class PageRequest:
    """One page of one list."""

    sort: str
    filters: Filter
    limit: int
    after: Position | None

    @property
    def digest(self) -> str:
        """The page's cache key: equal requests, and only they, have equal digests."""
        after = astuple(self.after) if self.after else None
        return hashlib.sha256(_canonical(self.sort, self.filters, self.limit, after)).hexdigest()


def page_request_of(query: ListProducts) -> PageRequest:
    """The page that a query requests; 422 for an empty price range, 400 for an invalid cursor."""
    filters = Filter(
        name=query.name or None,
        category=query.category or None,
        price_min=query.min_price,
        price_max=query.max_price,
    )
    least, most = query.min_price, query.max_price
    if least is not None and most is not None and least > most:
        raise ClientError(422, "INVALID", "minPrice must not be more than maxPrice")
    after = None
    if query.cursor is not None:
        after = read_cursor(query.cursor, query.sort, filters)
    return PageRequest(query.sort, filters, query.limit, after)


def link_to_next(page_request: PageRequest, last: Position) -> str:
    """The Link header (RFC 8288) to the page after ``last``."""
    filters = page_request.filters
    parameters = {
        "limit": page_request.limit,
        "sort": page_request.sort,
        "name": filters.name,
        "category": filters.category,
        "minPrice": filters.price_min,
        "maxPrice": filters.price_max,
        "cursor": write_cursor(page_request.sort, filters, last),
    }
    given = "&".join(
        f"{k}={quote(str(v), safe='')}" for k, v in parameters.items() if v is not None
    )
    return f'</products?{given}>; rel="next"'


def write_cursor(sort: str, filters: Filter, last: Position) -> str:
    """The opaque text of a position in this list, at most CURSOR_LENGTH_MAX characters."""
    place = _canonical(last.key, last.product_id)
    if len(place) > PLACE_BYTES_MAX:
        place = _canonical(None, last.product_id)
    return base64.urlsafe_b64encode(_checksum(sort, filters, place) + place).decode().rstrip("=")


def read_cursor(cursor: str, sort: str, filters: Filter) -> Position:
    """The position of a cursor; 400 for any that was not issued for this list."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = raw[CHECKSUM_BYTES:]
        key, product_id = json.loads(place)
    except (ValueError, TypeError, RecursionError) as error:
        raise _bad_cursor() from error
    position = Position(key, product_id)
    if not _is_possible(position, sort) or write_cursor(sort, filters, position) != cursor:
        raise _bad_cursor()
    return position


def _is_possible(position: Position, sort: str) -> bool:
    if not _is_number(position.product_id):
        return False
    if sort not in ("name", "-name"):
        return _is_number(position.key)
    return position.key is None or (isinstance(position.key, str) and _is_storable(position.key))


def _is_number(value: object) -> bool:
    return type(value) is int and 0 < value <= PRODUCT_ID_MAX


def _is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def _checksum(sort: str, filters: Filter, place: bytes) -> bytes:
    return hashlib.sha256(_canonical(sort, filters) + b"\n" + place).digest()[:CHECKSUM_BYTES]


def _canonical(*parts: object) -> bytes:
    plain = [astuple(part) if isinstance(part, Filter) else part for part in parts]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()


def _bad_cursor() -> ClientError:
    return ClientError(400, "BAD_CURSOR", "the cursor is not one of this list's")
