"""The checker finds each corruption of a history, and no violation in a correct one.

Constraints and triggers are dropped first, since PostgreSQL rejects many corruptions with them.
"""

from __future__ import annotations

import hashlib
from typing import Any, LiteralString

import psycopg
import pytest

from shop.one_time_links import token_of
from tests.functions.test_dead_letter import send as send_dead_letter
from tests.harness import PASSWORD, FlowHarness, Person, ShopHarness, assert_invariants
from tests.waiting import wait_for
from tools.checker import evaluate
from tools.checker.invariants import INVARIANTS

KEYS = ("key-of-the-paid-one", "key-of-the-cancelled-one")

DROP_CONSTRAINTS = """
select format('alter table %s drop constraint if exists %I cascade', conrelid::regclass, conname)
from pg_constraint where connamespace = 'shop'::regnamespace and contype <> 'n' and coninhcount = 0
order by contype = 'p', contype = 'u'
"""
DROP_INDEXES = """
select format('drop index if exists shop.%I', indexname) from pg_indexes
where schemaname = 'shop' and indexdef like 'CREATE UNIQUE%'
"""
DISABLE_TRIGGERS = """
select format('alter table shop.%I disable trigger user', tablename) from pg_tables
where schemaname = 'shop'
"""
SETTLE_TODAY = """
with day as (
  select seq, (posted_at at time zone 'Asia/Seoul')::date as day, currency, kind, amount_minor
  from shop.ledger), closed as (
  insert into shop.settlements (day, currency, captures_minor, refunds_minor, captures, n)
  select day, currency, sum(amount_minor) filter (where kind = 'CAPTURE'),
    coalesce(sum(amount_minor) filter (where kind = 'REFUND'), 0),
    count(*) filter (where kind = 'CAPTURE'), count(*)
  from day group by day, currency returning day, currency)
insert into shop.settlement_lines (seq, day, currency)
select seq, day, currency from day join closed using (day, currency)
"""

