"""Alembic's environment: one connection passed in by ``tools.migrate``, one schema."""

from __future__ import annotations

from alembic import context

from shop.schema.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=METADATA,
    include_schemas=True,
    version_table_schema="shop",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
