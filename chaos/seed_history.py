"""Writes paid orders of past days, so that ``settle`` has days to close during a run.

The rows, the ledger's hash chains and the provider's transactions are as the shop would have
written them, so the invariants hold from the start.  The days are older than the retention of
events.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import LiteralString, TypedDict
from uuid import UUID

import httpx
import psycopg
from psycopg.rows import TupleRow

from chaos.environment import Environment
from shop.primitives.clock import utc_now
from shop.primitives.ids import new_uuid
from tools.local_platform.broker import LocalBrokerClass

FIRST_DAYS_AGO = 40
# A process that is killed after it has published is killed at its first day, or, where a thread
# publishes (ADR 33), some days later.
DAYS_PER_KILL = {LocalBrokerClass.LOCAL: 2, LocalBrokerClass.IMC: 6}
CALL_SECONDS = 10.0

CUSTOMER: LiteralString = "select user_id from shop.users where email = 'customer@shop.local'"
PRODUCT: LiteralString = "select product_id, price_minor, currency::text from shop.products limit 1"
ORDER: LiteralString = """
insert into shop.orders (order_id, user_id, status, total_minor, currency, payment_method,
  created_at, updated_at, expires_at, hard_expires_at)
values (%(order_id)s, %(user_id)s, 'PAID', %(price)s, %(currency)s, 'CARD', %(at)s, %(at)s, %(at)s,
  %(at)s)
"""
LINE: LiteralString = """
insert into shop.order_lines (order_id, user_id, product_id, qty, unit_price_minor)
values (%(order_id)s, %(user_id)s, %(product_id)s, 1, %(price)s)
"""
RESERVATION: LiteralString = """
insert into shop.reservations (reservation_id, order_id, product_id, qty, status)
values (%(reservation_id)s, %(order_id)s, %(product_id)s, 1, 'COMMITTED')
"""
STOCK: LiteralString = (
    "update shop.stock set on_hand = on_hand - 1 where product_id = %(product_id)s"
)
STOCK_MOVE: LiteralString = """
insert into shop.stock_moves (product_id, kind, qty, reservation_id, moved_at)
values (%(product_id)s, 'COMMIT', -1, %(reservation_id)s, %(at)s)
"""
PAYMENT: LiteralString = """
insert into shop.payments (payment_id, order_id, user_id, attempt, status, amount_minor, currency,
  payment_method, provider_key, created_at, updated_at, charge_not_after, next_try_at)
values (%(payment_id)s, %(order_id)s, %(user_id)s, 1, 'CAPTURED', %(price)s, %(currency)s, 'CARD',
  %(provider_key)s, %(at)s, %(at)s, %(at)s, %(at)s)
"""
# The ledger's trigger sets every posting's time to now, so its work is done by these statements.
DISABLE_TRIGGERS: LiteralString = "set local session_replication_role = replica"
POSTING: LiteralString = """
insert into shop.ledger (seq, kind, source_id, order_id, debit, credit, amount_minor, currency,
  posted_at, chain, chain_seq, prev_hash, hash) overriding system value
select n.seq, 'CAPTURE', %(payment_id)s::uuid, %(order_id)s::uuid, 'psp_receivable',
  'order_escrow', %(price)s::bigint, %(currency)s::text, %(at)s::timestamptz,
  h.chain, h.chain_seq + 1, h.hash,
  sha256(h.hash || convert_to(concat_ws('|', h.chain, h.chain_seq + 1, n.seq, 'CAPTURE',
    %(payment_id)s::uuid, %(order_id)s::uuid, 'psp_receivable', 'order_escrow', %(price)s::bigint,
    %(currency)s::text, (extract(epoch from %(at)s::timestamptz) * 1000000)::bigint), 'UTF8'))
