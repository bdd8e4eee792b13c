"""What tables alone cannot express: triggers and the legal transitions.

The SQL of migration 0001; later migrations contain theirs.  ``views.py`` has the views of today.
"""

from __future__ import annotations

from shop.primitives.statuses import (
    CREATED,
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
    RefundStatus,
    ReservationStatus,
    ReturnStatus,
    ShipmentStatus,
)

CHAINS = 16

ALLOWED_TRANSITIONS = (
    ("order", CREATED, OrderStatus.PENDING, "order.placed"),
    ("order", OrderStatus.PENDING, OrderStatus.PAID, "order.paid"),
    ("order", OrderStatus.PENDING, OrderStatus.CANCELLING, "order.cancelling"),
    ("order", OrderStatus.PENDING, OrderStatus.CANCELLED, "order.cancelled"),
    ("order", OrderStatus.PAID, OrderStatus.CANCELLING, "order.cancelling"),
    ("order", OrderStatus.CANCELLING, OrderStatus.CANCELLED, "order.cancelled"),
    ("order", OrderStatus.PAID, OrderStatus.REFUNDED, "order.refunded"),
    ("payment", CREATED, PaymentStatus.INTENT, None),
    ("payment", PaymentStatus.INTENT, PaymentStatus.UNKNOWN, None),
    ("payment", PaymentStatus.INTENT, PaymentStatus.CAPTURED, "payment.captured"),
    ("payment", PaymentStatus.UNKNOWN, PaymentStatus.CAPTURED, "payment.captured"),
    ("payment", PaymentStatus.INTENT, PaymentStatus.DECLINED, "payment.declined"),
    ("payment", PaymentStatus.UNKNOWN, PaymentStatus.DECLINED, "payment.declined"),
    ("payment", PaymentStatus.INTENT, PaymentStatus.VOIDED, None),
    ("payment", PaymentStatus.UNKNOWN, PaymentStatus.VOIDED, None),
    ("payment", PaymentStatus.INTENT, PaymentStatus.REQUIRES_ACTION, None),
    ("payment", PaymentStatus.UNKNOWN, PaymentStatus.REQUIRES_ACTION, None),
    ("payment", PaymentStatus.REQUIRES_ACTION, PaymentStatus.CAPTURED, "payment.captured"),
    ("payment", PaymentStatus.REQUIRES_ACTION, PaymentStatus.DECLINED, "payment.declined"),
    ("payment", PaymentStatus.REQUIRES_ACTION, PaymentStatus.VOIDED, None),
    # only with late = true and a refund of all of it (invariant I-09)
    ("payment", PaymentStatus.VOIDED, PaymentStatus.CAPTURED, "payment.captured"),
    ("payment", PaymentStatus.DECLINED, PaymentStatus.CAPTURED, "payment.captured"),
    ("refund", CREATED, RefundStatus.INTENT, "refund.requested"),
    ("refund", RefundStatus.INTENT, RefundStatus.UNKNOWN, None),
    ("refund", RefundStatus.INTENT, RefundStatus.SUCCEEDED, "refund.succeeded"),
    ("refund", RefundStatus.UNKNOWN, RefundStatus.SUCCEEDED, "refund.succeeded"),
    ("refund", RefundStatus.INTENT, RefundStatus.REJECTED, "refund.rejected"),
    ("refund", RefundStatus.UNKNOWN, RefundStatus.REJECTED, "refund.rejected"),
    ("refund", RefundStatus.SUCCEEDED, RefundStatus.REVERSED, "refund.rejected"),
    # made by the provider without a request, or lost by a restore
    ("refund", CREATED, RefundStatus.SUCCEEDED, "refund.succeeded"),
    # executed by the provider after all
    ("refund", RefundStatus.REJECTED, RefundStatus.SUCCEEDED, "refund.succeeded"),
    ("dispute", CREATED, DisputeStatus.OPEN, None),
    ("dispute", DisputeStatus.OPEN, DisputeStatus.WON, None),
    ("dispute", DisputeStatus.OPEN, DisputeStatus.LOST, None),
    ("shipment", CREATED, ShipmentStatus.PREPARING, "shipment.created"),
    ("shipment", ShipmentStatus.PREPARING, ShipmentStatus.SHIPPED, "shipment.shipped"),
    ("shipment", ShipmentStatus.PREPARING, ShipmentStatus.CANCELLED, None),
    ("shipment", ShipmentStatus.SHIPPED, ShipmentStatus.DELIVERED, "shipment.delivered"),
    ("return", CREATED, ReturnStatus.UNSENT, None),
    ("return", CREATED, ReturnStatus.REQUESTED, "return.requested"),
    ("return", ReturnStatus.REQUESTED, ReturnStatus.APPROVED, "return.approved"),
    ("return", ReturnStatus.REQUESTED, ReturnStatus.REJECTED, "return.rejected"),
    ("return", ReturnStatus.APPROVED, ReturnStatus.REJECTED, "return.rejected"),
    ("return", ReturnStatus.APPROVED, ReturnStatus.RECEIVED, "return.received"),
    ("reservation", CREATED, ReservationStatus.HELD, None),
    ("reservation", ReservationStatus.HELD, ReservationStatus.COMMITTED, None),
    ("reservation", ReservationStatus.HELD, ReservationStatus.RELEASED, None),
    ("reservation", ReservationStatus.COMMITTED, ReservationStatus.RETURNED, None),
)

# The chain's head row is the lock: postings of one chain commit one after the other.  Sixteen
# chains, chosen by the order's id, keep that from serialising unrelated orders.
CHAIN_POSTING = """
create function shop.chain_posting() returns trigger
language plpgsql security definer set search_path = pg_catalog as $$
declare head record;
begin
  new.chain := get_byte(uuid_send(new.order_id), 15) % 16;
  new.posted_at := now();
  select chain_seq, hash into strict head
    from shop.ledger_chains where chain = new.chain for update;
  new.chain_seq := head.chain_seq + 1;
  new.prev_hash := head.hash;
  new.hash := sha256(new.prev_hash || convert_to(concat_ws('|',
    new.chain, new.chain_seq, new.seq, new.kind, new.source_id, new.order_id, new.debit,
    new.credit, new.amount_minor, new.currency,
    (extract(epoch from new.posted_at) * 1000000)::bigint), 'UTF8'));
  update shop.ledger_chains
    set chain_seq = new.chain_seq, hash = new.hash where chain = new.chain;
  return new;
end $$;
create trigger chain_posting before insert on shop.ledger
  for each row execute function shop.chain_posting();
insert into shop.ledger_chains (chain, chain_seq, hash)
  select n, 0, sha256(convert_to('msa-shop ledger chain ' || n, 'UTF8'))
  from generate_series(0, 15) n;
"""

REFUSE_CHANGE = """
create function shop.refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'shop.% is append only', tg_table_name using errcode = 'restrict_violation';
end $$;
"""

APPEND_ONLY_TRIGGER = """
create trigger append_only before update or delete on shop.{table}
  for each row execute function shop.refuse_change();
create trigger never_emptied before truncate on shop.{table}
  for each statement execute function shop.refuse_change();
"""

RECONCILIATION = """
insert into shop.reconciliation (provider, cursor, next_run_at) values ('books', '', '9999-01-01')
"""
