"""Seeds a local database: three categories, three products and one account of each role.

For development and tests.  The passwords are public, so the ``prod`` profile is rejected.  A second
run changes nothing, neither stock nor prices.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from shop.accounts import email_key
from shop.adapters.passwords import hash_password
from shop.primitives.spec import ROLES
from shop.runtime.config import ConfigurationError, Settings

# (role, e-mail, password) of each account; the end-to-end run logs in with them
LOCAL_ACCOUNTS = tuple((role, f"{role}@shop.local", f"local-only-{role}") for role in ROLES)
CATEGORIES = ("전자", "생활", "식품")
NAMES = {
    "customer": "김손님",
    "staff": "이상품",
    "support": "박상담",
    "finance": "최정산",
    "admin": "한관리",
}

# Serializes concurrent runs, which would otherwise hash the same passwords, a slow operation.
LOCK: LiteralString = "select pg_advisory_xact_lock(hashtext('shop.seed'))"

INSERT_CATEGORIES: LiteralString = """
insert into shop.categories (name) select unnest(%(names)s::text[]) on conflict do nothing
"""

INSERT_PRODUCT: LiteralString = """
with product as (
  insert into shop.products (product_id, name, description, category, price_minor, currency)
  overriding system value
  values (%(product_id)s, %(name)s, %(description)s, %(category)s, %(price_minor)s,
    %(currency)s)
  on conflict (product_id) do nothing
  returning product_id
), inserted_stock as (
  insert into shop.stock (product_id, on_hand)
  select product_id, %(on_hand)s from product
  returning product_id, on_hand
)
insert into shop.stock_moves (product_id, kind, qty)
select product_id, 'INITIAL', on_hand from inserted_stock
"""

# Ids of new products continue after the seeded ones.  The sequence is never set back, because an
# uncommitted transaction may have taken an id.
CONTINUE_IDS: LiteralString = """
select setval('shop.products_product_id_seq', greatest(last_value, %(last_id)s))
from shop.products_product_id_seq
"""

KNOWN_ACCOUNTS: LiteralString = """
select email_key from shop.users where email_key = any(%(email_keys)s::text[])
"""

INSERT_ACCOUNT: LiteralString = """
with created as (
  insert into shop.users (email, email_key, name, password_hash, role)
  values (%(email)s, %(email_key)s, %(name)s, %(password_hash)s, %(role)s)
  on conflict (email_key) do nothing
  returning user_id, role, state
)
insert into shop.audit_log (actor_kind, action, object_kind, object_id, after, trace_id)
select 'COMMAND', 'user.created', 'user', user_id::text,
  jsonb_build_object('role', role, 'state', state), ''
from created where role <> 'customer'
"""


@dataclass(frozen=True)
class Product:
    """A seeded product; the price is in the minor unit of the shop's currency."""

    product_id: int
    name: str
    category: str
    price_minor: int
    on_hand: int


PRODUCTS = (
    Product(1, "테스트 상품 A", "전자", 10_000, 100),
    Product(2, "테스트 상품 B", "생활", 25_000, 50),
    Product(3, "테스트 상품 C", "식품", 5_000, 5),
)


class SeedNotAllowed(ConfigurationError):
    """The ``prod`` profile does not allow seeding."""


def seed(admin_url: str) -> list[tuple[str, str, str]]:
    """Seeds the database at ``admin_url``; returns role, e-mail and password of each account.

    Raises ``SeedNotAllowed`` when ``SHOP_PROFILE`` is ``prod``, before connecting.
    """
    if os.environ.get("SHOP_PROFILE") == "prod":
        raise SeedNotAllowed("the prod profile has no accounts with published passwords")
    accounts = list(LOCAL_ACCOUNTS)
    with psycopg.connect(admin_url, connect_timeout=5) as connection:
        connection.execute(LOCK)
        connection.execute(INSERT_CATEGORIES, {"names": list(CATEGORIES)})
        for product in PRODUCTS:
            _insert_product(connection, product)
        connection.execute(CONTINUE_IDS, {"last_id": len(PRODUCTS)})
        _insert_accounts(connection, accounts)
    return accounts


def _insert_product(connection: psycopg.Connection, product: Product) -> None:
    connection.execute(
        INSERT_PRODUCT,
        {
            "product_id": product.product_id,
            "name": product.name,
            "description": f"{product.name}: {product.category}",
            "category": product.category,
            "price_minor": product.price_minor,
            "currency": os.environ.get("CURRENCY") or Settings.currency,
            "on_hand": product.on_hand,
        },
    )


def _insert_accounts(connection: psycopg.Connection, accounts: list[tuple[str, str, str]]) -> None:
    """Hashes only the passwords of missing accounts, because hashing is slow."""
    keys = [email_key(email) for _, email, _ in accounts]
    known = {row[0] for row in connection.execute(KNOWN_ACCOUNTS, {"email_keys": keys})}
    for role, email, password in accounts:
        if email_key(email) in known:
            continue
        connection.execute(
            INSERT_ACCOUNT,
            {
                "email": email,
                "email_key": email_key(email),
                "name": NAMES[role],
                "password_hash": hash_password(password),
                "role": role,
            },
        )
