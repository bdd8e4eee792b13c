"""24 products with pictures for a shop on a development machine, beside those of ``tools.seed``.

``python -m tools.render`` draws the pictures as SVG files of plain shapes: no script, no style and
no reference.  Their names contain a digest of the content, as browsers keep them for a year.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import LiteralString

import psycopg

from shop.runtime.config import Settings
from tools import seed

FILE = Path(__file__).parent / "showcase.json"
# ids of products of one's own continue after them
FIRST_ID = 1001
GROUP = ("매일 머그", ("색",))

PALETTES = (
    ("#efe6d6", "#1f5f4f", "#d9a441", "#fbf8f1"),
    ("#dfe7e2", "#8a3f2b", "#e3b8a0", "#fdf6ef"),
    ("#e6e0ea", "#3b4a7a", "#c98fa0", "#f8f5fb"),
    ("#f3dfce", "#40584f", "#c9713f", "#fff8ef"),
)

INSERT_CATEGORIES: LiteralString = """
insert into shop.categories (name) select unnest(%(names)s::text[]) on conflict do nothing
"""
INSERT_GROUP: LiteralString = """
insert into shop.product_groups (group_id, name, options) overriding system value
values (%(group_id)s, %(name)s, %(options)s::text[]) on conflict do nothing
"""
INSERT_PRODUCT: LiteralString = """
with product as (
  insert into shop.products (product_id, name, description, category, price_minor, currency,
    images, translations, group_id, option_values)
  overriding system value
  values (%(product_id)s, %(name)s, %(description)s, %(category)s, %(price_minor)s, %(currency)s,
    %(images)s::jsonb, %(translations)s::jsonb, %(group_id)s::bigint, %(option_values)s::text[])
  on conflict (product_id) do nothing
  returning product_id
), inserted_stock as (
  insert into shop.stock (product_id, on_hand)
  select product_id, %(on_hand)s from product
  returning product_id, on_hand
)
insert into shop.stock_moves (product_id, kind, qty)
select product_id, 'INITIAL', on_hand from inserted_stock where on_hand > 0
"""
CONTINUE_IDS: LiteralString = """
select setval('shop.products_product_id_seq',
    greatest((select last_value from shop.products_product_id_seq), %(product_id)s)),
  setval('shop.product_groups_group_id_seq',
    greatest((select last_value from shop.product_groups_group_id_seq), %(group_id)s))
"""


@dataclass(frozen=True, kw_only=True)
class Showpiece:
    """A product and the shapes of its picture: ``A``, ``B`` and ``C`` stand for its colours."""

    slug: str
    name: str
    english: str
    description: str
    english_description: str
    category: str
    price_minor: int
    on_hand: int
    shapes: str
    option: str | None = None


@cache
def showpieces() -> tuple[Showpiece, ...]:
    """The products in the order of their ids."""
    return tuple(Showpiece(**product) for product in json.loads(FILE.read_text("utf-8")))


def picture_of(product: Showpiece) -> str:
    """The picture as SVG."""
    paper, *inks = PALETTES[showpieces().index(product) % len(PALETTES)]
    shapes = product.shapes
    for letter, ink in zip("ABC", inks, strict=True):
        shapes = shapes.replace(f'="{letter}"', f'="{ink}"')
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" stroke-linecap="round">'
        f'<rect width="100" height="100" fill="{paper}"/>'
        f'<ellipse cx="50" cy="81" rx="32" ry="3" opacity=".12"/>{shapes}</svg>\n'
    )


def file_name_of(product: Showpiece) -> str:
    """The name of the picture's file, which changes with its content."""
    digest = hashlib.sha256(picture_of(product).encode()).hexdigest()
    return f"{product.slug}-{digest[:8]}.svg"


def seed_shop(admin_url: str) -> list[tuple[str, str, str]]:
    """Seeds the database as ``tools.seed`` does, and with these products; repeatable."""
    accounts = seed.seed(admin_url)
    currency = Settings.currency
    with psycopg.connect(admin_url, connect_timeout=5) as connection:
        connection.execute(seed.LOCK)
        connection.execute(
            INSERT_CATEGORIES, {"names": sorted({product.category for product in showpieces()})}
        )
        name, options = GROUP
        group = {"group_id": FIRST_ID, "name": name, "options": list(options)}
        connection.execute(INSERT_GROUP, group)
        for product_id, product in enumerate(showpieces(), FIRST_ID):
            connection.execute(INSERT_PRODUCT, _row(product_id, product, currency))
        last = {"product_id": FIRST_ID + len(showpieces()), "group_id": FIRST_ID}
        connection.execute(CONTINUE_IDS, last)
    return accounts


def _row(product_id: int, product: Showpiece, currency: str) -> dict[str, object]:
    image = {"url": f"/assets/{file_name_of(product)}", "alt": product.name}
    english = {
        "name": product.english,
        "description": product.english_description,
        "imageAlts": [product.english],
    }
    return {
        "product_id": product_id,
        "name": product.name,
        "description": product.description,
        "category": product.category,
        "price_minor": product.price_minor,
        "currency": currency,
        "translations": json.dumps({"en": english}),
        "images": json.dumps([image], ensure_ascii=False),
        "group_id": FIRST_ID if product.option else None,
        "option_values": [product.option] if product.option else None,
        "on_hand": product.on_hand,
    }
