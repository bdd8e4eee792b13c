"""the table of unmatched charges is called what it is

Revision ID: 0046
"""

from __future__ import annotations

from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None

STEPS = (
    "alter table shop.ghosts rename to unmatched_charges",
    "alter table shop.unmatched_charges rename constraint ghosts_pkey to unmatched_charges_pkey",
    "alter table shop.unmatched_charges rename constraint ghost_amount_is_not_negative "
    "to unmatched_amount_is_not_negative",
    "comment on table shop.unmatched_charges is 'writer: unmatched_charges; append only'",
    # in the same transaction: functions of the release before read and write the former name
    "create view shop.ghosts as "
    "select provider_key, amount_minor, currency, recorded_at from shop.unmatched_charges",
)


def upgrade() -> None:
    # the renaming locks the table for a moment
    op.execute("set local lock_timeout = '2s'")
    for step in STEPS:
        op.execute(step)
