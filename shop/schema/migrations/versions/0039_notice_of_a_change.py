"""mails to the address of before when a change of it is requested

Revision ID: 0039
"""

from __future__ import annotations

from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

KINDS = (
    "'ORDER_PAID', 'ORDER_CANCELLED', 'REFUND_SUCCEEDED', 'USER_REGISTERED', 'PASSWORD_RESET', "
    "'INVITATION', 'EMAIL_VERIFICATION', 'EMAIL_CHANGE', 'EMAIL_CHANGE_STARTED', 'EMAIL_CHANGED'"
)


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.drop_constraint("known_mail_kind", "mails", schema="shop")
    op.create_check_constraint("known_mail_kind", "mails", f"kind in ({KINDS})", schema="shop")
