"""The products of a development machine: complete, with pictures of plain shapes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.harness import Rows, ShopHarness
from tools.render.pictures import FOLDER
from tools.showcase import FIRST_ID, Showpiece, file_name_of, picture_of, seed_shop, showpieces

ROOT = Path(__file__).resolve().parents[2]
ELEMENTS = {"svg", "rect", "path", "circle", "ellipse"}
PICTURE_BYTES_MAX = 1024


@pytest.mark.parametrize("product", showpieces(), ids=lambda product: product.slug)
def test_picture_is_small_and_consists_of_shapes(product: Showpiece) -> None:
    text = picture_of(product)
    elements = list(ElementTree.fromstring(text).iter())
    assert len(text) <= PICTURE_BYTES_MAX
    assert {element.tag.partition("}")[2] for element in elements} <= ELEMENTS
    assert not any(
        name.startswith("on") or "href" in name or "style" in name
        for element in elements
        for name in element.attrib
    )
    assert not {'="A"', '="B"', '="C"'} & {text}
    assert (ROOT / FOLDER / file_name_of(product)).read_text() == text


def test_there_are_24_products_with_options_and_every_state_of_stock() -> None:
    assert len(showpieces()) == 24
    assert len({product.slug for product in showpieces()}) == 24
    assert sum(product.option is not None for product in showpieces()) == 3
    assert any(product.on_hand == 0 for product in showpieces())


def test_second_seed_changes_nothing(accounts: ShopHarness, rows: Rows) -> None:
    query = """
    select product_id, name, images, group_id, translations->'en'->>'name'
    from shop.products order by product_id"""
    seed_shop(accounts.admin_url)
    before = rows(query)
    seed_shop(accounts.admin_url)
    assert rows(query) == before
    seeded = {row[0]: row[4] for row in before if FIRST_ID <= row[0] < FIRST_ID + 24}
    english = [product.english for product in showpieces()]
    assert seeded == dict(enumerate(english, FIRST_ID))
