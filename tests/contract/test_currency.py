"""A shop has one currency: a change of the setting is refused, and the seed follows it."""

from __future__ import annotations

import psycopg
import pytest

from tests.harness import MakeShop
from tools.migrate import migrate
from tools.seed import seed


def test_migrate_refuses_another_currency_than_that_of_the_products(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURRENCY", "USD")

    with pytest.raises(ValueError, match="priced in KRW; for USD, use a new database"):
        migrate(database_url)

    monkeypatch.setenv("CURRENCY", "KRW")
    migrate(database_url)


def test_product_in_another_currency_than_the_others_gets_422(make_shop: MakeShop) -> None:
    shop = make_shop(currency="USD")
    before = shop.sql("select count(*) as n from shop.products")

    answer = shop.person("staff").post(
        "/products", {"name": "x", "category": "전자", "price": 999, "stockQuantity": 1}
    )

    assert (answer.status, answer.error) == (422, "INVALID")
    assert answer.json["message"] == "this shop's products are priced in KRW"
    assert shop.sql("select count(*) as n from shop.products") == before


def test_first_product_may_have_any_currency(make_shop: MakeShop) -> None:
    shop = make_shop(currency="USD")
    _delete_products(shop.admin_url)

    answer = shop.person("staff").post(
        "/products", {"name": "x", "category": "전자", "price": 999, "stockQuantity": 1}
    )

    assert (answer.status, answer.json["currency"]) == (201, "USD")


def test_seed_follows_the_currency_setting(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURRENCY", "USD")
    _delete_products(database_url)

    seed(database_url)

    with psycopg.connect(database_url) as connection:
        currencies = connection.execute("select distinct currency from shop.products").fetchall()
    assert currencies == [("USD",)]


def _delete_products(admin_url: str) -> None:
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        for table in ("stock_moves", "stock", "price_changes", "products"):
            connection.execute(f"delete from shop.{table}".encode())