from nextval(pg_get_serial_sequence('shop.ledger', 'seq')) as n(seq), shop.ledger_chains h
where h.chain = get_byte(uuid_send(%(order_id)s::uuid), 15) %% 16
"""
KEYS: LiteralString = """
insert into shop.ledger_keys (seq, kind, source_id, chain, chain_seq)
select seq, kind, source_id, chain, chain_seq from shop.ledger where order_id = %(order_id)s
"""
CHAIN: LiteralString = """
update shop.ledger_chains h set chain_seq = l.chain_seq, hash = l.hash from shop.ledger l
where l.source_id = %(payment_id)s and l.chain = h.chain
"""
ENABLE_TRIGGERS: LiteralString = "set local session_replication_role = origin"
TRANSITIONS: LiteralString = """
insert into shop.transitions (entity, entity_id, order_id, from_status, to_status, actor, at)
values ('order', %(order_id)s, %(order_id)s, '-', 'PENDING', 'history', %(at)s),
  ('reservation', %(reservation_id)s, %(order_id)s, '-', 'HELD', 'history', %(at)s),
  ('payment', %(payment_id)s, %(order_id)s, '-', 'INTENT', 'history', %(at)s),
  ('payment', %(payment_id)s, %(order_id)s, 'INTENT', 'CAPTURED', 'history', %(at)s),
  ('order', %(order_id)s, %(order_id)s, 'PENDING', 'PAID', 'history', %(at)s),
  ('reservation', %(reservation_id)s, %(order_id)s, 'HELD', 'COMMITTED', 'history', %(at)s)
"""
WRITE = (
    ORDER,
    LINE,
    RESERVATION,
    STOCK,
    STOCK_MOVE,
    PAYMENT,
    DISABLE_TRIGGERS,
    POSTING,
    KEYS,
    CHAIN,
    ENABLE_TRIGGERS,
    TRANSITIONS,
)


class Sale(TypedDict):
    """The parameters of the statements for one paid order."""

    order_id: UUID
    payment_id: UUID
    reservation_id: UUID
    provider_key: str
    user_id: int
    product_id: int
    price: int
    currency: str
    at: datetime


async def write_history(environment: Environment) -> None:
    """Writes one paid order on each of as many past days as the kills of ``settle`` need."""
    days_per_kill = DAYS_PER_KILL[environment.platform.broker.broker_class]
    days = days_per_kill * environment.tier.kills_per_pair + 2
    async with environment.database() as database:
        sales = [await _sale(database, FIRST_DAYS_AGO + number) for number in range(days)]
        for sale in sales:
            async with database.transaction():
                for statement in WRITE:
                    await database.execute(statement, sale)
    headers = {"authorization": f"Bearer {environment.secrets.provider_api_key}"}
    async with httpx.AsyncClient(
        base_url=environment.provider_url, headers=headers, timeout=CALL_SECONDS
    ) as provider:
        for sale in sales:
            await _charge(provider, sale)


async def _sale(database: psycopg.AsyncConnection[TupleRow], days_ago: int) -> Sale:
    customer = await (await database.execute(CUSTOMER)).fetchone()
    product = await (await database.execute(PRODUCT)).fetchone()
    assert customer is not None and product is not None, "tools.seed creates both"
    payment_id = new_uuid()
    return Sale(
        order_id=new_uuid(),
        payment_id=payment_id,
        reservation_id=new_uuid(),
        provider_key=f"shop:{payment_id}",
        user_id=customer[0],
        product_id=product[0],
        price=product[1],
        currency=product[2],
        at=utc_now() - timedelta(days=days_ago),
    )


async def _charge(provider: httpx.AsyncClient, sale: Sale) -> None:
    """Creates and confirms the charge at the payment simulator."""
    key = sale["provider_key"]
    intent = {
        "key": key,
        "amount_minor": sale["price"],
        "currency": sale["currency"],
        "payment_method": "CARD",
        "order_id": str(sale["order_id"]),
        "payment_id": str(sale["payment_id"]),
    }
    (await provider.post("/intents", json=intent)).raise_for_status()
    (await provider.post(f"/intents/{key}/confirm", json={})).raise_for_status()
