"""tools.seed: the products and accounts of a local shop, created once, never in production."""

from __future__ import annotations

import pytest

import tools.seed as seeding
from shop.primitives.spec import ROLES
from tests.harness import Rows, ShopHarness
from tools.seed import SeedNotAllowed, seed

PRODUCTS = """
select p.product_id, p.name, p.category, p.price_minor, p.currency::text, s.on_hand,
  (select array_agg(m.kind || ' ' || m.qty) from shop.stock_moves m
   where m.product_id = p.product_id)
from shop.products p join shop.stock s using (product_id) order by p.product_id
"""


def test_seed_contains_three_products_with_stock(rows: Rows) -> None:
    assert rows(PRODUCTS)[:3] == [
        (1, "테스트 상품 A", "전자", 10_000, "KRW", 100, ["INITIAL 100"]),
        (2, "테스트 상품 B", "생활", 25_000, "KRW", 50, ["INITIAL 50"]),
        (3, "테스트 상품 C", "식품", 5_000, "KRW", 5, ["INITIAL 5"]),
    ]


def test_seeded_account_of_each_role_can_log_in(accounts: ShopHarness) -> None:
    seeded = seed(accounts.admin_url)

    assert [role for role, _, _ in seeded] == list(ROLES)
    for role, email, password in seeded:
        token = accounts.log_in(email, password).json["accessToken"]
        assert accounts.call("GET", "/users/me", token=token).json["role"] == role


def test_second_run_changes_and_hashes_nothing(
    accounts: ShopHarness, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows("update shop.stock set on_hand = 90 where product_id = 1 returning product_id")
    users = "select * from shop.users order by user_id"
    before = rows(PRODUCTS), rows(users)
    monkeypatch.setattr(seeding, "hash_password", None)

    seed(accounts.admin_url)

    assert (rows(PRODUCTS), rows(users)) == before


def test_new_products_get_ids_after_the_seeded_ones(accounts: ShopHarness, rows: Rows) -> None:
    insert = (
        "insert into shop.products (name, category, price_minor, currency)"
        " values ('시험', '전자', 1, 'KRW') returning product_id"
    )
    first = rows(insert)[0][0]

    seed(accounts.admin_url)

    assert first > 3
    assert rows(insert)[0][0] == first + 1


def test_prod_profile_rejects_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PROFILE", "prod")

    with pytest.raises(SeedNotAllowed):
        seed("postgresql://user@127.0.0.1:1/none")
