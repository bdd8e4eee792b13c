"""the log of operators' writes

Revision ID: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from shop.schema.triggers_and_views import APPEND_ONLY_TRIGGER

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# From then on every write of an operator has an entry (invariant I-26).
STARTED = """
insert into shop.audit_log (actor_kind, action, object_kind, object_id, trace_id)
values ('COMMAND', 'audit_log.started', 'audit_log', '1', '')
"""


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.BigInteger()),
        sa.Column("actor_role", sa.Text()),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("before", postgresql.JSONB()),
        sa.Column("after", postgresql.JSONB()),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "actor_kind in ('PERSON', 'SERVICE', 'COMMAND')", name="known_actor_kind"
        ),
        sa.CheckConstraint(
            "(actor_kind = 'COMMAND') = (actor_id is null)", name="command_has_no_id"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("audit_log_pkey")),
        schema="shop",
        comment="writer: audit_log; append only",
    )
    for name, columns in (
        ("audit_log_by_actor", ["actor_id", "seq"]),
        ("audit_log_by_action", ["action", "seq"]),
        ("audit_log_by_object", ["object_kind", "object_id", "seq"]),
    ):
        op.create_index(name, "audit_log", columns, schema="shop")
    op.execute(APPEND_ONLY_TRIGGER.format(table="audit_log"))
    op.execute(STARTED)