# name -> a change of the history, and the invariants that it violates (docs/design/correctness.md)
CORRUPTIONS: dict[str, tuple[LiteralString, str]] = {
    "oversell: two buyers got the same unit": (
        "update shop.stock set on_hand = -1 where product_id = %(product)s",
        "I-01 I-03",
    ),
    "lost release: reservation freed, counter not": (
        "update shop.stock set reserved = reserved + 1 where product_id = %(product)s",
        "I-02 Q-03",
    ),
    "lost update on stock": (
        "update shop.stock set on_hand = on_hand + 1 where product_id = %(product)s",
        "I-03",
    ),
    "double release of stock": (
        "insert into shop.stock_moves (product_id, kind, qty, reservation_id) "
        "select product_id, 'RETURN', qty, reservation_id from shop.reservations "
        "where status = 'RETURNED'",
        "I-03 I-05",
    ),
    "damaged goods are written off twice": (
        "insert into shop.stock_moves (product_id, kind, qty) values (%(product)s, 'DAMAGE', -1)",
        "I-03 I-26",
    ),
    "stock adjusted without an entry in the audit log": (
        "delete from shop.audit_log where action = 'product.stock_adjusted'",
        "I-26",
    ),
    "stock adjusted for another reason than its entry has": (
        "update shop.stock_moves set kind = 'LOSS' where kind = 'DAMAGE'",
        "I-26",
    ),
    "sold goods are written off": (
        "with moved as (insert into shop.stock_moves (product_id, kind, qty) "
        "select product_id, 'LOSS', -on_hand - 1 from shop.stock where product_id = %(product)s) "
        "update shop.stock set on_hand = -1 where product_id = %(product)s",
        "I-01 I-04",
    ),
    "sold more than ever existed": (
        "update shop.reservations set qty = 4000 where order_id = %(paid)s",
        "I-04 I-05 I-06",
    ),
    "paid order without stock": (
        "delete from shop.reservations where order_id = %(declined)s",
        "I-06 I-16",
    ),
    "paid order whose stock was released": (
        "update shop.reservations set status = 'RELEASED' where order_id = %(paid)s",
        "I-05 I-06 I-16",
    ),
    "total overflowed": (
        "update shop.orders set total_minor = 2704 where order_id = %(paid)s",
        "I-07 I-08 Q-05",
    ),
    "charged another amount": (
        "update shop.payments set amount_minor = 1 where attempt = 2",
        "I-08 I-11 I-13",
    ),
    "double charge on retry": (
        "insert into shop.payments (payment_id, order_id, user_id, attempt, status, amount_minor, "
        "currency, payment_method, provider_key, charge_not_after, next_try_at) "
        "select gen_random_uuid(), order_id, user_id, 9, status, amount_minor, currency, "
        "payment_method, 'shop:x', now(), now() from shop.payments where order_id = %(paid)s",
        "I-09 I-10 I-13 I-16 Q-06",
    ),
    "charge at provider, no order": (
        "insert into psp_charges values ('shop:unmatched', 1000, 'CAPTURED')",
        "I-11 Q-06",
    ),
    "charge executed twice under one key": (
        "insert into psp_charges select key || ' again', amount_minor, status from psp_charges "
        "where status = 'CAPTURED' limit 1",
        "I-11 Q-06",
    ),
    "late capture never refunded": (
        "delete from shop.refunds where payment_id = "
        "(select payment_id from shop.payments where late)",
        "I-09 I-12 I-13 I-16 Q-06",
    ),
    "refund exceeds capture": (
        "update shop.refunds set amount_minor = 9999999 where refund_id = %(refund)s",
        "I-12 I-13 Q-05 Q-06",
    ),
    "refund twice": (
        "insert into shop.refunds (refund_id, payment_id, amount_minor, currency, status, reason, "
        "provider_key, next_try_at) select gen_random_uuid(), payment_id, 2000, currency, "
        "'SUCCEEDED', 'x', 'refund:again', now() from shop.refunds "
        "where refund_id = %(refund)s",
        "I-12 I-13 I-16 Q-05 Q-06",
    ),
    "capture not posted": (
        "with gone as (delete from shop.settlement_lines where seq = %(seq)s) "
        "delete from shop.ledger where seq = %(seq)s",
        "I-13 I-19",
    ),
    "capture posted twice": (
        "insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, "
        "currency, chain, chain_seq, prev_hash, hash) select kind, source_id, order_id, debit, "
        "credit, amount_minor, currency, chain, chain_seq, prev_hash, hash from shop.ledger "
        "where seq = %(seq)s",
        "I-13 Q-05",
    ),
    "posting that could be made again": (
        "delete from shop.ledger_keys where seq = %(seq)s",
        "I-13",
    ),
    "keys of another posting": (
        "update shop.ledger_keys set source_id = gen_random_uuid() where seq = %(seq)s",
        "I-13",
    ),
    "posted to the wrong account": (
        "update shop.ledger set credit = 'my_pocket' where seq = %(seq)s",
        "I-14 I-21",
    ),
    "posting moved by a microsecond": (
        "update shop.ledger set posted_at = posted_at + interval '1 microsecond' "
        "where seq = %(seq)s",
        "I-21",
    ),
    "posting forged with a hash of its own": (
        "update shop.ledger set hash = sha256(hash) where seq = %(seq)s",
        "I-21",
    ),
    "chain without a beginning": (
        "update shop.ledger set chain_seq = chain_seq + 1 where (chain, chain_seq) in "
        "(select chain, max(chain_seq) from shop.ledger group by chain)",
        "I-21 I-22",
    ),
    "posting put into another chain": (
        "update shop.ledger set chain = (chain + 1) %% 16 where seq = %(seq)s",
        "I-21",
    ),
    "end of a chain cut off": (
        "delete from shop.ledger where (chain, chain_seq) in "
        "(select chain, max(chain_seq) from shop.ledger group by chain)",
        "I-13 I-22",
    ),
    "head of a chain moved": (
        "update shop.ledger_chains set chain_seq = chain_seq + 1 where chain = 0",
        "I-22",
    ),
    "chain without a head": ("delete from shop.ledger_chains where chain = 15", "I-22"),
    "nothing in a cart, many times": (
        "update shop.cart_items set qty = 0",
        "I-23",
    ),
    "cart of a product that is none": (
        "update shop.cart_items set product_id = 77777",
        "I-23",
    ),
    "cart without a user": ("update shop.cart_items set user_id = 77777", "I-23"),
    "product without a place on the shelf": (
        "insert into shop.products (name, category, price_minor, currency) "
        "values ('x', '시험', 1, 'KRW')",
        "I-24",
    ),
    "refund by an operator without an entry in the audit log": (
        "delete from shop.audit_log where action = 'order.refunded'",
        "I-26",
    ),
    "entry in the audit log about a refund that no operator requested": (
        "update shop.refunds set requested_by = null where refund_id = %(refund)s",
        "I-26",
    ),
    "cancellation by an operator without an entry in the audit log": (
        "delete from shop.audit_log where action = 'order.cancelled'",
        "I-26",
    ),
    "entry in the audit log about a cancellation by somebody else": (
        "update shop.orders set reason = 'USER' where order_id = %(for_customer)s",
        "I-26",
    ),
    "note without an entry in the audit log": (
        "delete from shop.audit_log where action = 'order.noted'",
        "I-26",
    ),
    "role changed without an entry in the audit log": (
        "update shop.users set role = 'admin' where user_id = (select max(user_id) "
        "from shop.users)",
        "I-26",
    ),
    "account disabled without an entry in the audit log": (
        "update shop.users set state = 'DISABLED', active = false where user_id = "
        "(select max(user_id) from shop.users)",
        "I-26",
    ),
    "API key without an entry in the audit log": (
        "insert into shop.api_keys (key_hash, session_id, prefix, scopes) "
        "select sha256('x'), session_id, 'msk_x', '{orders:read}' from shop.sessions limit 1",
        "I-26",
    ),
    "session without a code of the second factor": (
        "with f as (insert into shop.second_factors (user_id, factor_id, confirmed_at, last_step, "
        "accepted) select min(user_id), gen_random_uuid(), now(), 1, 1 from shop.users "
        "returning user_id, factor_id), u as (update shop.users u set factor_id = f.factor_id "
        "from f where u.user_id = f.user_id returning u.user_id) "
        "insert into shop.sessions (session_id, user_id, expires_at) "
        "select gen_random_uuid(), user_id, now() + interval '1 day' "
        "from u, generate_series(1, 2)",
        "I-35",
    ),
    "account that names no second factor": (
        "update shop.users set factor_id = gen_random_uuid() "
        "where user_id = (select min(user_id) from shop.users)",
        "I-35",
    ),
    "audit log without its beginning": (
        "delete from shop.audit_log where action = 'audit_log.started'",
        "I-26",
    ),
    "link used twice": (
        "update shop.one_time_links set uses = 2 where uses = 1",
        "I-27",
    ),
    "link used after it expired": (
        "update shop.one_time_links set expires_at = ended_at where uses = 1",
        "I-27",
    ),
    "used link that is still valid": (
        "update shop.one_time_links set ended_at = null where uses = 1",
        "I-27",
    ),
    "password reset that set no password": (
        "update shop.users u set password_changed_at = null from shop.one_time_links l "
        "where l.user_id = u.user_id and l.uses = 1",
        "I-27",
    ),
    "password reset that ended no session": (
        "update shop.sessions s set revoked_at = null from shop.one_time_links l "
        "where l.user_id = s.user_id and l.uses = 1",
        "I-27",
    ),
    "closed account with an address": (
        "update shop.users set email = 'kim@example.kr' where state = 'CLOSED'",
        "I-28",
    ),
    "closed account with a session": (
        "insert into shop.sessions (session_id, user_id, expires_at, revoked_at) "
        "select gen_random_uuid(), user_id, now(), now() from shop.users where state = 'CLOSED'",
        "I-28",
    ),
    "erased account with a cart": (
        "with erased as (update shop.users set erased_at = now() where state = 'CLOSED' "
        "returning user_id) insert into shop.cart_items (user_id, product_id, qty) "
        "select user_id, %(product)s, 1 from erased",
        "I-28",
    ),
    "event without a delivery to its webhook": (
        "insert into shop.webhooks (webhook_id, url, event_types, active_since) "
        "values (gen_random_uuid(), 'https://hooks.example.kr/', '{order.paid}', "
        "now() - interval '1 day')",
        "I-29",
    ),
    "delivery to a webhook without an attempt": (
        "with w as (insert into shop.webhooks (webhook_id, url, event_types, state, disabled_by) "
        "values (gen_random_uuid(), 'https://hooks.example.kr/', '{order.paid}', 'DISABLED', "
        "'GONE') returning webhook_id) insert into shop.webhook_deliveries (webhook_id, event_id, "
        "type, state, delivered_at) select webhook_id, gen_random_uuid(), 'order.paid', "
        "'DELIVERED', now() from w",
        "I-29",
    ),
    "delivery to a webhook that its receiver did not accept": (
        "with w as (insert into shop.webhooks (webhook_id, url, event_types, state, disabled_by) "
        "values (gen_random_uuid(), 'https://hooks.example.kr/', '{order.paid}', 'DISABLED', "
        "'GONE') returning webhook_id), d as (insert into shop.webhook_deliveries (webhook_id, "
        "event_id, type, state, delivered_at, attempts) select webhook_id, gen_random_uuid(), "
        "'order.paid', 'DELIVERED', now(), 1 from w returning webhook_id, event_id) "
        "insert into shop.webhook_attempts (webhook_id, event_id, number, milliseconds, status, "
        "request_head, response_head) select webhook_id, event_id, 1, 1, 500, '', '' from d",
        "I-29",
    ),
    "mail of a paid order was never stored": (
        "delete from shop.mails where kind = 'ORDER_PAID' and subject_id = %(paid)s::text",
        "I-30",
    ),
    "event has two mails": (
        "insert into shop.mails (event_id, kind, subject_id, status, tries, next_try_at) "
        "select event_id, kind, subject_id, 'SENT', 1, now() from shop.mails "
        "where kind = 'ORDER_PAID' limit 1",
        "I-30",
    ),
    "mail of an event that was not consumed": (
        "insert into shop.mails (event_id, kind, subject_id, status, tries, next_try_at) "
        "values (gen_random_uuid(), 'ORDER_PAID', 'x', 'SENT', 1, now())",
        "I-30",
    ),
    "mail about another order": (
        "update shop.mails set subject_id = %(cancelled)s::text "
        "where kind = 'ORDER_PAID' and subject_id = %(paid)s::text",
        "I-30",
    ),
    "mail counts as sent without an attempt": (
        "update shop.mails set tries = 0 where status = 'SENT'",
        "I-30",
    ),
    "mail is open for days": (
        "update shop.mails set status = 'PENDING', created_at = now() - interval '4 days' "
        "where kind = 'ORDER_PAID'",
        "I-30",
    ),
    "VAT that was not computed": (
        "update shop.order_price_lines set vat_minor = vat_minor + 1 where order_id = %(paid)s",
        "I-40",
    ),
    "goods that were priced otherwise": (
        "update shop.order_price_lines set amount_minor = 2, vat_minor = 0 "
        "where order_id = %(paid)s",
        "I-40",
    ),
    "discount larger than the price": (
        "insert into shop.order_price_lines (order_id, line, user_id, kind, product_id, "
        "amount_minor, vat_minor, vat_basis_points) select order_id, 9, user_id, 'DISCOUNT', "
        "product_id, -amount_minor - 1, 0, 0 from shop.order_price_lines where order_id = %(paid)s",
        "I-07 I-40 I-43",
    ),
    "coupon counts a use that no order holds": (
        "update shop.coupons set uses = uses + 1",
        "I-41",
    ),
    "coupon is used more often than it allows": (
        "update shop.coupons set uses_max = 0",
        "I-41",
    ),
    "customer uses a coupon more often than it allows": (
        "with used as (insert into shop.coupon_uses (order_id, code, user_id, discount_minor) "
        "select %(paid)s, code, user_id, 1 from shop.coupon_uses returning code) "
        "update shop.coupons set uses = uses + 1",
        "I-41 I-43",
    ),
    "coupon of a paid order was given back": (
        "update shop.coupon_uses set given_back_at = now()",
        "I-41 I-42",
    ),
    "cancelled order keeps its coupon": (
        "update shop.coupon_uses set order_id = %(cancelled)s",
        "I-42 I-43",
    ),
    "discount that the terms of its coupon do not give": (
        "update shop.coupons set discount_basis_points = 1260",
        "I-43",
    ),
    "goods that cost too little for their coupon": (
        "update shop.coupons set goods_min_minor = 1001",
        "I-43",
    ),
    "discount line that no coupon gives": (
        "update shop.order_price_lines set amount_minor = amount_minor - 1 where kind = 'DISCOUNT'",
        "I-07 I-43",
    ),
    "more is given back for a line than its discount left": (
        "insert into shop.order_price_lines (order_id, line, user_id, kind, product_id, "
        "amount_minor, vat_minor, vat_basis_points) select order_id, 9, user_id, 'DISCOUNT', "
        "product_id, -1500, 0, 0 from shop.order_price_lines where order_id = %(sent)s",
        "I-38 I-43",
    ),
    "shipping fee that its version does not give": (
        "update shop.shipping_fees set amount_minor = amount_minor + 1",
        "I-45",
    ),
    "shipping fee of a region that its version does not have": (
        "update shop.orders set shipping_region = 7 where shipping_version is not null",
        "I-45",
    ),
    "order was sent without the fee of its version": (
        "update shop.orders set shipping_version = 1, shipping_region = null "
        "where order_id = %(cancelled)s",
        "I-45",
    ),
    "shipping fee of no version": (
        "update shop.orders set shipping_version = null where shipping_version is not null",
        "I-45",
    ),
    "21 saved addresses": (
        "insert into shop.saved_addresses (address_id, user_id, recipient, phone, country, "
        "postcode, line1) select gen_random_uuid(), min(user_id), 'r', '1', 'KR', '04524', 'l' "
        "from shop.users cross join generate_series(1, 21) group by generate_series",
        "I-44",
    ),
    "price changed without a history": (
        "update shop.products set price_minor = price_minor + 1 where product_id = %(product)s",
        "I-31",
    ),
    "price history with a gap": (
        "insert into shop.price_changes (product_id, from_minor, to_minor) "
        "values (%(product)s, 77, 1000)",
        "I-31",
    ),
    "price set by a schedule that is not active": (
        "update shop.products set price_schedule_id = gen_random_uuid() "
        "where product_id = %(product)s",
        "I-32",
    ),
    "price schedules that overlap": (
        "insert into shop.price_schedules (schedule_id, product_id, price_minor, starts_at, "
        "ends_at, created_by) select gen_random_uuid(), %(product)s, 1, now() + interval '1 day', "
        "now() + interval '2 days', 1 from generate_series(1, 2)",
        "I-32",
    ),
    "price schedule carried out twice": (
        "with planned as (insert into shop.price_schedules (schedule_id, product_id, price_minor, "
        "regular_minor, starts_at, ends_at, state, created_by) values (gen_random_uuid(), "
        "%(product)s, 1, 1000, now() - interval '2 days', now() - interval '1 day', 'ENDED', 1) "
        "returning schedule_id) insert into shop.price_changes (product_id, from_minor, to_minor, "
        "schedule_id) select %(product)s, price.before, price.after, schedule_id from planned, "
        "(values (1000, 1), (1, 1000), (1000, 1), (1, 1000)) as price(before, after)",
        "I-32",
    ),
    "customer may act for ever": (
        "update shop.payments set status = 'REQUIRES_ACTION', act_until = null "
        "where order_id = %(paid)s",
        "I-10 I-16 I-36 Q-02",
    ),
    "deadline of an action passes without an end": (
        "update shop.payments set status = 'REQUIRES_ACTION', act_until = now() - interval '1 h', "
        "updated_at = now() - interval '1 h', next_try_at = 'infinity' where order_id = %(paid)s",
        "I-10 I-16 I-36 Q-02",
    ),
    "status changed behind the log": (
        "update shop.orders set status = 'PAID', reason = null where order_id = %(cancelled)s",
        "I-06 I-10 I-16",
    ),
    "illegal transition CANCELLED to PAID": (
        "insert into shop.transitions (entity, entity_id, order_id, from_status, to_status, "
        "actor) values ('order', %(cancelled)s, %(cancelled)s, 'CANCELLED', 'PAID', 'x')",
        "I-16",
    ),
    "publish lost: no outbox row": (
        "delete from shop.outbox where type = 'order.placed' and order_id = %(paid)s",
        "I-17 I-20",
    ),
    "event without a change": (
        "insert into shop.outbox (event_id, source, type, subject, order_id, data, traceparent, "
        "sent_at, done_at, next_try_at) select gen_random_uuid(), source, type, subject, "
        "order_id, data, traceparent, now(), now(), now() from shop.outbox "
        "where type = 'order.placed' limit 1",
        "I-17 Q-07",
    ),
    "two orders for one key": (
        "update shop.orders set idem_key = %(key)s where idem_key = %(other_key)s",
        "I-18 Q-12",
    ),
    "settlement counted a duplicate": (
        "update shop.settlements set captures_minor = captures_minor + 2000, n = n + 1",
        "I-19",
    ),
    "settlement missed a refund": (
        "update shop.settlements set refunds_minor = 0",
        "I-19",
    ),
    "batch recorded other sums than its lines": (
        "insert into shop.settlement_batches select day, 1, currency, captures_minor + 1, "
        "refunds_minor, captures, n, now(), 0 from shop.settlements",
        "I-19",
    ),
    "day half closed": (
        "delete from shop.settlements",
        "I-19",
    ),
    "settled on the wrong day (time zone)": (
        "update shop.ledger set posted_at = posted_at - interval '1 day' where seq = %(seq)s",
        "I-19",
    ),
    "event from nowhere was applied": (
        "insert into shop.inbox (consumer, source, event_id, outcome) "
        "values ('charge', '/shop/place_order', 'forged', 'taken')",
        "I-20",
    ),
    "order stuck": (
        "update shop.orders set status = 'PENDING', reason = null where order_id = %(cancelled)s",
        "I-06 I-16 Q-01",
    ),
    "payment stuck unknown": (
        "update shop.payments set status = 'UNKNOWN' where status = 'DECLINED'",
        "I-16 Q-02",
    ),
    "reservation leaked": (
        "update shop.reservations set status = 'HELD' where order_id = %(cancelled)s",
        "I-02 I-06 I-16 Q-03",
    ),
    "cancelled but money kept": (
        "delete from shop.ledger where kind = 'REFUND' and order_id = %(returned)s",
        "I-13 I-19 Q-04",
    ),
    "provider captured, we say declined": (
        "update psp_charges set status = 'CAPTURED' where status = 'DECLINED'",
        "Q-06",
    ),
    "provider refunded, we do not know": (
        "insert into psp_refunds values ('refund:unmatched', 'shop:x', 1)",
        "Q-06",
    ),
    "provider has a dispute, we do not know": (
        "insert into psp_disputes values ('dp_unmatched', 'shop:x', 'DISPUTE', 1)",
        "Q-06",
    ),
    "dispute in another currency than its payment": (
        "insert into shop.disputes (dispute_id, payment_id, provider_ref, amount_minor, currency, "
        "status) select gen_random_uuid(), payment_id, 'dp_1', 1, 'USD', 'LOST' "
        "from shop.payments where order_id = %(paid)s",
        "I-16 I-25",
    ),
    "consumer never got it": (
        "delete from shop.inbox where consumer = 'refund'",
        "Q-07",
    ),
    "event never sent": (
        "update shop.outbox set sent_at = null where type = 'order.paid'",
        "Q-07",
    ),
    "key left half-way": (
        "update shop.idempotency set state = 'STARTED', status_code = null, body = null "
        "where key = %(key)s",
        "Q-08",
    ),
    "good event dead-lettered": (
        "insert into shop.dead_letters (dead_letter_id, event_id, source, type, destination, "
        "headers, body) values (gen_random_uuid(), 'good', '/shop/place_order', 'order.placed', "
        "'charge', '{}', '')",
        "Q-09",
    ),
    "poison swallowed": ("delete from shop.dead_letters", "Q-09"),
    "replayed letter that came back": (
        "insert into shop.dead_letters (dead_letter_id, event_id, source, type, destination, "
        "headers, body, replayed_at) select gen_random_uuid(), id, '/shop/charge', 'x', 'refund', "
        "'{}', '', at from (values ('taken', now()), ('back', null)) as letter(id, at)",
        "Q-09",
    ),
    "dropped letter that is not open beside one that is": (
        "insert into shop.dead_letters (dead_letter_id, event_id, source, type, destination, "
        "headers, body, dropped_at, dropped_reason) select gen_random_uuid(), id, '/shop/charge', "
        "'x', 'refund', '{}', '', at, reason from (values ('dropped', now(), 'unsigned'), "
        "('open', null, null)) as letter(id, at, reason)",
        "Q-09",
    ),
    "more is shipped than was ordered": (
        "insert into shop.shipment_lines (shipment_id, order_id, product_id, qty) "
        "select shipment_id, order_id, product_id, qty from shop.shipment_lines "
        "where order_id = %(sent)s",
        "I-33",
    ),
    "a shipment has no lines": (
        "delete from shop.shipment_lines where order_id = %(sent)s",
        "I-33",
    ),
    "goods that were sent are in the stock again": (
        "with returned as (update shop.reservations set status = 'RETURNED' "
        "where order_id = %(sent)s returning reservation_id, product_id, qty), "
        "moved as (insert into shop.stock_moves (product_id, kind, qty, reservation_id) "
        "select product_id, 'RETURN', qty, reservation_id from returned) "
        "update shop.stock s set on_hand = on_hand + r.qty from returned r "
        "where r.product_id = s.product_id",
        "I-06 I-16 I-34",
    ),
    "an unpaid order is packed": (
        "update shop.shipments set order_id = %(cancelled)s where order_id = %(sent)s",
        "I-33 I-34",
    ),
    "a delivery that was never reported": (
        "update shop.shipments set delivered_at = null where order_id = %(sent)s",
        "I-34",
    ),
    "a shipment without an entry in the audit log": (
        "delete from shop.audit_log where action = 'order.shipment_changed'",
        "I-26",
    ),
    "more is returned than was sent": (
        "update shop.return_lines set qty = 5 where order_id = %(sent)s",
        "I-37",
    ),
    "more is given back for a line than was paid for it": (
        "update shop.return_lines set amount_minor = 10 * amount_minor where order_id = %(sent)s",
        "I-38",
    ),
    "a return that is received says not what became of its goods": (
        "update shop.return_lines set restocked_qty = null, amount_minor = null "
        "where order_id = %(sent)s",
        "I-38 I-39",
    ),
    "returned goods are in the stock twice": (
        "with moved as (insert into shop.stock_moves (product_id, kind, qty) "
        "values (%(product)s, 'LINE_RETURN', 1) returning product_id) update shop.stock s "
        "set on_hand = on_hand + 1 from moved m where m.product_id = s.product_id",
        "I-39",
    ),
    "units were cancelled unsent and sent": (
        "update shop.returns set status = 'UNSENT' where order_id = %(sent)s",
        "I-16 I-33",
    ),
    "a decision about a return without an entry in the audit log": (
        "delete from shop.audit_log where action = 'order.return_changed'",
        "I-26",
    ),
    "posting never settled": (
        "delete from shop.settlement_lines where seq = %(seq)s",
        "I-19 Q-10",
    ),
    "replay answered differently": (
        "update client_ops set body_sha256 = 'zz' where op = 2",
        "Q-11",
    ),
    "acknowledged order lost": (
        "insert into client_ops (user_id, scope, key, status_code, body_sha256, order_id) "
        "values (7, 'POST /orders', 'k9', 201, 'cc', gen_random_uuid())",
        "Q-12",
    ),
    "refused, yet an order was made": (
        "insert into client_ops (user_id, scope, key, status_code, body_sha256) "
        "select user_id, scope, key, 402, 'dd' from client_ops limit 1",
        "Q-11 Q-12",
    ),
}


def _placed_with_key(flow: FlowHarness, buyer: Person, product: int, key: str) -> str:
    """Places an order twice with one key; the client log records both responses."""
    order_id = ""
    for _ in range(2):
        body = {"productId": product, "quantity": 2, "paymentMethod": "CARD"}
        answer = buyer.post("/orders", body, key=key)
        digest = hashlib.sha256(answer.body).hexdigest()
        row = (buyer.user_id, "POST /orders", key, answer.status, digest, answer.json["id"])
        flow.client_operations.append(row)
        order_id = answer.json["id"]
    return order_id


def _discounted_order(flow: FlowHarness, buyer: Person, product: int) -> None:
    """An order that uses a coupon, which each customer may use once, and costs shipping."""
    fees = [{"amount": amount, "freeFrom": 5_000} for amount in (2_500, 0)]
    assert flow.shop.person("staff").post("/admin/shipping-fees", fees[0]).status == 201
    terms = {"code": "SPRING", "discountBasisPoints": 1_250, "usesPerCustomerMaximum": 1}
    assert flow.shop.person("staff").post("/admin/coupons", terms).status == 201
    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD", "coupons": ["SPRING"]}
    placed = buyer.post("/orders", body)
    assert (placed.status, placed.json["totalAmount"]) == (201, 3_375), placed.body
    assert flow.shop.person("staff").post("/admin/shipping-fees", fees[1]).status == 201


