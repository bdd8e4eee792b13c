"""The catalogue in a language other than its own: texts of ``products.translations``.

Where a product has no text in the language, its own is shown.  A search finds both.  Lists are in
the order of the products' own names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from shop import catalog
from shop.adapters.statements import Query
from shop.catalog import ProductForSale, Wording

if TYPE_CHECKING:
    from shop.adapters.statements import Statement
    from shop.catalog import Filter, Position, ProductPage


class TranslatedProduct(ProductForSale):
    """A product as customers see it, and whether it has texts in the language."""

    is_translated: bool


_TEXTS: LiteralString = """
    coalesce(p.translations->%(language)s::text->>'name', p.name) as name,
    coalesce(p.translations->%(language)s::text->>'description', p.description) as description"""
# alternative texts are in the order of the images
_IMAGES: LiteralString = """(
      select coalesce(jsonb_agg(case when a.alt is null then i.image
        else i.image || jsonb_build_object('alt', a.alt) end order by i.place), '[]')
      from jsonb_array_elements(p.images) with ordinality i(image, place)
      left join jsonb_array_elements_text(p.translations->%(language)s::text->'imageAlts')
        with ordinality a(alt, place) using (place)
    ) as images"""
_MATCHING: LiteralString = """(strpos(lower(p.name), lower(%(name)s::text)) > 0
    or strpos(lower(p.translations->%(language)s::text->>'name'), lower(%(name)s::text)) > 0)"""
_IN_INDEX: LiteralString = """(
        (shop.ngrams(p.name, 1) || shop.ngrams(p.name, 2))
          @> shop.ngrams(%(name)s::text, %(ngram_length)s::int)
        or p.translations <> '{}'::jsonb
          and (shop.ngrams(shop.translated_names(p.translations), 1)
            || shop.ngrams(shop.translated_names(p.translations), 2))
          @> shop.ngrams(%(name)s::text, %(ngram_length)s::int))"""
TRANSLATED = Wording(texts=_TEXTS, images=_IMAGES, matching=_MATCHING, in_index=_IN_INDEX)

LISTS = catalog.lists(TRANSLATED)
SEARCHES = catalog.searches(TRANSLATED)

PRODUCT_FOR_SALE = Query(
    TranslatedProduct,
    catalog.product_sql(TRANSLATED, ", p.translations ? %(language)s::text as is_translated"),
)


def page(
    *, sort: str, filters: Filter, after: Position | None, limit: int, language: str
) -> Statement[ProductPage]:
    """One page of products in a language, as ``catalog.page``."""
    queries = SEARCHES if filters.name else LISTS
    shape = catalog.shape_of(sort, filters, after)
    return queries[shape](**catalog.parameters_of(filters, after, limit), language=language)


def product_for_sale(product_id: int, language: str) -> Statement[TranslatedProduct]:
    """A product that customers can buy, in a language; no row when there is none."""
    return PRODUCT_FOR_SALE(product_id=product_id, language=language)
