"""Renders docs/PRIVACY.md: what the shop holds of a person, why and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from sqlalchemy import Table

from shop.schema.personal_data import tables_of_persons
from shop.schema.tables import (
    METADATA,
    Anonymous,
    Bounded,
    DeletedWith,
    Erased,
    Impersonal,
    Kept,
    Overwritten,
    PersonalData,
    personal_data_of,
    retention_of,
)
from tools.render.documents import MARK

PATH = Path("docs/PRIVACY.md")

HEAD = f"""<!-- {MARK} -->

# Privacy

What the shop holds of a person, why and for how long, as the tables of `shop/schema/tables.py`
declare it. `POST /users/me/export` answers with all of it as one JSON document. `DELETE /users/me`,
with the password, closes an account: its sessions end, and personal data is erased in the same
transaction; a due job erases again what transactions have added that began before it. Orders,
payments and the ledger stay, and name the closed account by its number only. The address may
register again, as another account ([ADR 46](adr/0046-tables-declare-personal-data.md)).

An account is not closed while an order, refund or dispute of it is open, or goods of it are to be
delivered or are expected back (409 `OPEN_ORDERS`: cancel the orders, or wait), nor while it has an
operator's role (409 `OPERATOR_ACCOUNT`: an administrator changes the role first). For a customer
who cannot log in, an administrator does the same with `DELETE /admin/users/{{userId}}` or `shop
account close`, which is in the audit log.

## How long, and what closing does

The setting `RETENTION` replaces the times in days, hours or minutes, by the names in brackets, such
as `sessions=90 days`; the due job `retention` deletes what is older
([configuration](./reference/configuration.md)). A closed account keeps its number for the records.

| table | what for | how long | when the account is closed |
|---|---|---|---|
"""
COLUMNS = """
## What

| table | column | what it is | in the export |
|---|---|---|---|
"""
ELSEWHERE = """
## Without personal data

These tables have no row of a person:

"""
TAIL = """
## Outside the tables

| where | what | how long |
|---|---|---|
| logs of functions | route, status and trace of a request; no address, name, token or body | as \
long as the platform keeps them |
| Redis | requests in a minute, by the number of an account or by a network | a minute |
| payment provider | the number of an order and amounts; cards never reach the shop | by its terms |
| back-ups | all tables as they were | as long as they are kept: after a restore, close again what \
was closed since |
"""


def render() -> dict[Path, str]:
    """The document, by path from the repository's root."""
    persons = list(reversed(tables_of_persons()))
    retentions = "".join(_retention_row(table, personal) for table, personal in persons)
    columns = "".join(row for table, personal in persons for row in _column_rows(table, personal))
    others = "".join(
        f"* `{table.name}`: {personal.holds}\n"
        for table in sorted(METADATA.sorted_tables, key=lambda each: each.name)
        if isinstance(personal := personal_data_of(table), Impersonal)
    )
    return {PATH: f"{HEAD}{retentions}{COLUMNS}{columns}{ELSEWHERE}{others}{TAIL}"}


def _retention_row(table: Table, personal: PersonalData) -> str:
    return f"| `{table.name}` | {personal.why} | {_how_long(table)} | {_when_closed(personal)} |\n"


def _how_long(table: Table) -> str:
    match retention_of(table):
        case Kept(reason, _):
            return f"kept: {reason}"
        case Bounded():
            return "until the person removes it"
        case DeletedWith(parent):
            return f"as its row of `{parent}`"
        case rules:
            return "; ".join(
                f"{rule.age} after `{rule.column}` (`{rule.job}`, at least {rule.least})"
                for rule in rules
            )


def _when_closed(personal: PersonalData) -> str:
    match personal.on_closing:
        case Erased():
            return "deleted"
        case Overwritten(values):
            return "overwritten: " + ", ".join(f"`{column}`" for column in values)
        case Anonymous(reason):
            return f"stays: {reason}"
        case _:
            assert_never(personal.on_closing)


def _column_rows(table: Table, personal: PersonalData) -> list[str]:
    held = [
        f"| `{table.name}` | `{column}` | {what} | yes |\n"
        for column, what in personal.held.items()
    ]
    left_out = [
        f"| `{table.name}` | `{column}` | {reason} | no |\n"
        for reason, columns in personal.left_out.items()
        for column in columns
    ]
    return held + left_out