def _reset_password(shop: ShopHarness) -> None:
    """A customer with an open session sets the password by a link."""
    email = "reset@example.kr"
    assert (shop.register(email).status, shop.log_in(email).status) == (201, 200)
    assert shop.call("POST", "/auth/password-reset", {"email": email}).status == 202
    (link,) = shop.sql("select link_id from shop.one_time_links where user_id is not null")
    token = token_of(link["link_id"], shop.secrets.link_key)
    body = {"token": token, "newPassword": "another long pass phrase"}
    assert shop.call("POST", "/auth/password-reset/confirm", body).status == 204


def _sent_order(flow: FlowHarness, buyer: Person, product: int) -> str:
    """A paid order of two units that were sent, one of which came back."""
    staff, order_id = flow.shop.person("staff"), str(buyer.paid_order(product, 2)["id"])
    path = f"/admin/orders/{order_id}/shipments"
    shipment = staff.post(path, {})
    assert shipment.status == 201, shipment.body
    change = {"status": "SHIPPED", "carrier": "cj", "trackingNumber": "6892-0000-1234"}
    for body in (change, {"status": "DELIVERED"}):
        assert staff.patch(f"{path}/{shipment.json['id']}", body).status == 200
    body = {"items": [{"productId": product, "quantity": 1}], "reason": "too small"}
    asked = buyer.post(f"/orders/{order_id}/returns", body)
    assert asked.status == 201, asked.body
    path = f"/admin/orders/{order_id}/returns/{asked.json['id']}"
    decided = flow.shop.person("support").patch(path, {"status": "APPROVED"})
    assert (decided.status, staff.post(f"{path}/receipt", {}).status) == (200, 200)
    return order_id


