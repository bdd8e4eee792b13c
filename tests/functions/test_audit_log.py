"""Every write of an operator has an entry in the audit log, and no other request has one."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from shop import audit_log
from shop.audit_log import COMMAND, Action
from tests.harness import Person, ShopHarness

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


def entries(shop: ShopHarness) -> list[dict[str, Any]]:
    """The entries since the log began, oldest first."""
    return shop.sql("select * from shop.audit_log where actor_kind <> 'COMMAND' order by seq")


def entry_of(shop: ShopHarness, actor: Person) -> tuple[str, str, Any, Any]:
    """Action, object, before and after of the only entry, whose actor is checked."""
    (entry,) = entries(shop)
    assert (entry["actor_kind"], entry["actor_id"]) == ("PERSON", actor.user_id)
    assert entry["object_kind"] == entry["action"].partition(".")[0]
    return entry["action"], entry["object_id"], entry["before"], entry["after"]


def test_added_product_has_an_entry_with_its_values_role_and_trace(shop: ShopHarness) -> None:
    staff = shop.person("staff")
    shop.product()
    body = {"name": "의자", "category": "시험", "price": 100, "stockQuantity": 5}

    product = staff.post("/products", body, headers=TRACEPARENT).json

    action, object_id, before, after = entry_of(shop, staff)
    assert (action, object_id, before) == ("product.added", str(product["id"]), None)
    assert after == body | {
        "description": "",
        "currency": None,
        "flashSale": False,
        "images": [],
        "translations": {},
    }
    (entry,) = entries(shop)
    assert (entry["actor_role"], entry["trace_id"]) == ("staff", TRACE)


def test_changed_product_has_an_entry_with_what_changed_only(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product(price=1000)

    staff.patch(f"/products/{product}", {"price": 900}, headers={"if-match": "*"})

    expected = ("product.changed", str(product), {"price": 1000}, {"price": 900})
    assert entry_of(shop, staff) == expected


def test_restock_has_an_entry_with_the_quantity(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product()

    staff.post(f"/products/{product}/stock", {"quantity": 7})

    assert entry_of(shop, staff) == ("product.restocked", str(product), None, {"quantity": 7})


def test_added_category_has_an_entry_and_one_that_exists_has_none(shop: ShopHarness) -> None:
    staff = shop.person("staff")

    answers = [staff.post("/categories", {"name": "새"}).status for _ in range(2)]

    assert answers == [201, 409]
    added = {"name": "새", "vatPercent": 10, "vatIncluded": True}
    assert entry_of(shop, staff) == ("category.added", "새", None, added)


def test_refund_has_an_entry_without_the_texts_of_support(shop: ShopHarness) -> None:
    support = shop.person("support")
    order = shop.person().paid_order(shop.product(price=1000))
    refund = {"amount": 400, "reason": "x", "means": "OTHER_MEANS", "reference": "y"}

    answer = support.post(f"/orders/{order['id']}/refunds", refund)

    action, object_id, before, after = entry_of(shop, support)
    assert (action, object_id, before) == ("order.refunded", order["id"], None)
    assert after == {k: v for k, v in answer.json.items() if k not in ("reason", "reference")}
    assert (after["amount"], after["means"]) == (400, "OTHER_MEANS")


def test_rejected_and_repeated_writes_have_no_entry_of_their_own(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product()
    path, body = f"/products/{product}/stock", {"quantity": 1}

    staff.post(path, body, key="a-key-to-repeat-01")
    staff.post(path, body, key="a-key-to-repeat-01")
    staff.post("/products/999999/stock", body)
    staff.patch(f"/products/{product}", {"price": 1}, headers={"if-match": '"99.1"'})
    shop.person().post(path, body)

    assert len(entries(shop)) == 1


@pytest.mark.parametrize("name", ["password", "newPassword", "apiSecret", "tokenHash", "email"])
def test_name_of_a_secret_or_an_address_is_rejected(name: str) -> None:
    with pytest.raises(ValueError, match=f"does not hold {name}"):
        audit_log.record(COMMAND, Action.PRODUCT_CHANGED, 1, before={}, after={name: "x"})


@pytest.mark.parametrize("role", ["stock", "ordering"])
def test_writer_of_entries_reads_none(shop: ShopHarness, role: str) -> None:
    with (
        psycopg.connect(shop.role_url(role)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("select seq from shop.audit_log")
