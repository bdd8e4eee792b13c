"""Postings with a time of their own: the ledger's trigger books everything now."""

from __future__ import annotations

from uuid import uuid4

import psycopg

from tests.harness import ShopHarness

POST = """
insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, currency,
  posted_at, chain, chain_seq, prev_hash, hash)
select %(kind)s, %(id)s, %(id)s, 'a', 'b', %(amount)s, %(currency)s, %(at)s::timestamptz, 0,
  coalesce(max(chain_seq), 0) + 1, '', '' from shop.ledger
"""


def post(shop: ShopHarness, kind: str, amount: int, at: str, *, currency: str = "KRW") -> None:
    """One posting at a past moment, made past triggers and foreign keys as a restore does it."""
    with psycopg.connect(shop.admin_url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(
            POST,
            {"kind": kind, "id": uuid4(), "amount": amount, "at": at, "currency": currency},
        )
