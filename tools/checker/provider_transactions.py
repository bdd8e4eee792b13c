"""The payment provider's books, as an operator's command reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import httpx

from shop.adapters.payment_provider.factory import open_provider
from shop.adapters.payment_provider.protocol import ProviderTransaction
from shop.primitives.errors import Unavailable
from tools.checker.evaluate import Outside, books_as_outside, each_once

TIMEOUT_SECONDS = 30.0
PAGE = 500


@dataclass(frozen=True, repr=False)
class ProviderAccess:
    """Where the books are: ``kind`` as in PAYMENT_PROVIDER, and the key that opens them."""

    kind: str
    url: str
    api_key: str


def entries(
    access: ProviderAccess, *, since: datetime | None = None, until: datetime | None = None
) -> Iterator[ProviderTransaction]:
    """Every movement of money that the provider lists from ``since`` to ``until``, each once.

    A little more may come at either end.  Without ``since`` Stripe lists its last seven days.
    Raises ValueError for an access that cannot be, Unavailable when the books cannot be read.
    """
    provider = open_provider(access.kind, access.url, access.api_key, TIMEOUT_SECONDS)
    seen: set[tuple[str, str, str]] = set()
    cursor, has_more = _first_cursor(access, since), True
    while has_more:
        page = provider.list_since(cursor, PAGE)
        for entry in page.entries:
            name = (entry.kind, entry.key, entry.provider_ref)
            if name not in seen:
                seen.add(name)
                yield entry
        cursor, has_more = page.next_cursor, page.has_more
        if until and page.entries and min(entry.at for entry in page.entries) > until:
            return


def _first_cursor(access: ProviderAccess, since: datetime | None) -> str:
    """Stripe's cursor is a moment; the sandbox counts from its first entry."""
    return str(int(since.timestamp())) if since and access.kind == "stripe" else ""


def outside(access: ProviderAccess) -> Outside:
    """What the invariants compare with: all charges and refunds that the provider knows.

    The sandbox shows refused and voided charges too; other providers only where money moved.
    """
    if access.kind == "sandbox":
        return Outside(*_sandbox_books(access))
    charges: dict[str, tuple[str, int | None, str]] = {}
    refunds: list[tuple[str, str, int]] = []
    for entry in entries(access):
        if entry.kind == "refund":
            refunds.append((entry.key, entry.charge_key, entry.amount_minor))
            continue
        key = f"{entry.key} again {len(charges)}" if entry.key in charges else entry.key
        charges[key] = (key, entry.amount_minor, "CAPTURED")
    return Outside(tuple(charges.values()), each_once(refunds))


def _sandbox_books(
    access: ProviderAccess,
) -> tuple[tuple[tuple[str, int | None, str], ...], tuple[tuple[str, str, int], ...]]:
    headers = {"Authorization": f"Bearer {access.api_key}"}
    try:
        answer = httpx.get(
            f"{access.url.rstrip('/')}/books", headers=headers, timeout=TIMEOUT_SECONDS
        )
        answer.raise_for_status()
        books = answer.json()
        return books_as_outside(books["intents"], books["refunds"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        raise Unavailable(f"the payment provider's books: {error}") from error
