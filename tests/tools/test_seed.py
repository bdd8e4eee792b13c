"""seed: a local shop has what the scenario needs, once, and a real shop never."""

from __future__ import annotations

import pytest

import tools.seed as seeding
from tests.harness import Rows, ShopHarness
from tools.seed import SeedNotAllowed, seed

SHELF = """
select p.product_id, p.name, p.category, p.price_minor, p.currency::text, s.on_hand,
  (select array_agg(m.kind || ' ' || m.qty) from shop.stock_moves m
   where m.product_id = p.product_id)
from shop.products p join shop.stock s using (product_id) order by p.product_id
"""


def test_the_shelf_holds_the_three_products(rows: Rows) -> None:
    assert rows(SHELF)[:3] == [
        (1, "테스트 상품 A", "전자", 10_000, "KRW", 100, ["INITIAL 100"]),
        (2, "테스트 상품 B", "생활", 15_000, "KRW", 50, ["INITIAL 50"]),
        (3, "테스트 상품 C", "식품", 5_000, "KRW", 5, ["INITIAL 5"]),
    ]


def test_every_role_has_an_account_that_can_log_in(accounts: ShopHarness) -> None:
    seeded = seed(accounts.admin_url)

    assert [role for role, _, _ in seeded] == ["customer", "staff", "support", "finance"]
    for role, email, password in seeded:
        token = accounts.log_in(email, password).json["accessToken"]
        assert accounts.call("GET", "/users/me", token=token).json["role"] == role


def test_a_second_run_changes_nothing_and_hashes_nothing(
    accounts: ShopHarness, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows("update shop.stock set on_hand = 90 where product_id = 1 returning product_id")
    everything = "select * from shop.users order by user_id"
    before = rows(SHELF), rows(everything)
    monkeypatch.setattr(seeding, "hash_password", None)

    seed(accounts.admin_url)

    assert (rows(SHELF), rows(everything)) == before


def test_products_of_staff_come_after_the_seeded_ones(accounts: ShopHarness, rows: Rows) -> None:
    insert = (
        "insert into shop.products (name, category, price_minor, currency)"
        " values ('시험', '전자', 1, 'KRW') returning product_id"
    )
    first = rows(insert)[0][0]

    seed(accounts.admin_url)

    assert first > 3
    assert rows(insert)[0][0] == first + 1


def test_the_prod_profile_refuses_published_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PROFILE", "prod")

    with pytest.raises(SeedNotAllowed):
        seed("postgresql://nobody@127.0.0.1:1/nowhere")
