"""a search for any text reads an index, or the first products in the order of the page

The index on trigrams stays for functions of the version before.

Revision ID: 0013
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# The texts of so many characters in a name, in lower case as PostgreSQL's lower() makes it.
NGRAMS = """
create or replace function shop.ngrams(name text, length int) returns text[]
language plpgsql immutable strict parallel safe as $$
declare
  letters text := lower(name);
  found text[] := '{}';
begin
  for n in 1 .. char_length(letters) - length + 1 loop
    found[n] := substr(letters, n, length);
  end loop;
  return found;
end $$
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.execute(NGRAMS)
    with op.get_context().autocommit_block():
        # without a list of pending entries, which every search would read
        _create(
            "products_by_name_ngram",
            [sa.literal_column("(shop.ngrams(name, 1) || shop.ngrams(name, 2))")],
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
        )
        _create(
            "products_by_price_with_name",
            ["price_minor", "product_id"],
            postgresql_include=["name"],
            postgresql_where=sa.text("active"),
        )
        _drop("products_by_price")


def _create(name: str, columns: list[Any], **options: Any) -> None:
    _drop(name)  # one of an interrupted migration
    op.create_index(
        name, "products", columns, schema="shop", postgresql_concurrently=True, **options
    )


def _drop(name: str) -> None:
    op.drop_index(name, "products", schema="shop", if_exists=True, postgresql_concurrently=True)