def _history(flow: FlowHarness) -> dict[str, Any]:
    """Paid; cancelled unpaid, when paid, by support; declined, then paid; late; refunded; sent."""
    flow.simulator.set_faults(late_seconds=2, probabilities={"tombstone_ignored": 1})
    buyer, product = flow.shop.person(), flow.shop.product(price=1000, stock=100)
    damage = {"quantity": -1, "reason": "DAMAGE"}
    assert flow.shop.person("staff").post(f"/products/{product}/stock", damage).status == 200
    cancelled = _placed_with_key(flow, buyer, product, KEYS[1])
    buyer.patch(f"/orders/{cancelled}/cancel")
    late = buyer.order(product, method="CARD_LATE")["id"]
    flow.deliver()
    buyer.patch(f"/orders/{late}/cancel")
    flow.run_until_idle()
    wait_for(lambda: flow.simulator.captures(flow.payment_key(late)), "the late capture")
    flow.reconcile()
    buyer.post("/cart/items", {"productId": product, "quantity": 3})
    paid = _placed_with_key(flow, buyer, product, KEYS[0])
    declined = buyer.order(product, method="CARD_DECLINED")["id"]
    flow.deliver()
    buyer.post(f"/orders/{declined}/payments", {"paymentMethod": "CARD"})
    returned, partly = buyer.paid_order(product)["id"], buyer.paid_order(product)["id"]
    buyer.patch(f"/orders/{returned}/cancel")
    sent = _sent_order(flow, buyer, product)
    _discounted_order(flow, buyer, product)
    support, for_customer = flow.shop.person("support"), buyer.order(product)["id"]
    support.post(f"/orders/{partly}/refunds", {"amount": 500, "reason": "dented"})
    cancellation = support.patch(f"/admin/orders/{for_customer}/cancel", {"reason": "by phone"})
    assert cancellation.status == 200, cancellation.body
    noted = support.post(f"/admin/orders/{for_customer}/notes", {"text": "called twice"})
    assert noted.status == 201, noted.body
    assert flow.shop.person().delete("/users/me", {"password": PASSWORD}).status == 204
    assert send_dead_letter(flow.shop, id="p1").status == 204
    flow.injected_poison.append(("p1", "/shop/place_order"))
    _reset_password(flow.shop)
    flow.run_until_idle()
    flow.shop.sql(SETTLE_TODAY)
    (refund_row,) = flow.shop.sql("select refund_id from shop.refunds where reason = 'dented'")
    (posting,) = flow.shop.sql("select seq from shop.ledger where order_id = %s", paid)
    return {
        "product": product,
        "paid": paid,
        "cancelled": cancelled,
        "returned": returned,
        "for_customer": for_customer,
        "declined": declined,
        "refund": refund_row["refund_id"],
        "sent": sent,
        "seq": posting["seq"],
        "key": KEYS[0],
        "other_key": KEYS[1],
    }


