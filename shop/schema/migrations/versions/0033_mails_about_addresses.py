"""mails about the addresses of accounts

Revision ID: 0033
"""

from __future__ import annotations

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

KINDS = (
    "'ORDER_PAID', 'ORDER_CANCELLED', 'REFUND_SUCCEEDED', 'USER_REGISTERED', 'PASSWORD_RESET', "
    "'INVITATION', 'EMAIL_VERIFICATION', 'EMAIL_CHANGE', 'EMAIL_CHANGED'"
)


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.drop_constraint("known_mail_kind", "mails", schema="shop")
    op.create_check_constraint("known_mail_kind", "mails", f"kind in ({KINDS})", schema="shop")
