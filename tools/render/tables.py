"""Renders docs/reference/tables.md: the retention of every table."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Table

from shop.schema.tables import (
    METADATA,
    Bounded,
    DeletedWith,
    Kept,
    partitions_of,
    retention_of,
)
from tools.render.documents import MARK

PATH = Path("docs/reference/tables.md")

HEAD = f"""<!-- {MARK} -->

# Tables

What keeps each table of `shop/schema/tables.py` from growing for ever. Rows are deleted in batches
by the due job `retention` of `sweep`, except those in monthly partitions: the job `partitions`
creates months ahead, and drops one when all of its rows are past their retention ([ADR
42](../adr/0042-outbox-and-inbox-have-monthly-partitions.md)). Tables that grow with orders for good
have a plan, which is to be carried out when they no longer fit the database's memory.

| table | rows are deleted, or why not | partitions, or the plan |
|---|---|---|
"""


def render() -> dict[Path, str]:
    """The document, by path from the repository's root."""
    rows = "".join(_row(table) for table in METADATA.sorted_tables)
    return {PATH: HEAD + rows}


def _row(table: Table) -> str:
    retention, plan = _retention(table)
    return f"| `{table.name}` | {retention} | {plan} |\n"


def _retention(table: Table) -> tuple[str, str]:
    match retention_of(table):
        case Kept(reason, partition_plan):
            return f"kept: {reason}", "; ".join((*_months(table), partition_plan))
        case Bounded(by):
            return f"does not grow with orders: {by}", ""
        case DeletedWith(parent):
            return f"with their row of `{parent}`", ""
        case rules:
            ages = "; ".join(f"{rule.age} after `{rule.column}`" for rule in rules)
            return ages, "".join(_months(table))


def _months(table: Table) -> list[str]:
    monthly = partitions_of(table)
    return [f"a partition for each month of `{monthly.key}`"] if monthly else []
