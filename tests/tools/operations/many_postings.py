"""Fills a ledger with any number of postings inside PostgreSQL, without orders."""

from __future__ import annotations

import psycopg

# Hashes are kept in variables, because updating ledger_chains for every posting would be slow.  The
# replica role disables triggers and foreign keys, so the postings need no orders.
FILL = """
do $$
declare
  heads bytea[] := array(select hash from shop.ledger_chains order by chain);
  places bigint[] := array(select chain_seq from shop.ledger_chains order by chain);
  first bigint := (select coalesce(max(seq), 0) from shop.ledger);
  day timestamptz := timestamptz '2026-03-01 00:00:00+09';
  posting record;
  link bytea;
begin
  set local session_replication_role = replica;
  for posting in
    select first + n as seq, gen_random_uuid() as source_id, gen_random_uuid() as order_id,
      1000 + n % 9000 as amount_minor, 'KRW'::char(3) as currency,
      day + n * interval '0.037001 seconds' as posted_at
    from generate_series(1, __ROWS__) n
  loop
    declare chain smallint := get_byte(uuid_send(posting.order_id), 15) % 16;
    begin
      places[chain + 1] := places[chain + 1] + 1;
      link := sha256(heads[chain + 1] || convert_to(concat_ws('|', chain, places[chain + 1],
        posting.seq, 'CAPTURE', posting.source_id, posting.order_id, 'psp_receivable',
        'order_escrow', posting.amount_minor, posting.currency,
        (extract(epoch from posting.posted_at) * 1000000)::bigint), 'UTF8'));
      insert into shop.ledger (seq, kind, source_id, order_id, debit, credit, amount_minor,
        currency, posted_at, chain, chain_seq, prev_hash, hash)
      overriding system value values (posting.seq, 'CAPTURE', posting.source_id,
        posting.order_id, 'psp_receivable', 'order_escrow', posting.amount_minor,
        posting.currency, posting.posted_at, chain, places[chain + 1], heads[chain + 1], link);
      insert into shop.ledger_keys (seq, kind, source_id, chain, chain_seq)
      values (posting.seq, 'CAPTURE', posting.source_id, chain, places[chain + 1]);
      heads[chain + 1] := link;
    end;
  end loop;
  for n in 0..15 loop
    update shop.ledger_chains set chain_seq = places[n + 1], hash = heads[n + 1] where chain = n;
  end loop;
end $$
"""


def fill_ledger(admin_url: str, rows: int) -> None:
    """Appends ``rows`` postings without orders; every chain is valid afterwards."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(FILL.replace("__ROWS__", str(int(rows))).encode())
        connection.execute("analyze shop.ledger")
