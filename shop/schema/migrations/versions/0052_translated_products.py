"""texts of products in further languages

Revision ID: 0052
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0052"
down_revision = "0051"
branch_labels = None
depends_on = None

TRANSLATED_NAMES = """
create or replace function shop.translated_names(translations jsonb) returns text
language sql immutable strict parallel safe as $$
  select string_agg(value->>'name', E'\\n' order by key) from jsonb_each(translations)
$$
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '500ms'")
    op.add_column(
        "products",
        sa.Column("translations", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        schema="shop",
    )
    # validated by the next migration, which holds no lock that stops writes
    op.execute(
        "alter table shop.products add constraint translations_by_language "
        "check (jsonb_typeof(translations) = 'object') not valid"
    )
    op.execute(TRANSLATED_NAMES)
