"""mails that events cause

Revision ID: 0031
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

KINDS = (
    "'ORDER_PAID', 'ORDER_CANCELLED', 'REFUND_SUCCEEDED', 'USER_REGISTERED', 'PASSWORD_RESET', "
    "'INVITATION'"
)
FAILURES = "'UNREACHABLE', 'POSTPONED', 'NO_REPLY', 'REJECTED', 'EXHAUSTED', 'OBSOLETE'"
IS_OPEN = sa.text("status in ('PENDING', 'SENDING', 'UNKNOWN')")


def upgrade() -> None:
    op.create_table(
        "mails",
        sa.Column("event_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text()),
        sa.Column("reply_code", sa.SmallInteger()),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _now("created_at"),
        _now("updated_at"),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(f"kind in ({KINDS})", name="known_mail_kind"),
        sa.CheckConstraint(
            "status in ('PENDING', 'SENDING', 'UNKNOWN', 'SENT', 'FAILED')",
            name="known_mail_status",
        ),
        sa.CheckConstraint(f"failure in ({FAILURES})", name="known_mail_failure"),
        sa.CheckConstraint("tries >= 0", name="mail_tries_not_negative"),
        sa.CheckConstraint(
            "status <> 'FAILED' or failure in ('REJECTED', 'EXHAUSTED', 'OBSOLETE')",
            name="failed_mail_has_a_final_failure",
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("mails_pkey")),
        schema="shop",
        comment="writer: mails",
    )
    for name, column in (("mails_open", "next_try_at"), ("mails_open_by_age", "created_at")):
        op.create_index(name, "mails", [column], schema="shop", postgresql_where=IS_OPEN)
    for name, column in (("mails_by_subject", "subject_id"), ("mails_by_age", "created_at")):
        op.create_index(name, "mails", [column], schema="shop")


def _now(name: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )
