"""The invariants of the shop's data as queries: each returned row is a violation.

I-invariants hold in every snapshot, Q-invariants in addition when no work is pending.  Tables
without a schema are temporary: they have the records of the provider and of clients, which
``evaluate`` loads first (``EXTERNAL_TABLES``).  docs/design/correctness.md lists all invariants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString


@dataclass(frozen=True)
class Invariant:
    """A rule about the data, and a query for the rows that break it."""

    id: str
    what: str
    query: LiteralString

    @property
    def at_rest_only(self) -> bool:
        """True when the rule holds only when no work is pending."""
        return self.id.startswith("Q-")


# The provider's transactions, the HTTP attempts of clients, and the injected invalid events.
EXTERNAL_TABLES: LiteralString = """
create temporary table if not exists psp_charges
  (key text primary key, amount_minor bigint, status text);
create temporary table if not exists psp_refunds
  (key text primary key, charge_key text, amount_minor bigint);
create temporary table if not exists psp_disputes
  (key text, charge_key text, kind text, amount_minor bigint, primary key (key, kind));
create temporary table if not exists client_ops
  (op bigint generated always as identity primary key, user_id bigint, scope text, key text,
   status_code int, body_sha256 text, order_id uuid);
create temporary table if not exists injected_poison (event_id text, source text);
truncate psp_charges, psp_refunds, psp_disputes, client_ops, injected_poison;
"""

INVARIANTS = (
    Invariant(
        "I-01",
        "stock is never negative, and never more is reserved than on hand",
        """
select product_id from shop.stock where on_hand < 0 or reserved < 0 or reserved > on_hand
""",
    ),
    Invariant(
        "I-02",
        "stock.reserved is the sum of HELD reservations",
        """
select s.product_id from shop.stock s
left join shop.reservations r on r.product_id = s.product_id and r.status = 'HELD'
group by s.product_id, s.reserved having s.reserved <> coalesce(sum(r.qty), 0)
""",
    ),
    Invariant(
        "I-03",
        "stock.on_hand is the sum of all stock moves",
        """
select s.product_id from shop.stock s left join shop.stock_moves m using (product_id)
group by s.product_id, s.on_hand having s.on_hand <> coalesce(sum(m.qty), 0)
""",
    ),
    Invariant(
        "I-04",
        "no oversell: the reserved and sold quantity never exceeds the stocked quantity, "
        "as adjusted by staff",
        """
select o.product_id from (select product_id, sum(qty - returned_qty) n from shop.reservations
  where status in ('HELD', 'COMMITTED') group by 1) o
left join (select product_id, sum(qty) n from shop.stock_moves
  where kind not in ('COMMIT', 'RETURN', 'LINE_RETURN') group by 1) i using (product_id)
where o.n > coalesce(i.n, 0)
""",
    ),
    Invariant(
        "I-05",
        "a reservation has exactly the stock moves of its status",
        """
select r.reservation_id from shop.reservations r
left join shop.stock_moves m using (reservation_id)
group by r.reservation_id, r.status, r.qty, r.returned_qty
having coalesce(sum(m.qty) filter (where m.kind = 'COMMIT'), 0)
    <> case when r.status in ('COMMITTED', 'RETURNED') then -r.qty else 0 end
  or coalesce(sum(m.qty) filter (where m.kind = 'RETURN'), 0)
    <> case when r.status = 'RETURNED' then r.qty - r.returned_qty else 0 end
""",
    ),
    Invariant(
        "I-06",
        "each order line has one reservation of its quantity, in the status that the "
        "order requires",
        """
select l.order_id from shop.order_lines l join shop.orders o using (order_id)
left join shop.reservations r using (order_id, product_id)
where r.reservation_id is null or r.qty <> l.qty or not case o.status
  when 'PENDING' then r.status = 'HELD' when 'PAID' then r.status = 'COMMITTED'
  when 'REFUNDED' then r.status in ('COMMITTED', 'RETURNED')
  else r.status in ('RELEASED', 'RETURNED') end
""",
    ),
    Invariant(
        "I-07",
        "an order has lines, and its total is their sum, less discounts, with shipping",
        """
select o.order_id from shop.orders o left join shop.order_lines l using (order_id)
group by o.order_id, o.total_minor
having o.total_minor is distinct from sum(l.qty::bigint * l.unit_price_minor) + (
  select coalesce(sum(p.amount_minor), 0) from shop.order_price_lines p
  where p.order_id = o.order_id and p.kind <> 'GOODS')
""",
    ),
    Invariant(
        "I-08",
        "a payment is for exactly the order's total, in its currency",
        """
select p.payment_id from shop.payments p join shop.orders o using (order_id)
where p.amount_minor <> o.total_minor or p.currency <> o.currency
""",
    ),
    Invariant(
        "I-09",
        "at most one open payment and one settling payment per order; late captures have a refund",
        """
