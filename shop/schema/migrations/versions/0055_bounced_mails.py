"""what was reported of mails after a server had accepted them

The table is locked for a moment only: its checks are proven while it is in use.  Each step can be
repeated.

Revision ID: 0055
"""

from __future__ import annotations

from alembic import op

revision = "0055"
down_revision = "0054"
branch_labels = None
depends_on = None

CHECKS = {
    "known_mail_bounce": "bounce in ('DELAYED', 'FAILED')",
    "mail_bounce_is_whole": "num_nulls(bounce, bounce_code, bounced_at) in (0, 3)",
    "mail_bounce_code_is_a_code": r"bounce_code ~ '^[45]\.[0-9]{1,3}\.[0-9]{1,3}$'",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("set lock_timeout = '2s'")
        op.execute(
            "alter table shop.mails add column if not exists bounce text, "
            "add column if not exists bounce_code text, "
            "add column if not exists bounced_at timestamptz"
        )
        for name, check in CHECKS.items():
            op.execute(
                f"alter table shop.mails drop constraint if exists {name}, "
                f"add constraint {name} check ({check}) not valid"
            )
            op.execute(f"alter table shop.mails validate constraint {name}")
        op.execute("reset lock_timeout")
