"""Ledger postings at a given time; the ledger's trigger would set the present time."""

from __future__ import annotations

from uuid import UUID, uuid4

import psycopg

from tests.harness import ShopHarness

INSERT_POSTING = """
with posting as (
  insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, currency,
    posted_at, chain, chain_seq, prev_hash, hash)
  select %(kind)s, %(id)s, coalesce(%(order_id)s::uuid, %(id)s), 'a', 'b', %(amount)s,
    %(currency)s, %(at)s::timestamptz, 0, coalesce(max(chain_seq), 0) + 1, '', '' from shop.ledger
  returning seq, kind, source_id, chain, chain_seq)
insert into shop.ledger_keys (seq, kind, source_id, chain, chain_seq)
select seq, kind, source_id, chain, chain_seq from posting
"""


def insert_posting(
    shop: ShopHarness,
    kind: str,
    amount: int,
    at: str,
    *,
    currency: str = "KRW",
    source_id: UUID | None = None,
    order_id: str | None = None,
) -> None:
    """Inserts one posting at any time, with triggers and foreign keys disabled."""
    with psycopg.connect(shop.admin_url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(
            INSERT_POSTING,
            {
                "kind": kind,
                "id": source_id or uuid4(),
                "order_id": order_id,
                "amount": amount,
                "at": at,
                "currency": currency,
            },
        )
