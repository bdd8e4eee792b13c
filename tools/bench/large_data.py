"""Fills a new shop's database with any number of orders, by set-based SQL.

The rows are those that the functions would have written: every invariant holds, hash chains
included.  Of 20 orders, 17 are paid and delivered, one is cancelled and refunded, one expired and
one declined; every third order has two lines; the newest ``pending`` orders are not paid yet, and
every tenth of them waits for its customer.  Days before yesterday are settled.  The second word of
a product's name is one of 20,000 words of two or three syllables, which are as unequally frequent
as those of a language (Zipf's law).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

import psycopg

# The replica role disables triggers and foreign keys: the rows below need no check.
SETTINGS: LiteralString = """
set session_replication_role = replica;
set synchronous_commit = off;
set work_mem = '256MB';
set timezone = 'UTC'
"""

# UUIDs of version 7, as the functions make them, so that indexes grow as in a shop.
IDS: LiteralString = """
create function pg_temp.made_id(kind text, n bigint, at timestamptz) returns uuid
language sql stable as $$
  select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7'
    || substr(md5(kind || n), 1, 3) || '8' || substr(md5(kind || n), 4, 15))::uuid
$$;
"""

# The hash of a posting contains the one before it: an aggregate over the postings of a chain.
CHAINS: LiteralString = """
create function pg_temp.link(previous bytea, chain int, posting text) returns bytea
language sql immutable as $$
  select sha256(coalesce(previous, sha256(convert_to('msa-shop ledger chain ' || chain, 'UTF8')))
    || convert_to(posting, 'UTF8'))
$$;
create aggregate pg_temp.chained(chain int, posting text) (sfunc = pg_temp.link, stype = bytea);
"""

ACCOUNTS: LiteralString = """
with opened as (
  insert into shop.users (email, email_key, name, password_hash, role)
  select 'large' || n || '@shop.local', 'large' || n || '@shop.local', 'Large', '!', 'customer'
  from generate_series(1, greatest(10, %(orders)s / 10)) n
  returning user_id
), signed_in as (
  insert into shop.sessions (session_id, user_id, expires_at)
  select gen_random_uuid(), user_id, now() + user_id %% 1000 * interval '1 minute' from opened
  returning session_id
)
insert into shop.refresh_tokens (token_hash, session_id)
select sha256(uuid_send(session_id)), session_id from signed_in
"""

LINKS: LiteralString = """
insert into shop.one_time_links (link_id, purpose, user_id, recipient, network, created_at,
  expires_at)
select gen_random_uuid(), 'SET_PASSWORD', user_id, sha256(convert_to(user_id::text, 'UTF8')),
  sha256(convert_to((user_id %% 1000)::text, 'UTF8')),
  now() - user_id %% 1000 * interval '1 second',
  now() + interval '30 minutes'
from shop.users where role = 'customer'
"""

WORDS: LiteralString = """
create function pg_temp.word(rank int) returns text language sql immutable as $$
  select string_agg(
    chr(44032 + ('x' || substr(md5(rank || '/' || k), 1, 4))::bit(16)::int % 11172), '')
  from generate_series(1, 2 + rank % 2) k
$$;
"""

PRODUCTS: LiteralString = """
with category as (
  insert into shop.categories (name) select '분류 ' || n from generate_series(1, 20) n
), product as (
  insert into shop.products (name, description, category, price_minor, currency, created_at,
    translations)
  select concat_ws(' ', (array['무선', '가죽', '접이식', '휴대용', '대형', '수제'])[1 + n / 7 %% 6],
      pg_temp.word(power(20000, n * 0.618034 %% 1)::int),
      (array['의자', '이어폰', '가방', '책상', '자전거', '시계', '상품'])[1 + n %% 7], n),
    repeat('설명 ' || n || ' ', 20), '분류 ' || 1 + n %% 20, 1000 + n %% 9000, 'KRW',
    now() - interval '90 days', case when n %% 10 = 0
      then jsonb_build_object('en', jsonb_build_object('name', 'Chair ' || n)) else '{}' end
  from generate_series(1, %(products)s) n
  returning product_id, price_minor, created_at
), stocked as (
  insert into shop.stock (product_id, on_hand) select product_id, 100000000 from product
), priced as (
  insert into shop.price_changes (product_id, to_minor, changed_at)
  select product_id, price_minor, created_at from product
)
insert into shop.stock_moves (product_id, kind, qty)
select product_id, 'INITIAL', 100000000 from product
"""

CARTS: LiteralString = """
insert into shop.cart_items (user_id, product_id, qty)
select user_id, (select max(product_id) from shop.products) - user_id %% %(products)s, 1
from shop.users where role = 'customer'
"""

# One row per order: how it ended, and its ids.
PLAN: LiteralString = """
create temporary table plan as
select n, at, outcome, pg_temp.made_id('order', n, at) as order_id,
  pg_temp.made_id('payment', n, at) as payment_id,
  pg_temp.made_id('refund', n, at) as refund_id,
  (select max(user_id) from shop.users) - n * 7919 %% greatest(10, %(orders)s / 10) as user_id
