"""What a webhook or event that meets a unique constraint does is decided for each of them."""

from __future__ import annotations

from sqlalchemy import UniqueConstraint

from shop.orders import apply
from shop.schema.tables import METADATA

ALERT = "an operator alert: the provider names it for two orders"
LOCK = "the order's lock: no other transaction writes the row"
NOTHING = "on conflict do nothing: it is recorded already"
NEW_ID = "the id is generated with the row"
REQUEST = "only requests write the row"

ANSWERS = {
    "one_provider_ref": ALERT,
    "one_refund_key": ALERT,
    "one_dispute_ref": ALERT,
    "one_provider_key": NEW_ID,
    "one_attempt": LOCK,
    "one_open_payment": LOCK,
    "one_kept_capture": LOCK,
    "one_active_price_schedule": "the lock of the product",
    "one_product_per_options": "the lock of the group",
    "one_posting_per_source": LOCK,
    "one_link_per_place": "the lock of the chain's head",
    "one_move_per_reservation": LOCK,
    "one_reservation_per_line": REQUEST,
    "one_transition_per_event": NEW_ID,
    "one_buyer_per_order": REQUEST,
    "one_order_per_key": REQUEST,
    "one_account_per_email": REQUEST,
    "one_webhook_per_url": REQUEST,
    "one_parcel_per_number": REQUEST,
    "one_order_per_shipment": NEW_ID,
    "one_order_per_return": NEW_ID,
    "second_factors_factor_id_key": NEW_ID,
    "one_open_alarm": NOTHING,
    "one_dead_letter_per_consumer": NOTHING,
}


def test_every_unique_constraint_has_an_answer() -> None:
    tables = METADATA.sorted_tables
    constraints = {c.name for t in tables for c in t.constraints if isinstance(c, UniqueConstraint)}
    indexes = {index.name for table in tables for index in table.indexes if index.unique}

    assert constraints | indexes == set(ANSWERS)


def test_what_the_provider_names_twice_raises_an_alert() -> None:
    named = {name for name in apply.REFERENCE_CONSTRAINTS if not name.endswith("_pkey")}

    assert named == {name for name, answer in ANSWERS.items() if answer == ALERT}