select order_id from shop.payments group by order_id
having count(*) filter (where status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')) > 1
  or count(*) filter (where status = 'CAPTURED' and not late) > 1
union all
select p.order_id from shop.payments p where p.late and (p.status <> 'CAPTURED'
  or p.amount_minor > (select coalesce(sum(r.amount_minor), 0) from shop.refunds r
    where r.payment_id = p.payment_id))
""",
    ),
    Invariant(
        "I-10",
        "an order is PAID or REFUNDED only with one settling payment; a PENDING order has none",
        """
select o.order_id from shop.orders o
left join shop.payments p on p.order_id = o.order_id and p.status = 'CAPTURED' and not p.late
group by o.order_id, o.status
having (o.status in ('PAID', 'REFUNDED') and count(p.payment_id) <> 1)
  or (o.status = 'PENDING' and count(p.payment_id) <> 0)
""",
    ),
    Invariant(
        "I-11",
        "every charge at the provider has a payment row of the same amount, or is a "
        "recorded unmatched charge",
        """
select c.key from psp_charges c left join shop.payments p on p.provider_key = c.key
left join shop.unmatched_charges g on g.provider_key = c.key
where coalesce(p.provider_key, g.provider_key) is null
  or (c.status = 'CAPTURED' and c.amount_minor <> coalesce(p.amount_minor, g.amount_minor))
""",
    ),
    Invariant(
        "I-12",
        "refunds never exceed the capture, and refund_reserved_minor is their sum",
        """
select p.payment_id from shop.payments p
left join shop.refunds r
  on r.payment_id = p.payment_id and r.status not in ('REJECTED', 'REVERSED')
group by p.payment_id, p.status, p.amount_minor, p.refund_reserved_minor
having coalesce(sum(r.amount_minor), 0) <> p.refund_reserved_minor
  or coalesce(sum(r.amount_minor), 0)
    > case when p.status = 'CAPTURED' then p.amount_minor else 0 end
""",
    ),
    Invariant(
        "I-13",
        "the ledger has exactly one posting per capture, refund and reversal, with the same "
        "amount; each posting has its keys",
        """
select coalesce(p.payment_id, l.source_id)
from (select payment_id, order_id, amount_minor, currency from shop.payments
  where status = 'CAPTURED') p
full join (select * from shop.ledger where kind = 'CAPTURE') l on l.source_id = p.payment_id
where p.payment_id is null or l.source_id is null or p.amount_minor <> l.amount_minor
  or p.order_id <> l.order_id or p.currency <> l.currency
union all
select coalesce(r.refund_id, l.source_id)
from (select * from shop.refunds where status in ('SUCCEEDED', 'REVERSED')) r
full join (select * from shop.ledger
  where kind in ('REFUND', 'REFUND_BY_OTHER_MEANS', 'WRITE_OFF')) l on l.source_id = r.refund_id
where r.refund_id is null or l.source_id is null or r.amount_minor <> l.amount_minor
  or r.currency <> l.currency or l.kind <> case r.means when 'PROVIDER' then 'REFUND'
    when 'OTHER_MEANS' then 'REFUND_BY_OTHER_MEANS' else r.means end
union all
select coalesce(r.refund_id, l.source_id)
from (select * from shop.refunds where status = 'REVERSED') r
full join (select * from shop.ledger where kind = 'REFUND_REVERSED') l on l.source_id = r.refund_id
where r.refund_id is null or l.source_id is null or r.amount_minor <> l.amount_minor
  or r.currency <> l.currency
union all
select source_id from shop.ledger group by kind, source_id having count(*) > 1
union all
select coalesce(l.source_id, k.source_id)
from shop.ledger l full join shop.ledger_keys k using (seq)
where (l.kind, l.source_id, l.chain, l.chain_seq)
  is distinct from (k.kind, k.source_id, k.chain, k.chain_seq)
""",
    ),
    Invariant(
        "I-14",
        "debits equal credits per currency, between the accounts of the posting's kind",
        """
select currency::text from (select currency, amount_minor a from shop.ledger
  union all select currency, -amount_minor from shop.ledger) x
group by currency having sum(a) <> 0
union all
select seq::text from shop.ledger where (kind, debit, credit) not in (
  ('CAPTURE', 'psp_receivable', 'order_escrow'), ('REFUND', 'order_escrow', 'psp_receivable'),
  ('REFUND_REVERSED', 'psp_receivable', 'order_escrow'),
  ('REFUND_BY_OTHER_MEANS', 'order_escrow', 'other_means'),
  ('WRITE_OFF', 'order_escrow', 'written_off'),
  ('DISPUTE', 'disputed_funds', 'psp_receivable'),
  ('DISPUTE_REVERSAL', 'psp_receivable', 'disputed_funds'),
  ('DISPUTE_FEE', 'dispute_fees', 'psp_receivable'),
  ('DISPUTE_FEE_REVERSAL', 'psp_receivable', 'dispute_fees'))
union all
select order_id::text from shop.ledger group by order_id
having sum(case 'order_escrow' when credit then amount_minor when debit then -amount_minor
  else 0 end) < 0
""",
    ),
    # Of two concurrent inserts with "on conflict do nothing" the later removes its row again, which
    # the statistics count as a deletion, as they count the move of rows into a month that was
    # missing.  Triggers reject real deletions.
    Invariant(
        "I-15",
        "append-only tables were never updated or deleted from (statistics, reset by a crash)",
        """
select s.relname::text from pg_stat_user_tables s
join pg_class t on t.oid = coalesce(pg_partition_root(s.relid), s.relid)
where s.schemaname = 'shop' and t.relname in ('ledger', 'ledger_keys', 'stock_moves',
    'transitions', 'settlements', 'settlement_batches', 'settlement_lines', 'inbox',
    'unmatched_charges', 'audit_log', 'price_changes')
  and (s.n_tup_upd > 0 or s.n_tup_del > 0
    and t.relname not in ('inbox', 'settlements', 'unmatched_charges')
    and s.relname <> t.relname || '_without_month')
""",
    ),
    # The current status sorts last, as a row without a next status: in one pass, the statuses that
    # changes began in are then those that the changes before them ended in.
    Invariant(
        "I-16",
        "status changes are legal, form one chain per entity and end in the current status",
        """
select entity_id from (
  select entity, entity_id, seq, from_status, to_status from shop.transitions
  union all select 'order', order_id, null, status, null from shop.orders
  union all select 'payment', payment_id, null, status, null from shop.payments
  union all select 'refund', refund_id, null, status, null from shop.refunds
  union all select 'dispute', dispute_id, null, status, null from shop.disputes
  union all select 'reservation', reservation_id, null, status, null from shop.reservations
  union all select 'shipment', shipment_id, null, status, null from shop.shipments
  union all select 'return', return_id, null, status, null from shop.returns
) s group by entity_id, entity
having string_agg(from_status, ' ' order by seq)
  is distinct from '- ' || string_agg(to_status, ' ' order by seq)
union all
select t.entity_id from shop.transitions t
left join shop.allowed_transitions a using (entity, from_status, to_status) where a.entity is null
""",
    ),
    # Event types without a status change (product.changed, user.registered ...) are not checked;
    # consumed events are deleted after 30 days.
    Invariant(
        "I-17",
        "each status change that has an event has exactly one, and there is no such "
        "event without a change",
        """
with change as (
  select t.entity_id, t.event_id, t.at, a.event_type from shop.transitions t
  join shop.allowed_transitions a using (entity, from_status, to_status)
  where a.event_type is not null
), event as (
  select event_id, type from shop.outbox
  where type in (select event_type from shop.allowed_transitions)
)
select coalesce(e.event_id, c.entity_id) from change c full join event e using (event_id)
where c.event_type is distinct from e.type
  and (c.at is null or c.at > now() - interval '30 days')
union all
select event_id from shop.transitions where event_id is not null
group by event_id having count(*) > 1
""",
    ),
    # Keys are deleted when they are old, or when the account is closed, their orders never.
    Invariant(
        "I-18",
        "one order per user and idempotency key; a finished key has its response",
        """
select user_id::text || idem_key from shop.orders where idem_key is not null
group by user_id, idem_scope, idem_key having count(*) > 1
union all
select key from shop.idempotency
where (state = 'DONE') <> (status_code is not null)
union all
select o.order_id::text from shop.orders o
join shop.users u using (user_id)
left join shop.idempotency i
  on i.user_id = o.user_id and i.scope = o.idem_scope and i.key = o.idem_key
where o.idem_key is not null and o.created_at > now() - shop.retention('idempotency')
  and i.key is null
  and u.state <> 'CLOSED'
""",
    ),
    Invariant(
        "I-19",
        "a settlement equals its lines, as do its batches; each posting is settled at most once, "
        "on its own day; at most one day is settled in part, after all closed ones",
        """
with line as (
  select sl.day, sl.currency, coalesce(sum(l.amount_minor) filter (where kind = 'CAPTURE'), 0) as c,
    coalesce(sum(case when kind in ('REFUND_REVERSED', 'DISPUTE_REVERSAL', 'DISPUTE_FEE_REVERSAL')
        then -l.amount_minor else l.amount_minor end)
      filter (where kind not in ('CAPTURE', 'WRITE_OFF')), 0) as r, count(*) as n,
    count(*) filter (where kind = 'CAPTURE') as captures
  from shop.settlement_lines sl join shop.ledger l using (seq) group by 1, 2
), batch as (
  select day, currency, sum(captures_minor) as c, sum(refunds_minor) as r, sum(n) as n,
    sum(captures) as captures
  from shop.settlement_batches group by 1, 2
)
select s.day::text from shop.settlements s left join line x using (day, currency)
where (s.captures_minor, s.refunds_minor, s.n, s.captures) is distinct from
  (coalesce(x.c, 0), coalesce(x.r, 0), coalesce(x.n, 0), coalesce(x.captures, 0))
union all
select b.day::text from batch b left join line x using (day, currency)
where (b.c, b.r, b.n, b.captures) is distinct from (x.c, x.r, x.n, x.captures)
union all
select x.day::text from line x left join batch b using (day, currency)
left join shop.settlements s using (day, currency)
where s.day is null and (b.day is null or exists (select from shop.settlements c
  where c.day >= x.day) or exists (select from line y where y.day > x.day))
union all
select sl.seq::text from shop.settlement_lines sl join shop.ledger l using (seq)
where l.currency <> sl.currency or sl.day <> (l.posted_at at time zone
  coalesce(nullif(current_setting('shop.business_time_zone', true), ''), 'Asia/Seoul'))::date
union all
select seq::text from shop.settlement_lines group by seq having count(*) > 1
""",
    ),
    Invariant(
        "I-20",
        "every consumed event was produced, or was injected by a fault run",
        """
select i.event_id from shop.inbox i
left join shop.outbox o on o.event_id::text = i.event_id and o.source = i.source
left join injected_poison x on x.event_id = i.event_id
where i.source like '/shop/%' and i.received_at > now() - interval '29 days'
  and o.event_id is null and x.event_id is null
""",
    ),
    Invariant(
        "I-21",
        "each posting is a valid link of its hash chain, and none is missing in between",
        """
with link as (
  select chain, chain_seq, seq, prev_hash, hash, lag(chain_seq, 1, 0::bigint) over w as seq_before,
    lag(hash) over w as hash_before, sha256(prev_hash || convert_to(concat_ws('|',
      get_byte(uuid_send(order_id), 15) % 16, chain_seq, seq, kind, source_id, order_id, debit,
      credit, amount_minor, currency, (extract(epoch from posted_at) * 1000000)::bigint), 'UTF8'))
      as recomputed
  from shop.ledger window w as (partition by chain order by chain_seq)
)
select seq, chain, chain_seq from link
where chain_seq <> seq_before + 1 or hash <> recomputed or prev_hash <> coalesce(hash_before,
  sha256(convert_to('msa-shop ledger chain ' || chain, 'UTF8')))
order by chain, chain_seq
""",
    ),
    Invariant(
        "I-22",
        "the head of each hash chain is its last posting",
        """
with last as (
  select distinct on (chain) chain, chain_seq, hash from shop.ledger order by chain, chain_seq desc
)
select coalesce(n.chain, h.chain) from generate_series(0, 15) n(chain)
full join shop.ledger_chains h on h.chain = n.chain
left join last l on l.chain = h.chain
where n.chain is null or h.chain is null or h.chain_seq <> coalesce(l.chain_seq, 0)
  or h.hash <> coalesce(l.hash,
    sha256(convert_to('msa-shop ledger chain ' || h.chain, 'UTF8')))
""",
    ),
    Invariant(
        "I-23",
        "a cart line is an existing product, in an orderable quantity",
        """
select c.user_id::text || ' ' || c.product_id from shop.cart_items c
left join shop.products p using (product_id) left join shop.users u using (user_id)
where p.product_id is null or u.user_id is null or c.qty not between 1 and 1000
""",
    ),
    # A product without a stock row cannot be ordered or restocked: restocking updates the row.
    Invariant(
        "I-24",
        "each product has a stock row",
        """
select p.product_id from shop.products p left join shop.stock s using (product_id)
where s.product_id is null
""",
    ),
    Invariant(
        "I-25",
        "what a dispute moved belongs to its order, and nothing is paid back that was not taken",
        """
select l.seq::text from shop.ledger l
left join shop.disputes d on d.dispute_id = l.source_id
left join shop.payments p using (payment_id)
where l.kind like 'DISPUTE%' and p.order_id is distinct from l.order_id
union all
select d.dispute_id::text from shop.disputes d join shop.payments p using (payment_id)
left join shop.ledger l on l.order_id = p.order_id and l.source_id = d.dispute_id
group by d.dispute_id, d.currency, p.payment_id, p.status, p.currency
having p.status <> 'CAPTURED' or d.currency <> p.currency
  or coalesce(sum(l.amount_minor) filter (where l.kind = 'DISPUTE'), 0)
    < coalesce(sum(l.amount_minor) filter (where l.kind = 'DISPUTE_REVERSAL'), 0)
  or coalesce(sum(l.amount_minor) filter (where l.kind = 'DISPUTE_FEE'), 0)
    < coalesce(sum(l.amount_minor) filter (where l.kind = 'DISPUTE_FEE_REVERSAL'), 0)
""",
    ),
    # An entry is written in the transaction of its change, so both have the same time.
    Invariant(
        "I-26",
        "every change by an operator since the audit log began has an entry in it, and entries "
        "about refunds and cancellations are true",
        """
select 'audit_log.started' as missing
where not exists (select from shop.audit_log where action = 'audit_log.started')
union all
select r.refund_id::text from shop.refunds r join shop.payments p using (payment_id)
where r.requested_by is not null
  and r.created_at > (select at from shop.audit_log where action = 'audit_log.started')
  and not exists (select from shop.audit_log a where a.object_kind = 'order'
    and a.object_id = p.order_id::text and a.action = 'order.refunded'
    and a.actor_id = r.requested_by and a.at = r.created_at)
union all
select a.object_id from shop.audit_log a
where a.action = 'order.refunded' and not exists (
  select from shop.refunds r join shop.payments p using (payment_id)
  where p.order_id = a.object_id::uuid and r.requested_by = a.actor_id and r.created_at = a.at)
union all
select coalesce(t.order_id::text, a.object_id) from (
  select t.order_id, t.actor, t.at from shop.transitions t join shop.orders o using (order_id)
  where o.reason = 'OPERATOR' and t.entity = 'order' and t.from_status in ('PENDING', 'PAID')
    and t.actor like 'user:%') t
full join (select object_id, 'user:' || actor_id as actor, at from shop.audit_log
  where action = 'order.cancelled') a
  on a.object_id = t.order_id::text and a.actor = t.actor and a.at = t.at
where t.order_id is null or a.object_id is null
union all
select t.entity_id::text from shop.transitions t
where (t.entity = 'shipment' or t.entity = 'return' and t.from_status <> '-')
  and t.actor like 'user:%' and not exists (
  select from shop.audit_log a where a.object_kind = 'order' and a.object_id = t.order_id::text
    and a.action in ('order.shipment_created', 'order.shipment_changed', 'order.cancelled',
      'order.return_changed')
    and 'user:' || a.actor_id = t.actor and a.at = t.at)
union all
select n.note_id::text from shop.notes n
where not exists (select from shop.audit_log a
  where a.object_kind = case when n.order_id is null then 'user' else 'order' end
    and a.object_id = coalesce(n.order_id::text, n.user_id::text)
    and a.action in ('user.noted', 'order.noted', 'order.cancelled')
    and a.after ->> 'noteId' = n.note_id::text
    and a.actor_id = n.author_id and a.at = n.at)
union all
select m.product_id::text from shop.stock_moves m
where m.kind not in ('INITIAL', 'COMMIT', 'RETURN', 'LINE_RETURN')
  and m.moved_at > (select at from shop.audit_log where action = 'audit_log.started')
  and not exists (select from shop.audit_log a where a.object_kind = 'product'
    and a.object_id = m.product_id::text and a.at = m.moved_at
    and (a.after ->> 'quantity')::int = m.qty
    and coalesce(a.after ->> 'reason', 'RESTOCK') = m.kind)
union all
select u.user_id::text from shop.users u
left join (select distinct on (object_id) object_id, after ->> 'role' as role,
    after ->> 'state' as state
  from shop.audit_log where object_kind = 'user' and after ? 'role'
  order by object_id, seq desc) a on a.object_id = u.user_id::text
where u.role <> coalesce(a.role, 'customer')
  or u.state <> 'CLOSED' and u.state <> coalesce(a.state, 'ACTIVE')
union all
select k.session_id::text from shop.api_keys k
where not exists (select from shop.audit_log a where a.object_kind = 'api_key'
  and a.object_id = k.session_id::text and a.action in ('api_key.created', 'api_key.rotated'))
""",
    ),
    # A link, the password and the ends of sessions are written in one transaction, so all have its
    # time.  A link is deleted a day after it expired.
    Invariant(
        "I-27",
        "a one-time link is used at most once, while it is valid; its use verifies the address of "
        "the account, or sets its password and ends every session that was open",
        """
select link_id::text from shop.one_time_links
where uses > 1 or uses > 0 and (ended_at is null or ended_at >= expires_at)
union all
select l.link_id::text from shop.one_time_links l left join shop.users u using (user_id)
where l.uses > 0 and l.purpose = 'SET_PASSWORD'
  and (u.password_changed_at is null or u.password_changed_at < l.ended_at)
union all
select l.link_id::text from shop.one_time_links l left join shop.users u using (user_id)
where l.uses > 0 and l.purpose <> 'SET_PASSWORD' and u.email_verified_at is null
union all
select s.session_id::text from shop.one_time_links l join shop.sessions s using (user_id)
where l.uses > 0 and l.purpose = 'SET_PASSWORD'
  and s.revoked_at is null and s.created_at < l.ended_at
""",
    ),
    # Made from what the tables declare (shop/schema/personal_data.py): the checks see numbers only.
    Invariant(
        "I-28",
        "a closed account has no personal data and no session, and once it is erased nothing else "
        "that its tables declare",
        """
select user_id::text || ' ' || table_name from shop.personal_data_left()
""",
    ),
    # An event that is stored while a webhook is being changed may have a delivery or not.  Events
    # and deliveries are kept for 30 days.
    Invariant(
        "I-29",
        "each event of a webhook's types since it is active has a delivery to it; a delivery was "
        "accepted by its receiver or is due at a time; every attempt is recorded",
        """
select o.event_id::text from shop.webhooks w
join shop.outbox o on o.type = any(w.event_types)
  and o.created_at > greatest(w.active_since + interval '1 minute', now() - interval '29 days')
left join shop.webhook_deliveries d on d.webhook_id = w.webhook_id and d.event_id = o.event_id
where w.state = 'ACTIVE' and d.event_id is null
union all
select d.event_id::text from shop.webhook_deliveries d
where (d.state = 'DELIVERED') <> (d.delivered_at is not null)
  or d.state = 'DELIVERED' and not exists (select from shop.webhook_attempts a
    where a.webhook_id = d.webhook_id and a.event_id = d.event_id and a.number = d.attempts
      and a.status between 200 and 299)
union all
select d.event_id::text from shop.webhook_deliveries d
left join shop.webhook_attempts a using (webhook_id, event_id)
group by d.webhook_id, d.event_id, d.attempts having count(a.number) <> d.attempts
union all
select w.webhook_id::text from shop.webhooks w
where w.state = 'ACTIVE' and exists (select from shop.webhook_deliveries d
    where d.webhook_id = w.webhook_id and d.state = 'PENDING')
  and not exists (select from shop.due_work r
    where r.kind = 'webhook' and r.id = w.webhook_id::text)
""",
    ),
    # The inbox is kept for 60 days and mails for 90.
    Invariant(
        "I-30",
        "each event that notify has consumed has exactly one mail, about the order of the event; "
        "only a mail that was tried is SENT, and none is open after it should have been given up",
        """
select i.event_id from shop.inbox i left join shop.mails m on m.event_id::text = i.event_id
where i.consumer = 'notify' and m.event_id is null
union all
select event_id::text from shop.mails group by event_id having count(*) > 1
union all
select m.event_id::text from shop.mails m
where m.created_at > now() - interval '50 days' and not exists (select from shop.inbox i
  where i.consumer = 'notify' and i.event_id = m.event_id::text)
union all
select m.event_id::text from shop.mails m join shop.outbox o using (event_id)
where o.type in ('order.paid', 'order.cancelled') and m.subject_id <> o.subject
union all
select event_id::text from shop.mails
where status = 'SENT' and (tries = 0 or failure is not null)
  or status in ('PENDING', 'SENDING', 'UNKNOWN') and created_at < now() - interval '3 days'
""",
    ),
    Invariant(
        "I-31",
        "a product's price history is without gaps and ends in its price",
        """
select product_id from (
  select product_id, from_minor,
    lag(to_minor) over (partition by product_id order by seq) as before
  from shop.price_changes) c
where from_minor is distinct from before
union all
select p.product_id from shop.products p where p.price_minor is distinct from (
  select to_minor from shop.price_changes c where c.product_id = p.product_id
  order by seq desc limit 1)
""",
    ),
    Invariant(
        "I-32",
        "open price schedules of a product do not overlap; the active one, and no other, sets its "
        "price, and each sets it once and back once",
        """
select a.schedule_id::text from shop.price_schedules a join shop.price_schedules b
  using (product_id)
where a.schedule_id < b.schedule_id and a.starts_at < b.ends_at and b.starts_at < a.ends_at
  and a.state in ('PLANNED', 'ACTIVE') and b.state in ('PLANNED', 'ACTIVE')
union all
select coalesce(s.schedule_id, p.price_schedule_id)::text
from (select * from shop.price_schedules where state = 'ACTIVE') s
full join (select * from shop.products where price_schedule_id is not null) p
  on p.price_schedule_id = s.schedule_id and p.product_id = s.product_id
where p.price_minor is distinct from s.price_minor
union all
select s.schedule_id::text from shop.price_schedules s
left join shop.price_changes c using (schedule_id)
group by s.schedule_id, s.state
having count(c.seq) > case when s.state in ('PLANNED', 'MISSED') then 0
  when s.state = 'ACTIVE' then 1 else 2 end
""",
    ),
    Invariant(
        "I-33",
        "no more units of a line are in shipments, or cancelled unsent, than were ordered, and "
        "each shipment has lines",
        """
select l.order_id::text from (
  select order_id, product_id, qty from shop.shipment_lines join shop.shipments s
    using (shipment_id, order_id) where s.status <> 'CANCELLED'
  union all select order_id, product_id, qty from shop.return_lines join shop.returns r
    using (return_id, order_id) where r.status = 'UNSENT') l
left join shop.order_lines o on o.order_id = l.order_id and o.product_id = l.product_id
group by l.order_id, l.product_id, o.qty having sum(l.qty) > coalesce(o.qty, 0)
union all
select s.shipment_id::text from shop.shipments s left join shop.shipment_lines l
  on l.shipment_id = s.shipment_id and l.order_id = s.order_id
where l.shipment_id is null
""",
    ),
    # An order that was sent may be REFUNDED meanwhile, and what was sent is not in the stock.
    Invariant(
        "I-34",
        "only a paid order is packed; what was sent belongs to an order that was paid, is not in "
        "the stock, and has a carrier and a number",
        """
select s.shipment_id from shop.shipments s join shop.orders o using (order_id)
where s.status = 'PREPARING' and o.status <> 'PAID'
  or s.status in ('SHIPPED', 'DELIVERED') and (o.status not in ('PAID', 'REFUNDED')
    or s.carrier is null or s.tracking_number is null or s.shipped_at is null)
  or (s.status = 'DELIVERED') <> (s.delivered_at is not null)
union all
select s.shipment_id from shop.shipments s join shop.shipment_lines l using (shipment_id)
join shop.reservations r on r.order_id = l.order_id and r.product_id = l.product_id
where s.status in ('SHIPPED', 'DELIVERED') and r.status <> 'COMMITTED'
""",
    ),
    # A code is accepted before its session is opened.  Sessions are deleted after their time.
    Invariant(
        "I-35",
        "an account names its second factor exactly if it is confirmed, and has opened no more "
        "sessions since than codes were accepted",
        """
select u.user_id::text from shop.users u left join shop.second_factors f using (user_id)
where u.factor_id is distinct from case when f.confirmed_at is not null then f.factor_id end
union all
select f.user_id::text from shop.second_factors f
where f.accepted < (select count(*) from shop.sessions s
  where s.user_id = f.user_id and s.created_at >= f.confirmed_at
    and not exists (select from shop.api_keys k where k.session_id = s.session_id))
""",
    ),
    # A try that had no outcome is followed by another one within five minutes.
    Invariant(
        "I-36",
        "every payment that requires an action has a deadline and ends by it: until the provider "
        "has confirmed that, the payment is due",
        """
select payment_id::text from shop.payments where status = 'REQUIRES_ACTION'
  and (act_until is null or next_try_at > greatest(act_until, updated_at) + interval '5 minutes')
union all
select p.payment_id::text from shop.payments p where p.status = 'REQUIRES_ACTION'
  and not exists (select from shop.due_work d
    where d.kind = 'payment' and d.id = p.payment_id::text)
""",
    ),
    Invariant(
        "I-37",
        "no more units of a line are returned than were sent",
        """
with returned as (
  select l.order_id, l.product_id, sum(l.qty) as qty from shop.return_lines l
  join shop.returns r using (return_id)
  where r.status in ('REQUESTED', 'APPROVED', 'RECEIVED') group by 1, 2
), sent as (
  select l.order_id, l.product_id, sum(l.qty) as qty from shop.shipment_lines l
  join shop.shipments s using (shipment_id)
  where s.status in ('SHIPPED', 'DELIVERED') group by 1, 2
)
select r.order_id from returned r left join sent s using (order_id, product_id)
where r.qty > coalesce(s.qty, 0)
""",
    ),
    # Support may return more of an order than its lines, for instance for a delay.
    Invariant(
        "I-38",
        "no more is given back for a line than was paid for it, nor for all lines of an order than "
        "its refunds; a return that is closed says what of each line",
        """
select l.order_id from shop.return_lines l
join shop.order_lines o using (order_id, product_id)
group by l.order_id, l.product_id, o.qty, o.unit_price_minor
having sum(l.amount_minor) > o.qty * o.unit_price_minor + (
  select coalesce(sum(d.amount_minor), 0) from shop.order_price_lines d
  where d.order_id = l.order_id and d.product_id = l.product_id and d.kind = 'DISCOUNT')
union all
select l.order_id from shop.return_lines l
group by l.order_id having sum(l.amount_minor) > (
  select coalesce(sum(f.amount_minor), 0) from shop.refunds f
  join shop.payments p using (payment_id) where p.order_id = l.order_id)
union all
select r.order_id from shop.returns r left join shop.return_lines l using (return_id)
where (r.status in ('RECEIVED', 'UNSENT')) is distinct from (l.amount_minor is not null)
""",
    ),
    Invariant(
        "I-39",
        "the units that returns restocked are in the stock, each once, and belong to sold lines",
        """
select coalesce(m.product_id, l.product_id)::text
from (select product_id, sum(qty) as qty from shop.stock_moves where kind = 'LINE_RETURN'
  group by 1) m
full join (select product_id, sum(restocked_qty) as qty from shop.return_lines
  where restocked_qty > 0 group by 1) l using (product_id)
where m.qty is distinct from l.qty
union all
select r.reservation_id::text from shop.reservations r
left join (select order_id, product_id, sum(restocked_qty) as qty from shop.return_lines
  where restocked_qty > 0 group by 1, 2) l using (order_id, product_id)
where r.returned_qty <> coalesce(l.qty, 0)
  or r.returned_qty > 0 and r.status not in ('COMMITTED', 'RETURNED')
""",
    ),
    Invariant(
        "I-40",
        "price lines are one for each line of goods, state the VAT of their amounts, and give no "
        "more discount on a product than it costs",
        """
select l.order_id from shop.order_price_lines l
where l.vat_minor <> sign(l.amount_minor)
  * floor(abs(l.amount_minor)::numeric * l.vat_basis_points / (10000 + l.vat_basis_points) + 0.5)
union all
select coalesce(l.order_id, g.order_id)
from (select l.* from shop.order_lines l
  where exists (select from shop.order_price_lines p where p.order_id = l.order_id)) l
full join (select * from shop.order_price_lines where kind = 'GOODS') g
  on g.order_id = l.order_id and g.product_id = l.product_id
where g.amount_minor is distinct from l.qty::bigint * l.unit_price_minor
union all
select order_id from shop.order_price_lines group by order_id, product_id
having sum(amount_minor) < 0 or count(*) filter (where kind <> 'DISCOUNT') > 1
""",
    ),
    Invariant(
        "I-41",
        "no coupon is used more often than it allows, in all or by one customer, and its counter "
        "is the number of uses that orders hold",
        """
select c.code from shop.coupons c
left join (select code, count(*) as held from shop.coupon_uses
  where given_back_at is null group by 1) u using (code)
where c.uses <> coalesce(u.held, 0) or c.uses > c.uses_max
union all
select u.code from shop.coupon_uses u join shop.coupons c using (code)
where u.given_back_at is null group by u.code, u.user_id, c.uses_per_customer_max
having count(*) > c.uses_per_customer_max
""",
    ),
    Invariant(
        "I-42",
        "an order has given its coupons back exactly if it has released its stock unpaid",
        """
select u.order_id from shop.coupon_uses u
where (u.given_back_at is not null) is distinct from exists (
  select from shop.reservations r where r.order_id = u.order_id and r.status = 'RELEASED')
""",
    ),
    # Divided as ``price_lines.divide`` does: each part is the difference of two rounded shares.
    Invariant(
        "I-43",
        "a discount is what the terms of the order's coupons give, divided among its goods",
        """
select u.order_id from (
  select u.order_id, u.discount_minor, c.discount_minor as amount, c.goods_min_minor,
    g.minor * c.discount_basis_points / 10000 as part, c.discount_max_minor as most,
    g.minor as goods, c.currency <> o.currency as is_foreign,
    not c.combinable and count(*) over (partition by u.order_id) > 1 as is_beside_another,
    coalesce(sum(u.discount_minor) over (partition by u.order_id order by u.code collate "C"
      rows between unbounded preceding and 1 preceding), 0) as taken
  from shop.coupon_uses u join shop.coupons c using (code) join shop.orders o using (order_id)
  join (select order_id, sum(qty::bigint * unit_price_minor)::bigint as minor
    from shop.order_lines group by 1) g using (order_id)) u
where discount_minor <> least(coalesce(amount, least(part, most)), goods - taken)
  or goods < goods_min_minor or is_foreign or is_beside_another
union all
select coalesce(g.order_id, d.order_id) from (
  select order_id, product_id,
    minor * upto / whole - minor * (upto - amount_minor) / whole as minor
  from (select order_id, product_id, amount_minor,
      sum(amount_minor) over (partition by order_id order by line)::bigint as upto,
      sum(amount_minor) over (partition by order_id)::bigint as whole
    from shop.order_price_lines where kind = 'GOODS') l
  join (select order_id, sum(discount_minor)::bigint as minor
    from shop.coupon_uses group by 1) u using (order_id)) g
full join (select order_id, product_id, -amount_minor as minor
  from shop.order_price_lines where kind = 'DISCOUNT') d using (order_id, product_id)
where coalesce(g.minor, 0) <> coalesce(d.minor, 0)
""",
    ),
    Invariant(
        "I-44",
        "a customer has at most 20 saved addresses",
        """
select user_id::text from shop.saved_addresses group by user_id having count(*) > 20
""",
    ),
    # As ``price_lines.fee_of`` does.  The checks see no address, so the region is the order's own.
    Invariant(
        "I-45",
        "shipping costs what the version of the order's fee says for its goods, less discounts, "
        "and its region; an order without a version has no fee",
        """
select o.order_id from shop.orders o
left join shop.shipping_fees f on f.version = o.shipping_version
left join (select order_id, sum(amount_minor) as minor, min(vat_basis_points) as rate
  from shop.order_price_lines where kind = 'SHIPPING' group by 1) s using (order_id)
where (o.shipping_version is not null or s.minor is not null) and (f.version is null
  or f.currency <> o.currency or s.rate <> f.vat_basis_points
  or coalesce(s.minor, 0) <> case when f.free_from_minor <= (
      select sum(g.amount_minor) from shop.order_price_lines g
      where g.order_id = o.order_id and g.kind <> 'SHIPPING') then 0 else f.amount_minor end
    + case when o.shipping_region is null then 0
      else coalesce((f.surcharges -> o.shipping_region ->> 'amount')::bigint, -1) end)
""",
    ),
    # ------------------------------------------------------------ only when no work is pending
    # What a failed refund left to return stays for an operator, who refunds it again, by other
    # means, or writes it off.
    Invariant(
        "Q-01",
        "every order is PAID, REFUNDED or CANCELLED, except while an operator or an open dispute "
        "decides about its money",
        """
select o.order_id from shop.orders o where o.status not in ('PAID', 'REFUNDED', 'CANCELLED')
  and not exists (select from shop.payments p join shop.disputes d using (payment_id)
    where p.order_id = o.order_id and d.status = 'OPEN')
  and not exists (select from shop.payments p join shop.refunds r using (payment_id)
    where p.order_id = o.order_id and p.refund_reserved_minor < p.amount_minor
      and r.status in ('REJECTED', 'REVERSED'))
""",
    ),
    Invariant(
        "Q-02",
        "no payment or refund is open",
        """
select payment_id from shop.payments where status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')
union all
select refund_id from shop.refunds where status in ('INTENT', 'UNKNOWN')
""",
    ),
    Invariant(
        "Q-03",
        "no stock is reserved",
        """
select reservation_id::text from shop.reservations where status = 'HELD'
union all
select product_id::text from shop.stock where reserved <> 0
""",
    ),
    Invariant(
        "Q-04",
        "a cancelled or refunded order keeps no money, except what an operator has to return",
        """
with lost as (
  select p.order_id, sum(case l.kind when 'DISPUTE' then l.amount_minor else -l.amount_minor end)
    as minor
  from shop.disputes d join shop.payments p using (payment_id)
  join shop.ledger l on l.order_id = p.order_id and l.source_id = d.dispute_id
  where d.status = 'LOST' and l.kind in ('DISPUTE', 'DISPUTE_REVERSAL')
  group by p.order_id
)
select o.order_id from shop.orders o left join shop.ledger l using (order_id)
left join lost using (order_id)
where o.status in ('CANCELLED', 'REFUNDED')
  and not exists (select from shop.payments p join shop.refunds r using (payment_id)
    where p.order_id = o.order_id and p.refund_reserved_minor < p.amount_minor
      and r.status in ('REJECTED', 'REVERSED'))
group by o.order_id, lost.minor
having coalesce(sum(case 'order_escrow' when l.credit then l.amount_minor
  when l.debit then -l.amount_minor else 0 end), 0) > coalesce(lost.minor, 0)
""",
    ),
    Invariant(
        "Q-05",
        "a paid order keeps its total less its refunds",
        """
with refunded as (
  select p.order_id, sum(r.amount_minor) as minor from shop.refunds r
  join shop.payments p using (payment_id)
  where r.status = 'SUCCEEDED' and not p.late group by p.order_id
)
select o.order_id from shop.orders o join shop.ledger l using (order_id)
left join refunded g using (order_id)
where o.status = 'PAID'
  and not exists (select from shop.payments p join shop.refunds r using (payment_id)
    where p.order_id = o.order_id and p.late and p.refund_reserved_minor < p.amount_minor
      and r.status in ('REJECTED', 'REVERSED'))
group by o.order_id, o.total_minor, g.minor
having sum(case 'order_escrow' when l.credit then l.amount_minor when l.debit then -l.amount_minor
  else 0 end) <> o.total_minor - coalesce(g.minor, 0)
""",
    ),
    Invariant(
        "Q-06",
        "the provider has the same charges, refunds and movements of disputes",
        """
select coalesce(p.provider_key, c.key) from shop.payments p
full join psp_charges c on c.key = p.provider_key
where (p.status = 'CAPTURED') is distinct from (coalesce(c.status, '') = 'CAPTURED')
  and not (p.payment_id is null
    and exists (select from shop.unmatched_charges g where g.provider_key = c.key))
union all
select g.provider_key from shop.unmatched_charges g
left join psp_charges c on c.key = g.provider_key and c.status = 'CAPTURED'
where coalesce(c.amount_minor, 0) <> g.amount_minor or g.amount_minor <> coalesce((
  select sum(r.amount_minor) from psp_refunds r where r.charge_key = g.provider_key), 0)
union all
select coalesce(r.provider_key, c.key) from (select * from shop.refunds where means = 'PROVIDER') r
full join psp_refunds c on c.key = r.provider_key
where ((coalesce(r.status, '') = 'SUCCEEDED') <> (c.key is not null)
    or (c.key is not null and c.amount_minor <> r.amount_minor))
  and not (r.refund_id is null
    and exists (select from shop.unmatched_charges g where g.provider_key = c.charge_key))
union all
select coalesce(o.provider_ref, m.key) from (
  select d.provider_ref, l.kind, l.amount_minor from shop.disputes d
  join shop.payments p using (payment_id)
  join shop.ledger l on l.order_id = p.order_id and l.source_id = d.dispute_id) o
full join psp_disputes m on m.key = o.provider_ref and m.kind = o.kind
where o.amount_minor is distinct from m.amount_minor
  and not (o.provider_ref is null
    and exists (select from shop.unmatched_charges g where g.provider_key = m.charge_key))
""",
    ),
    Invariant(
        "Q-07",
        "every event was sent, and every subscriber consumed it",
        """
select o.event_id::text || ' ' || s.consumer from shop.outbox o
join shop.subscriptions s using (type)
left join shop.inbox i on i.consumer = s.consumer and i.source = o.source
  and i.event_id = o.event_id::text
where i.event_id is null or o.sent_at is null or o.done_at is null
union all
select event_id::text from shop.outbox where sent_at is null or done_at is null
""",
    ),
    Invariant(
        "Q-08",
        "no idempotency key is unfinished",
        """
select key from shop.idempotency where state <> 'DONE'
""",
    ),
    Invariant(
        "Q-09",
        "the open dead letters are exactly the signed invalid events that were injected",
        """
(select event_id, source from shop.dead_letters where replayed_at is null and dropped_at is null
  except select event_id, source from injected_poison)
union all
(select event_id, source from injected_poison
  except select event_id, source from shop.dead_letters)
""",
    ),
    Invariant(
        "Q-10",
        "every posting up to the last closed day is settled",
        """
select l.seq from shop.ledger l left join shop.settlement_lines sl using (seq)
where sl.seq is null and (l.posted_at at time zone
    coalesce(nullif(current_setting('shop.business_time_zone', true), ''), 'Asia/Seoul'))::date
  <= (select max(day) from shop.settlements)
""",
    ),
    Invariant(
        "Q-11",
        "all responses to one idempotency key are equal (except 409 in progress, 429 and 5xx)",
        """
select key from client_ops
where status_code is not null and status_code not in (409, 429) and status_code < 500
group by user_id, scope, key having count(distinct (status_code, body_sha256)) > 1
""",
    ),
    Invariant(
        "Q-12",
        "no acknowledged order is lost, and no order exists for a rejected key",
        """
select c.key from client_ops c
left join shop.orders o
  on o.order_id = c.order_id and o.user_id = c.user_id and o.idem_key = c.key
where c.scope in ('POST /orders', 'POST /orders/from-cart') and c.status_code = 201
  and o.order_id is null
union all
select c.key from client_ops c
join shop.orders o on o.user_id = c.user_id and o.idem_key = c.key and o.idem_scope = c.scope
where c.scope in ('POST /orders', 'POST /orders/from-cart') and c.status_code between 400 and 499
  and c.status_code not in (409, 429)
""",
    ),
    Invariant(
        "Q-13",
        "no transaction is left open in the database",
        # functions take less than a second between two statements of a transaction
        """
select concat_ws(' ', pid, usename, application_name, left(query, 80)) from pg_stat_activity
where datname = current_database()
  and state like 'idle in transaction%' and pid <> pg_backend_pid()
  and state_change < clock_timestamp() - interval '1 second'
union all
select gid from pg_prepared_xacts where database = current_database()
""",
    ),
)