def test_each_corruption_violates_its_invariants(flow: FlowHarness) -> None:
    names = _history(flow)
    assert_invariants(flow)
    missed: dict[str, list[str]] = {}
    with psycopg.connect(flow.shop.admin_url, autocommit=True) as connection:
        for listing in (DROP_CONSTRAINTS, DROP_INDEXES, DISABLE_TRIGGERS):
            for (statement,) in connection.execute(listing).fetchall():
                connection.execute(statement)
        for name, (statement, expected) in CORRUPTIONS.items():
            found = _found(connection, flow, statement, names)
            if not set(expected.split()) <= found:
                missed[name] = sorted(set(expected.split()) - found)
    assert not missed


def _found(
    connection: psycopg.Connection[Any], flow: FlowHarness, statement: str, names: dict[str, Any]
) -> set[str]:
    connection.execute("begin")
    evaluate.load_external_records(connection, flow.external_records())
    touched = connection.execute(statement.encode(), names).rowcount
    assert touched > 0, f"the corruption touched nothing: {statement}"
    found = {violation.id for violation in evaluate.violations_in(connection, at_rest=True)}
    connection.execute("rollback")
    return found


def test_invariant_broken_by_many_rows_is_evaluated_for_the_first_five(flow: FlowHarness) -> None:
    with psycopg.connect(flow.shop.admin_url) as connection:
        connection.execute("create temporary sequence computed")

        rows = evaluate.first_rows(
            connection, "select nextval('computed') from generate_series(1, 1000) -- rows"
        )

        assert rows == [(1,), (2,), (3,), (4,), (5,)]
        assert connection.execute("select last_value from computed").fetchone() == (5,)


