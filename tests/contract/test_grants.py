"""Each role has exactly the declared rights; customers' rows are hidden by default."""

from __future__ import annotations

from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest

from shop.registry import all_specs
from shop.schema.grants import ALL, APPEND_ONLY, CUSTOMER_TABLES, GRANTS, ROW_SECURITY_TABLES
from tests.harness import ShopHarness
from tools.checker.evaluate import ExternalRecords, first_rows, load_external_records
from tools.checker.invariants import INVARIANTS
from tools.local_platform.function_environment import url_of_role
from tools.migrate import migrate
from tools.render.keda import due_query, due_schedules

PASSWORD = "of-the-owner"
READS_ADDRESSES = {"shop_identity", "shop_accounts", "shop_back_office", "shop_notices"}

TABLE_RIGHTS = """
select coalesce(r.rolname, 'public'), c.relname, lower(a.privilege_type), '*'
from pg_class c cross join lateral aclexplode(c.relacl) a left join pg_roles r on r.oid = a.grantee
where c.relnamespace = 'shop'::regnamespace and a.grantee <> c.relowner
"""
COLUMN_RIGHTS = """
select coalesce(r.rolname, 'public'), c.relname, lower(a.privilege_type), t.attname
from pg_attribute t join pg_class c on c.oid = t.attrelid
cross join lateral aclexplode(t.attacl) a left join pg_roles r on r.oid = a.grantee
where c.relnamespace = 'shop'::regnamespace
"""


