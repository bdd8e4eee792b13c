"""notes of operators about orders and accounts

Revision ID: 0034
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # the foreign keys lock orders and users for a moment
    op.execute("set local lock_timeout = '2s'")
    op.create_table(
        "notes",
        sa.Column("note_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID()),
        sa.Column("user_id", sa.BigInteger()),
        sa.Column("author_id", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint("num_nonnulls(order_id, user_id) = 1", name="about_one"),
        sa.CheckConstraint("char_length(text) between 1 and 2000", name="note_length"),
        sa.ForeignKeyConstraint(
            ["order_id"], ["shop.orders.order_id"], name=op.f("notes_order_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["shop.users.user_id"], name=op.f("notes_user_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["author_id"], ["shop.users.user_id"], name=op.f("notes_author_id_fkey")
        ),
        sa.PrimaryKeyConstraint("note_id", name=op.f("notes_pkey")),
        schema="shop",
        comment="writer: notes; append only",
    )
    for name, columns in (
        ("notes_by_order", ["order_id", "note_id"]),
        ("notes_by_user", ["user_id", "note_id"]),
    ):
        op.create_index(
            name,
            "notes",
            columns,
            schema="shop",
            postgresql_where=sa.text(f"{columns[0]} is not null"),
        )
    op.create_index("notes_by_age", "notes", ["at"], schema="shop")
    # deleted once they are old, never changed
    op.execute(
        "create trigger append_only before update on shop.notes "
        "for each row execute function shop.refuse_change()"
    )
    op.execute(
        "create trigger never_emptied before truncate on shop.notes "
        "for each statement execute function shop.refuse_change()"
    )