from (
  select n, now() - (%(orders)s + 1 - n) * (%(days)s * interval '1 day' / %(orders)s) as at,
    case when n > %(orders)s - %(pending)s and n %% 10 = 0 then 'acting'
      when n > %(orders)s - %(pending)s then 'pending' when n %% 20 = 0 then 'refunded'
      when n %% 20 = 1 then 'expired' when n %% 20 = 2 then 'declined' else 'paid' end as outcome
  from generate_series(1, %(orders)s::bigint) n) o;
create temporary table planned_lines as
select p.n, p.at, p.outcome, p.order_id, p.user_id, l.line, s.product_id, 1 + (n %% 3)::int as qty,
  s.price_minor, pg_temp.made_id('reservation' || l.line, n, at) as reservation_id,
  case when outcome in ('pending', 'acting') then 'HELD' when outcome = 'paid' then 'COMMITTED'
    when outcome = 'refunded' then 'RETURNED' else 'RELEASED' end as status
from plan p
cross join lateral generate_series(0, case when p.n %% 3 = 0 then 1 else 0 end) l(line)
join shop.products s on s.product_id = (select max(product_id) from shop.products)
  - (p.n * 31 + l.line * %(products)s / 2) %% %(products)s;
analyze plan;
analyze planned_lines;
create temporary table totals as
select order_id, sum(qty * price_minor) as total_minor from planned_lines group by order_id;
analyze totals
"""

ORDERS: LiteralString = """
insert into shop.orders (order_id, user_id, status, reason, total_minor, currency, payment_method,
  idem_scope, idem_key, created_at, updated_at, expires_at, hard_expires_at)
select order_id, user_id,
  case when outcome in ('pending', 'acting') then 'PENDING' when outcome = 'paid' then 'PAID'
    else 'CANCELLED' end,
  case outcome when 'refunded' then 'USER' when 'expired' then 'EXPIRED'
    when 'declined' then 'DECLINED' end,
  total_minor, 'KRW', 'CARD', 'POST /orders', 'key-' || n, at, at,
  case when outcome in ('pending', 'acting') then now() else at end + interval '15 minutes',
  case when outcome in ('pending', 'acting') then now() else at end + interval '60 minutes'
from plan join totals using (order_id) order by n;
insert into shop.order_lines (order_id, user_id, product_id, qty, unit_price_minor)
select order_id, user_id, product_id, qty, price_minor from planned_lines order by n, line;
insert into shop.idempotency (user_id, scope, key, fingerprint, state, status_code, headers, body,
  created_at)
select user_id, 'POST /orders', 'key-' || n, sha256(uuid_send(order_id)), 'DONE', 201, '{}',
  convert_to(repeat('{"id":"' || order_id || '"} ', 10), 'UTF8'), at from plan order by n
"""

STOCK: LiteralString = """
insert into shop.reservations (reservation_id, order_id, product_id, qty, status)
select reservation_id, order_id, product_id, qty, status from planned_lines order by n, line;
insert into shop.stock_moves (product_id, kind, qty, reservation_id, moved_at)
select product_id, kind, case kind when 'COMMIT' then -qty else qty end, reservation_id, at
from planned_lines, (values ('COMMIT'), ('RETURN')) k(kind)
where status = 'RETURNED' or (status = 'COMMITTED' and kind = 'COMMIT') order by n, line, kind;
update shop.stock s set on_hand = on_hand - sold, reserved = held
from (select product_id, coalesce(sum(qty) filter (where status = 'COMMITTED'), 0) as sold,
    coalesce(sum(qty) filter (where status = 'HELD'), 0) as held
  from planned_lines group by product_id) l
where s.product_id = l.product_id
"""

MONEY: LiteralString = """
insert into shop.payments (payment_id, order_id, user_id, attempt, status, amount_minor, currency,
  payment_method, provider_key, provider_ref, refund_reserved_minor, created_at, updated_at,
  charge_not_after, next_try_at, action, act_until)