def _rows(url: str, query: str) -> set[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return set(connection.execute(query.encode()).fetchall())


def test_each_role_has_exactly_the_declared_rights(database_url: str) -> None:
    declared = {
        (role, table, right, column)
        for role, tables in GRANTS.items()
        for table, rights in tables.items()
        for right, columns in rights.items()
        for column in (columns if columns != ALL else ("*",))
    }

    actual = _rows(database_url, TABLE_RIGHTS) | _rows(database_url, COLUMN_RIGHTS)

    assert actual - declared == set(), "surplus rights"
    assert declared - actual == set(), "missing rights"


def test_scaler_counts_due_rows_and_reads_nothing_else(database_url: str) -> None:
    url = url_of_role(database_url, "shop_scaler")

    for _, schedule in due_schedules():
        assert _rows(url, due_query(schedule)) == {(0,)}
    for query in ("select id from shop.due_work", "select kind from shop.overdue"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            _rows(url, query)


def test_auditor_may_read_what_every_invariant_reads(database_url: str) -> None:
    denied: dict[str, str] = {}
    url = url_of_role(database_url, "shop_auditor")
    with psycopg.connect(url, autocommit=True) as connection:
        load_external_records(connection, ExternalRecords())
        for invariant in INVARIANTS:
            try:
                first_rows(connection, invariant.query)
            except psycopg.errors.InsufficientPrivilege as error:
                denied[invariant.id] = str(error)
    assert denied == {}


def test_no_function_role_bypasses_row_security(database_url: str) -> None:
    rows = _rows(
        database_url,
        "select rolname from pg_roles where rolname like 'shop_%' "
        "and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)",
    )
    assert rows == set()


def test_no_role_updates_or_deletes_append_only_rows() -> None:
    for role, tables in GRANTS.items():
        for table in APPEND_ONLY:
            assert not {"update", "delete", "truncate"} & set(tables.get(table, {})), (role, table)


def test_only_the_relay_deletes_rows_of_the_inbox_and_no_role_updates_them() -> None:
    rights = {(role, right) for role, tables in GRANTS.items() for right in tables.get("inbox", {})}

    assert {role for role, right in rights if right in ("delete", "truncate")} == {"shop_relay"}
    assert not {role for role, right in rights if right == "update"}


def test_row_security_is_forced(database_url: str) -> None:
    rows = _rows(
        database_url,
        "select relname from pg_class where relnamespace = 'shop'::regnamespace "
        "and relrowsecurity and relforcerowsecurity",
    )
    assert {name for (name,) in rows} == set(ROW_SECURITY_TABLES)


@pytest.mark.parametrize("user_id", [None, "", "0"])
def test_without_a_caller_the_ordering_role_sees_nothing(
    shop: ShopHarness, user_id: str | None
) -> None:
    buyer, product = shop.person(), shop.product()
    buyer.paid_order(product)
    buyer.post("/cart/items", {"productId": product, "quantity": 1})

    with psycopg.connect(shop.role_url("ordering")) as connection:
        if user_id is not None:
            connection.execute("select set_config('shop.user_id', %s, true)", (user_id,))
        for table in CUSTOMER_TABLES:
            rows = connection.execute(f"select * from shop.{table}".encode()).fetchall()
            assert rows == [], table


def test_a_customer_sees_and_changes_only_own_rows(shop: ShopHarness) -> None:
    buyer, other, product = shop.person(), shop.person(), shop.product()
    mine, theirs = buyer.order(product), other.order(product)

    with psycopg.connect(shop.role_url("ordering")) as connection:
        connection.execute("select set_config('shop.user_id', %s, true)", (str(buyer.user_id),))
        seen = connection.execute("select order_id::text from shop.orders").fetchall()
        moved = connection.execute(
            "update shop.orders set updated_at = now() where order_id = %s", (theirs["id"],)
        ).rowcount
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "insert into shop.cart_items (user_id, product_id, qty) values (%s, %s, 1)",
                (other.user_id, product),
            )

    assert (seen, moved) == ([(mine["id"],)], 0)


def test_due_work_shows_all_rows_when_the_owner_is_not_a_superuser(
    postgres_url: str, template_url: str
) -> None:
    """As on a managed server; forced row security must not hide rows from the view ``due_work``."""
    assert template_url, "the roles are there: they belong to all databases of a server"
    owner = f"owner_{uuid4().hex[:8]}"
    own_url = f"{url_of_role(postgres_url, owner, PASSWORD).rsplit('/', 1)[0]}/{owner}"
    relay_url = f"{url_of_role(postgres_url, 'shop_relay').rsplit('/', 1)[0]}/{owner}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"create role {owner} login createrole password '{PASSWORD}'".encode())
        admin.execute(f"grant pg_read_all_stats to {owner} with admin option".encode())
        for role in sorted(GRANTS):  # as PostgreSQL gives it to a role that creates another
            how = "with admin true, inherit false, set false"
            admin.execute(f"grant {role} to {owner} {how}".encode())
        admin.execute(f"create database {owner} owner {owner}".encode())
        try:
            migrate(own_url)
            _an_order_to_charge(own_url, url_of_role(relay_url, "shop_ordering"))
            with psycopg.connect(relay_url) as connection:
                due = connection.execute("select kind from shop.due_work").fetchall()
        finally:
            admin.execute(f"drop database {owner} with (force)".encode())
            admin.execute(f"drop owned by {owner}".encode())
            admin.execute(f"drop role {owner}".encode())

    assert {"charge", "reconcile"} <= {kind for (kind,) in due}


def _an_order_to_charge(own_url: str, ordering_url: str) -> None:
    """Written as the function's own role, since not even the owner may write customers' rows."""
    with psycopg.connect(own_url) as connection:
        row = connection.execute(
            "insert into shop.users (email, email_key, name, password_hash) "
            "values ('a@b.kr', 'a@b.kr', 'A', '!') returning user_id"
        ).fetchone()
    assert row is not None
    with psycopg.connect(ordering_url) as connection:
        connection.execute("select set_config('shop.user_id', %s, true)", (str(row[0]),))
        connection.execute(
            "insert into shop.orders (order_id, user_id, status, total_minor, currency, "
            "payment_method, expires_at, hard_expires_at, charge_at) values "
            "(gen_random_uuid(), %s, 'PENDING', 1, 'KRW', 'CARD', now(), now(), now())",
            row,
        )


INSERT_EVENT: LiteralString = (
    "insert into shop.outbox (event_id, source, type, subject, data, traceparent, next_try_at) "
    "values (gen_random_uuid(), %s, %s, '1', '{}', '', now())"
)
EMITTING_ROLES = sorted(
    role for role, tables in GRANTS.items() if "insert" in tables.get("outbox", {})
)


@pytest.mark.parametrize("role", EMITTING_ROLES)
def test_role_writes_only_declared_events_in_the_name_of_its_own_functions(
    shop: ShopHarness, role: str
) -> None:
    declared = {
        (spec.source, name)
        for spec in all_specs()
        if f"shop_{spec.database_role}" == role
        for name in spec.emits
    }
    foreign = {
        (spec.source, name)
        for spec in all_specs()
        if f"shop_{spec.database_role}" != role
        for name in spec.emits
    }
    own_source = min(declared)[0]
    url = shop.role_url(role.removeprefix("shop_"))
    with psycopg.connect(url, autocommit=True) as connection:
        for event in sorted(declared):
            connection.execute(INSERT_EVENT, event)
        for event in [*sorted(foreign), (own_source, "order.teleported"), ("/shop/clock", "x")]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(INSERT_EVENT, event)


@pytest.mark.parametrize("column", ["role", "active", "created_at"])
def test_identity_cannot_insert_an_account_with_rights(shop: ShopHarness, column: str) -> None:
    values = {"role": "'staff'", "active": "false", "created_at": "now()"}
    statement = (
        f"insert into shop.users (email, email_key, name, password_hash, {column}) "
        f"values ('a@b.kr', 'a@b.kr', 'A', '!', {values[column]})"
    )
    with (
        psycopg.connect(shop.role_url("identity")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


@pytest.mark.parametrize("role", ["identity", "ordering", "stock"])
def test_stored_responses_are_visible_to_their_trust_domain_only(
    shop: ShopHarness, role: str
) -> None:
    """The stored response of a registration has the customer's e-mail address and name."""
    own = {"identity": "POST /users", "ordering": "POST /orders", "stock": "POST /products"}
    for scope in own.values():
        shop.sql(
            "insert into shop.idempotency (user_id, scope, key, fingerprint, state, status_code, "
            "body) values (0, %s, 'k', '', 'DONE', 201, 'personal')",
            scope,
        )

    with psycopg.connect(shop.role_url(role)) as connection:
        rows = connection.execute("select scope, body from shop.idempotency").fetchall()
        foreign = next(scope for name, scope in own.items() if name != role)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "insert into shop.idempotency (user_id, scope, key, fingerprint, state) "
                "values (0, %s, 'other', '', 'STARTED')",
                (foreign,),
            )

    assert rows == [(own[role], b"personal")]


@pytest.mark.parametrize("role", sorted(set(GRANTS) - READS_ADDRESSES))
def test_no_other_role_reads_addresses_names_or_stored_registrations(
    shop: ShopHarness, role: str
) -> None:
    shop.register("personal@test.kr", headers={"idempotency-key": "a-key-of-sixteen-characters"})
    (stored,) = shop.sql("select scope, body from shop.idempotency")
    assert b"personal@test.kr" in stored["body"]
    rights = GRANTS[role]
    assert not {"email", "email_key", "name", "*"} & set(rights.get("users", {}).get("select", ()))

    with psycopg.connect(shop.role_url(role.removeprefix("shop_"))) as connection:
        try:
            rows = connection.execute("select body from shop.idempotency").fetchall()
        except psycopg.errors.InsufficientPrivilege:
            rows = []

    assert rows == []
