"""searches of translated names read an index

Revision ID: 0053
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0053"
down_revision = "0052"
branch_labels = None
depends_on = None

NAME = "products_by_translated_ngram"
NAMES = "shop.translated_names(translations)"


def upgrade() -> None:
    op.execute("set local lock_timeout = '500ms'")
    op.execute("alter table shop.products validate constraint translations_by_language")
    with op.get_context().autocommit_block():
        # one of an interrupted migration is replaced
        op.drop_index(NAME, "products", schema="shop", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            NAME,
            "products",
            [sa.literal_column(f"(shop.ngrams({NAMES}, 1) || shop.ngrams({NAMES}, 2))")],
            schema="shop",
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
            postgresql_where=sa.text("translations <> '{}'::jsonb"),
            postgresql_concurrently=True,
        )