select payment_id, order_id, user_id, 1, case outcome when 'declined' then 'DECLINED'
    when 'acting' then 'REQUIRES_ACTION' else 'CAPTURED' end,
  total_minor, 'KRW', 'CARD', payment_id::text, 'ref-' || n,
  case outcome when 'refunded' then total_minor else 0 end, at, at, at,
  case outcome when 'acting' then now() + interval '15 minutes' else at end,
  case outcome when 'acting' then '{"type": "redirect", "url": "https://pay.example/"}'::jsonb end,
  case outcome when 'acting' then now() + interval '15 minutes' end
from plan join totals using (order_id) where outcome in ('paid', 'refunded', 'declined', 'acting')
order by n;
insert into shop.refunds (refund_id, payment_id, amount_minor, currency, status, reason,
  provider_key, created_at, updated_at, next_try_at)
select refund_id, payment_id, total_minor, 'KRW', 'SUCCEEDED', 'USER', refund_id::text, at, at, at
from plan join totals using (order_id) where outcome = 'refunded' order by n;
"""

LEDGER: LiteralString = """
with posting as (
  select row_number() over (order by n, kind) as seq, kind, order_id, total_minor, at,
    case kind when 'CAPTURE' then payment_id else refund_id end as source_id,
    case kind when 'CAPTURE' then 'psp_receivable' else 'order_escrow' end as debit,
    case kind when 'CAPTURE' then 'order_escrow' else 'psp_receivable' end as credit,
    get_byte(uuid_send(order_id), 15) %% 16 as chain
  from plan join totals using (order_id), (values ('CAPTURE'), ('REFUND')) k(kind)
  where outcome = 'refunded' or (outcome = 'paid' and kind = 'CAPTURE')
), placed as (
  select *, row_number() over (partition by chain order by seq) as chain_seq from posting
), hashed as (
  select *, pg_temp.chained(chain, concat_ws('|', chain, chain_seq, seq, kind, source_id, order_id,
    debit, credit, total_minor, 'KRW', (extract(epoch from at) * 1000000)::bigint))
    over (partition by chain order by seq) as hash
  from placed
)
insert into shop.ledger (seq, kind, source_id, order_id, debit, credit, amount_minor, currency,
  posted_at, chain, chain_seq, prev_hash, hash)
overriding system value
select seq, kind, source_id, order_id, debit, credit, total_minor, 'KRW', at, chain, chain_seq,
  lag(hash, 1, sha256(convert_to('msa-shop ledger chain ' || chain, 'UTF8')))
    over (partition by chain order by seq), hash
from hashed order by seq;
insert into shop.ledger_keys (seq, kind, source_id, chain, chain_seq)
select seq, kind, source_id, chain, chain_seq from shop.ledger order by seq;
select setval(pg_get_serial_sequence('shop.ledger', 'seq'), max(seq)) from shop.ledger;
update shop.ledger_chains c set chain_seq = l.chain_seq, hash = l.hash
from (select distinct on (chain) chain, chain_seq, hash from shop.ledger
  order by chain, chain_seq desc) l
where c.chain = l.chain
"""

SHIPMENTS: LiteralString = """
insert into shop.shipments (shipment_id, order_id, status, carrier, tracking_number, created_at,
  updated_at, shipped_at, delivered_at)
select pg_temp.made_id('shipment', n, at), order_id, 'DELIVERED', 'CJ', 'T-' || n, at, at, at, at
from plan where outcome = 'paid' order by n;
insert into shop.shipment_lines (shipment_id, order_id, product_id, qty)
select pg_temp.made_id('shipment', n, at), order_id, product_id, qty
from planned_lines where outcome = 'paid' order by n, line
"""

# Each status change of an order, in order; those with an event type announce it.
STEPS: LiteralString = """
create temporary table steps as
select n, at, step, entity, from_status, to_status, event_type, order_id,
  case entity when 'order' then order_id when 'payment' then payment_id when 'refund' then refund_id
    when 'shipment' then pg_temp.made_id('shipment', n, at) end as entity_id,
  case when event_type is not null then pg_temp.made_id('event' || step, n, at) end as event_id
