"""keys of second factors, and mails about second factors and passwords

Revision ID: 0051
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None

KINDS = (
    "'ORDER_PAID', 'ORDER_CANCELLED', 'REFUND_SUCCEEDED', 'USER_REGISTERED', 'PASSWORD_RESET', "
    "'INVITATION', 'EMAIL_VERIFICATION', 'EMAIL_CHANGE', 'EMAIL_CHANGE_STARTED', 'EMAIL_CHANGED', "
    "'PASSWORD_CHANGED', 'SECOND_FACTOR_ENABLED', 'SECOND_FACTOR_REMOVED', "
    "'RECOVERY_CODES_RENEWED', 'RECOVERY_CODE_USED'"
)


def upgrade() -> None:
    op.execute("set local lock_timeout = '500ms'")
    op.add_column("second_factors", sa.Column("key_id", sa.Text()), schema="shop")
    op.add_column("second_factors", sa.Column("salt", sa.UUID()), schema="shop")
    op.add_column("second_factors", sa.Column("pad", sa.LargeBinary()), schema="shop")
    # the table has one row of each operator
    op.create_check_constraint(
        "factor_has_salt_and_pad_or_neither",
        "second_factors",
        "(salt is null) = (pad is null) and (pad is null or key_id is not null)",
        schema="shop",
    )
    op.drop_constraint("known_mail_kind", "mails", schema="shop")
    op.create_check_constraint("known_mail_kind", "mails", f"kind in ({KINDS})", schema="shop")