def test_two_connections_evaluate_every_invariant_in_order(flow: FlowHarness) -> None:
    product = flow.shop.product()
    flow.shop.sql("update shop.stock set on_hand = on_hand + 1 where product_id = %s", product)

    results = evaluate.evaluate_invariants(
        flow.shop.admin_url, flow.external_records(), at_rest=True, skipped={"Q-11": "no log"}
    )

    assert [result.invariant for result in results] == list(INVARIANTS)
    states = {result.invariant.id: result.state for result in results if result.state != "holds"}
    assert states == {"I-03": "broken", "Q-11": "skipped"}


@pytest.mark.parametrize(
    ("table", "column"), [("ledger", "amount_minor"), ("transitions", "actor")]
)
def test_changed_append_only_row_is_a_violation(flow: FlowHarness, table: str, column: str) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    flow.run_until_idle()
    assert_invariants(flow)
    flow.shop.sql(f"alter table shop.{table} disable trigger append_only")
    flow.shop.sql(f"update shop.{table} set {column} = {column}")

    wait_for(
        lambda: (
            [
                violation.id
                for violation in evaluate.find_violations(
                    flow.shop.admin_url, flow.external_records(), at_rest=False
                )
            ]
            == ["I-15"]
        ),
        "the tripwire",
    )


def test_transaction_left_open_is_a_violation(flow: FlowHarness) -> None:
    with psycopg.connect(flow.shop.admin_url) as connection:
        connection.execute("select 1")

        found: list[evaluate.Violation] = []
        wait_for(lambda: found.extend(_broken_at_rest(flow)) or found, "a second to pass")

    assert [violation.id for violation in found] == ["Q-13"]
    assert "select 1" in str(found[0]), "it says who hangs"


def test_function_between_two_statements_is_no_violation(flow: FlowHarness) -> None:
    with psycopg.connect(flow.shop.admin_url) as connection:

        def nothing_is_found() -> bool:
            connection.execute("select 1")
            return _broken_at_rest(flow) == []

        # more than one look, for a busy machine may take a second between the two lines above
        wait_for(nothing_is_found, "a look at a transaction that has just asked something")


@pytest.mark.parametrize(
    "table", ["ledger", "ledger_keys", "stock_moves", "transitions", "inbox", "audit_log"]
)
def test_append_only_tables_reject_changes(flow: FlowHarness, table: str) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    flow.deliver()

    with pytest.raises(psycopg.errors.RestrictViolation):
        flow.shop.sql(f"delete from shop.{table}")
    with pytest.raises(psycopg.errors.RestrictViolation):
        flow.shop.sql(f"truncate shop.{table} cascade")


def test_every_invariant_is_violated_by_a_corruption() -> None:
    ids = {invariant.id for invariant in INVARIANTS}
    for kind in "IQ":
        numbers = {int(id_[2:]) for id_ in ids if id_[0] == kind}
        assert numbers == set(range(1, len(numbers) + 1)), "consecutive"

    bitten = {id_ for _, expected in CORRUPTIONS.values() for id_ in expected.split()}

    assert ids - bitten == {"I-15", "Q-13"}, "these two have tests of their own above"


def _broken_at_rest(flow: FlowHarness) -> list[evaluate.Violation]:
    return evaluate.find_violations(flow.shop.admin_url, flow.external_records(), at_rest=True)
