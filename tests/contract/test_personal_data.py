"""Each table declares what it holds of a person; export and closing are made from it."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Table

from shop.schema.personal_data import CALLED_BY, tables_of_persons
from shop.schema.retention import changeable
from shop.schema.tables import (
    METADATA,
    Bounded,
    DeletedWith,
    Impersonal,
    Kept,
    Overwritten,
    PersonalData,
    deletions_of,
    personal_data_of,
    retention_of,
)
from tools.local_platform.function_environment import url_of_role

# columns that name a person wherever they are
OF_A_PERSON = {
    "user_id", "actor_id", "requested_by", "changed_by", "created_by", "account_id",
    "customer_id", "author_id", "actor",
    "email", "email_key", "recipient", "address", "phone", "network",
}  # fmt: skip
FUNCTION_RIGHTS = """
select p.oid::regprocedure::text, coalesce(r.rolname, 'public') from pg_proc p
cross join lateral aclexplode(p.proacl) a left join pg_roles r on r.oid = a.grantee
where p.pronamespace = 'shop'::regnamespace and p.prosecdef and a.grantee <> p.proowner
"""
PERSONS = tables_of_persons()


@pytest.mark.parametrize("table", METADATA.sorted_tables, ids=lambda table: table.name)
def test_every_table_declares_what_it_holds_of_a_person(table: Table) -> None:
    personal = personal_data_of(table)
    if isinstance(personal, Impersonal):
        names_persons = {key.column.table.name for key in table.foreign_keys} & {"users"}
        assert personal.holds
        assert not names_persons and not OF_A_PERSON & set(table.columns.keys())
    else:
        assert personal.why and all(personal.held.values())


@pytest.mark.parametrize(("table", "personal"), PERSONS, ids=[t.name for t, _ in PERSONS])
def test_every_column_of_a_persons_row_is_exported_or_left_out_for_a_reason(
    table: Table, personal: PersonalData
) -> None:
    left_out = [column for columns in personal.left_out.values() for column in columns]

    assert sorted([*personal.held, *left_out]) == sorted(table.columns.keys())


@pytest.mark.parametrize(("table", "personal"), PERSONS, ids=[t.name for t, _ in PERSONS])
def test_rows_that_are_kept_after_closing_belong_to_a_record_that_is_kept(
    table: Table, personal: PersonalData
) -> None:
    if isinstance(personal.on_closing, Overwritten):
        assert set(personal.on_closing.values) <= set(table.columns.keys())
    is_record = isinstance(retention_of(table), Kept)
    assert is_record or personal.on_closing.__class__.__name__ == "Erased"


@pytest.mark.parametrize(("table", "personal"), PERSONS, ids=[t.name for t, _ in PERSONS])
def test_how_long_a_persons_rows_are_kept_is_a_setting_or_a_record(
    table: Table, personal: PersonalData
) -> None:
    jobs = {rule.job for rule in deletions_of(table)}

    assert personal.why and jobs <= set(changeable())
    if not jobs:
        is_left = isinstance(retention_of(table), (Kept, Bounded, DeletedWith))
        assert is_left and table.name not in changeable()


def test_each_function_with_the_owners_rights_is_called_by_one_role(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(FUNCTION_RIGHTS).fetchall()

    ours = {(f"shop.{name}", role) for name, role in CALLED_BY.items()}
    assert ours == {row for row in found if "partition" not in row[0]}


@pytest.mark.parametrize("account", ["", "0", "77777"])
def test_without_an_account_nothing_is_exported_or_closed(database_url: str, account: str) -> None:
    with psycopg.connect(url_of_role(database_url, "shop_identity")) as connection:
        connection.execute("select set_config('shop.user_id', %s, true)", (account,))
        exported = connection.execute("select shop.personal_data()").fetchone()
        closed = connection.execute("select is_closed from shop.close_account('')").fetchone()

    assert (exported, closed) == ((None,), (False,))