from plan join (values
  (1, 'order', '-', 'PENDING', '{pending,acting,paid,refunded,expired,declined}'::text[]),
  (2, 'payment', '-', 'INTENT', '{acting,paid,refunded,declined}'),
  (3, 'payment', 'INTENT', 'CAPTURED', '{paid,refunded}'),
  (4, 'payment', 'INTENT', 'DECLINED', '{declined}'),
  (5, 'order', 'PENDING', 'PAID', '{paid,refunded}'),
  (6, 'order', 'PAID', 'CANCELLING', '{refunded}'),
  (7, 'refund', '-', 'INTENT', '{refunded}'),
  (8, 'refund', 'INTENT', 'SUCCEEDED', '{refunded}'),
  (9, 'order', 'CANCELLING', 'CANCELLED', '{refunded}'),
  (10, 'order', 'PENDING', 'CANCELLED', '{expired,declined}'),
  (11, 'payment', 'INTENT', 'REQUIRES_ACTION', '{acting}'),
  (12, 'shipment', '-', 'PREPARING', '{paid}'),
  (13, 'shipment', 'PREPARING', 'SHIPPED', '{paid}'),
  (14, 'shipment', 'SHIPPED', 'DELIVERED', '{paid}')
) s(step, entity, from_status, to_status, outcomes) on outcome = any(outcomes)
join shop.allowed_transitions using (entity, from_status, to_status);
analyze steps;
insert into shop.transitions (entity, entity_id, order_id, from_status, to_status, event_id, actor,
  at)
select entity, entity_id, order_id, from_status, to_status, event_id, 'system', at from (
  select n, step, entity, entity_id, order_id, from_status, to_status, event_id, at from steps
  union all
  select n, case change when 1 then 1 else 10 end, 'reservation', reservation_id, order_id,
    case change when 1 then '-' when 2 then 'HELD' else 'COMMITTED' end,
    case change when 1 then 'HELD' when 2
      then case status when 'RELEASED' then 'RELEASED' else 'COMMITTED' end else 'RETURNED' end,
    null, at
  from planned_lines cross join lateral generate_series(1, case status when 'HELD' then 1
    when 'RETURNED' then 3 else 2 end) c(change)) t
order by n, step, to_status = 'RETURNED'
"""

EVENTS: LiteralString = """
insert into shop.outbox (event_id, source, type, subject, order_id, data, traceparent, created_at,
  sent_at, done_at, next_try_at)
select event_id, '/shop/sweep', event_type, entity_id::text, order_id,
  jsonb_build_object('orderId', order_id), '00-' || md5(order_id::text) || '-1234567890abcdef-01',
  at, at, at, at
from steps where event_type is not null order by n, step;
insert into shop.inbox (consumer, source, event_id, outcome, received_at)
select consumer, source, event_id::text, 'PROCESSED', created_at
from shop.outbox join shop.subscriptions using (type)
where order_id is not null order by event_id;
insert into shop.mails (event_id, kind, subject_id, status, tries, created_at, updated_at,
  next_try_at)
select event_id, upper(replace(type, '.', '_')), subject, 'SENT', 1, created_at, created_at,
  created_at
from shop.outbox join shop.subscriptions using (type)
where order_id is not null and consumer = 'notify' order by event_id
"""

SETTLEMENTS: LiteralString = """
with posting as (
  select seq, kind, amount_minor, currency, (posted_at at time zone 'Asia/Seoul')::date as day
  from shop.ledger where posted_at < (date_trunc('day', now() at time zone 'Asia/Seoul')
    - interval '1 day') at time zone 'Asia/Seoul'
), closed as (
  insert into shop.settlements (day, currency, captures_minor, refunds_minor, captures, n)
  select day, currency, coalesce(sum(amount_minor) filter (where kind = 'CAPTURE'), 0),
    coalesce(sum(amount_minor) filter (where kind = 'REFUND'), 0),
    count(*) filter (where kind = 'CAPTURE'), count(*)
  from posting group by day, currency
)
insert into shop.settlement_lines (seq, day, currency)
select seq, day, currency from posting order by seq
"""

STATEMENTS: tuple[LiteralString, ...] = (
    ACCOUNTS,
    LINKS,
    PRODUCTS,
    CARTS,
    PLAN,
    ORDERS,
    STOCK,
    MONEY,
    LEDGER,
    SHIPMENTS,
    STEPS,
    EVENTS,
    SETTLEMENTS,
)


def fill(
    url: str,
    *,
    products: int,
    orders: int,
    pending: int = 100,
    days: int = 6,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Fills the new shop at ``url`` (an administrator's) with orders of the last ``days`` days.

    ``on_step`` gets a text about each statement that has ended.
    """
    parameters = {"products": products, "orders": orders, "pending": pending, "days": days}
    with psycopg.connect(url, autocommit=True) as connection:
        for part in (SETTINGS, IDS, CHAINS, WORDS):
            connection.execute(part)
        # values are inserted by the client, since a text of several statements has no parameters
        client = psycopg.ClientCursor(connection)
        for number, statement in enumerate(STATEMENTS, start=1):
            client.execute(statement, parameters)
            on_step(f"filled by {number} of {len(STATEMENTS)} statements")
        connection.execute("vacuum analyze")
