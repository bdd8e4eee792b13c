"""Migrates a database: schema migrations, views, roles, grants, row security and subscriptions.

Idempotent; an advisory lock serializes concurrent runs.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from psycopg import Cursor
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.event import listen
from sqlalchemy.exc import OperationalError

from shop.adapters.connection_attempts import ConnectionAttempts
from shop.registry import all_specs
from shop.schema.grants import (
    GRANTS,
    POLICIES,
    READS_ACTIVITY,
    ROW_SECURITY_TABLES,
    grant_statements,
    policy_statements,
    role_settings,
)
from shop.schema.partitions import partition_grants, partitioned_tables
from shop.schema.personal_data import erasure_policies, personal_data_grants
from shop.schema.retention import retention_statement
from shop.schema.views import VIEWS

MIGRATIONS = Path(__file__).parent.parent / "shop" / "schema" / "migrations"
MIGRATION_LOCK = 7_203_115
# The oldest major version that the project of PostgreSQL maintains, and that migrations accept.
POSTGRESQL_MIN = 15
# Shorter than that of functions, which wait behind a transaction that waits for an exclusive lock.
LOCK_TIMEOUT = "500ms"
LOCK_ATTEMPTS = 20
# What released migrations set, which are not edited any more.
LONGER_TIMEOUT = re.compile(r"(set (?:local )?lock_timeout = )'2s'", re.IGNORECASE)
# Waits for every older transaction, and nothing waits behind it meanwhile.
CONCURRENTLY = re.compile(r"(?:create|drop) (?:unique )?index concurrently ", re.IGNORECASE)
ABOUT_TABLE = re.compile(r"(?:alter table|create policy \w+ on) shop\.(\w+) ")
# The time zone of the view due_work in a database without the setting.
DEFAULT_TIME_ZONE = "Asia/Seoul"

# Returns no row for a time zone unknown to PostgreSQL.
SET_ZONE_STATEMENT = """
select 'alter database ' || quote_ident(current_database())
  || ' set shop.business_time_zone = ' || quote_literal(name) as statement
from pg_timezone_names where name = %(zone)s
"""

# Each role's own defaults, and whether it has others in this database.
ROLE_SETTINGS_STATEMENT = """
select r.rolname, max(s.setconfig) filter (where s.setdatabase = 0), bool_or(s.setdatabase <> 0)
from pg_roles r join pg_db_role_setting s on s.setrole = r.oid
left join pg_database d on d.oid = s.setdatabase
where r.rolname = any(%(names)s) and (s.setdatabase = 0 or d.datname = current_database())
group by r.rolname
"""


# Migration 0047 commits its tables before its checks, and would create them again.  No function
# writes them before a version is recorded that has them.
INTERRUPTED_0047 = """
do $$ begin
  if to_regclass('shop.returns') is null then return; end if;
  if exists (select from shop.alembic_version where version_num = '0046') then
    drop table shop.return_lines, shop.returns;
    alter table shop.reservations drop column returned_qty;
  end if;
end $$
"""


def migrate(admin_url: str, *, business_time_zone: str = "") -> None:
    """Applies missing migrations, then the declared views, roles, rights and subscriptions.

    ``admin_url`` is a PostgreSQL URL of a role that may create roles.  ``business_time_zone`` is
    the zone in which ``due_work`` ends a day, by default the environment's ``BUSINESS_TIME_ZONE``;
    changing the database's zone requires a superuser.  Raises ValueError for a server or database
    that the shop cannot use, and PostgreSQL's errors; a migration that was interrupted is applied
    by the next run.
    """
    zone = business_time_zone or os.environ.get("BUSINESS_TIME_ZONE") or DEFAULT_TIME_ZONE
    engine = create_engine(_sqlalchemy_url(admin_url), isolation_level="AUTOCOMMIT")
    with ConnectionAttempts().open(engine.connect, errors=(OperationalError,)) as connection:
        _require_version(connection)
        connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
        try:
            upgrade(admin_url)
            _check_currency(connection)
            _apply_declarations(admin_url)
            for table, _ in partitioned_tables():
                connection.execute(
                    text("select from shop.analyze_partitions(:table)"), {"table": table.name}
                )
            _set_time_zone(connection, zone)
        finally:
            connection.execute(text("select pg_advisory_unlock(:lock)"), {"lock": MIGRATION_LOCK})
    engine.dispose()


def _require_version(connection: Connection) -> None:
    """Raises ValueError for a server that is too old."""
    number = connection.execute(text("select current_setting('server_version_num')::int"))
    if (major := number.scalar_one() // 10_000) < POSTGRESQL_MIN:
        raise ValueError(
            f"this server is PostgreSQL {major}: use {POSTGRESQL_MIN} or newer; nothing was changed"
        )


def _sqlalchemy_url(url: str) -> str:
    return "postgresql+psycopg://" + url.split("://", 1)[1]


def upgrade(admin_url: str, revision: str = "head") -> None:
    """Applies the migrations up to a revision, without views, roles and rights."""
    engine = create_engine(_sqlalchemy_url(admin_url))
    with engine.begin() as connection:
        connection.execute(text("create schema if not exists shop"))
        connection.execute(text("create extension if not exists pg_trgm with schema public"))
        _require_korean_letters(connection)
        connection.execute(text("set local client_min_messages = warning"))
    _apply(engine, [INTERRUPTED_0047])
    listen(engine, "do_execute", _execute)
    for left in reversed(range(LOCK_ATTEMPTS)):
        try:
            _upgrade(engine, revision)
            break
        except OperationalError as error:
            if not left or not isinstance(error.orig, LockNotAvailable):
                raise
    engine.dispose()


def _upgrade(engine: Engine, revision: str) -> None:
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


# Any: the parameters of a statement, and SQLAlchemy's context
def _execute(cursor: Cursor[Any], statement: str, parameters: Any, _context: Any) -> bool:
    """Executes a statement of a migration, whose locks functions wait for no longer than theirs.

    Outside a transaction it is executed again when a lock is not to be had soon: the migration as a
    whole could not be, since its statements before it are committed.
    """
    text_sent = LONGER_TIMEOUT.sub(rf"\g<1>'{LOCK_TIMEOUT}'", statement).encode()
    if CONCURRENTLY.match(statement.lstrip()):
        _execute_without_timeout(cursor, text_sent)
        return True
    for left in reversed(range(LOCK_ATTEMPTS if cursor.connection.autocommit else 1)):
        try:
            cursor.execute(text_sent, parameters)
            break
        except LockNotAvailable:
            if not left:
                raise
    return True


def _execute_without_timeout(cursor: Cursor[Any], statement: bytes) -> None:
    """For a statement that waits for all older transactions, while nothing waits for it."""
    before = cursor.execute("show lock_timeout").fetchone()
    assert before is not None, "a setting has a value"
    cursor.execute("set lock_timeout = 0")
    cursor.execute(statement)
    cursor.execute("select set_config('lock_timeout', %s, false)", before)


def _require_korean_letters(connection: Connection) -> None:
    """Raises ValueError if the database's locale has no letters but ASCII's: no search by index."""
    if not connection.execute(text("select show_trgm('상품')")).scalar_one():
        raise ValueError(
            "the locale of this database knows no Korean letters, so searching them would use no "
            "index: create the database with LC_CTYPE = 'C.UTF-8' or another UTF-8 locale"
        )


def _apply_declarations(admin_url: str) -> None:
    engine = create_engine(_sqlalchemy_url(admin_url))
    digest = declared_digest()
    with engine.begin() as connection:
        _subscribe(connection)
        # not among the declarations, which do not depend on settings
        connection.exec_driver_sql(retention_statement(os.environ.get("RETENTION", "")))
        is_applied = _applied_digest(connection) == digest
    if not is_applied:
        for statements in _declarations():
            _apply(engine, statements)
        _apply(engine, [f"comment on schema shop is 'declared {digest}'"])
    with engine.begin() as connection:
        connection.exec_driver_sql(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
        _restore_role_settings(connection)
        for table, _ in partitioned_tables():
            connection.execute(
                text("select from shop.create_partitions(:table)"), {"table": table.name}
            )
    engine.dispose()


def _apply(engine: Engine, statements: list[str]) -> None:
    """Executes statements in one transaction, and again when a lock is not to be had soon."""
    for left in reversed(range(LOCK_ATTEMPTS)):
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
                for statement in statements:
                    # a function's text contains % for its own use
                    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
            return
        except OperationalError as error:
            if not left or not isinstance(error.orig, LockNotAvailable):
                raise


def _restore_role_settings(connection: Connection) -> None:
    """Undoes what a role changed of its own defaults, which PostgreSQL cannot forbid.

    A role may also change its timeout for a session: PgBouncer's ``query_timeout`` ends that.
    """
    database = connection.execute(text("select quote_ident(current_database())")).scalar_one()
    rows = connection.exec_driver_sql(ROLE_SETTINGS_STATEMENT, {"names": sorted(GRANTS)})
    found: dict[str, tuple[list[str] | None, bool]] = {
        name: (settings, own) for name, settings, own in rows
    }
    for role in sorted(GRANTS):
        declared = role_settings(role)
        settings, own = found.get(role, ([], False))
        as_declared = sorted(f"{name}={value}" for name, value in declared.items())
        if sorted(_lower_name(each) for each in settings or []) == as_declared and not own:
            continue
        connection.exec_driver_sql(f"alter role {role} in database {database} reset all")
        connection.exec_driver_sql(f"alter role {role} reset all")
        for name, value in declared.items():
            connection.exec_driver_sql(f"alter role {role} set {name} = '{value}'")


def _lower_name(setting: str) -> str:
    """``TimeZone=UTC``, as PostgreSQL spells it, becomes ``timezone=UTC``."""
    name, _, value = setting.partition("=")
    return f"{name.lower()}={value}"


def declared_digest() -> str:
    """The digest of this version's views, roles and rights, which the schema's comment names."""
    statements = (statement for group in _declarations() for statement in group)
    return hashlib.sha256("\n".join(statements).encode()).hexdigest()


def _declarations() -> list[list[str]]:
    """The statements of each transaction.

    Policies and views are locked exclusively until the end of theirs, so each has its own: the
    functions of the release before are running, and would wait for all of them.
    """
    policies: dict[str, list[str]] = {table: [] for table in ROW_SECURITY_TABLES}
    for statement in (*policy_statements(), *erasure_policies()):
        about = ABOUT_TABLE.match(statement)
        assert about is not None, statement
        policies[about[1]].append(statement)
    return [
        *([view] for view in VIEWS),
        _roles_and_grants(),
        *(
            [
                *(f"drop policy if exists {policy} on shop.{table}" for policy in POLICIES),
                *policies[table],
            ]
            for table in ROW_SECURITY_TABLES
        ),
    ]


def _roles_and_grants() -> list[str]:
    roles = sorted(GRANTS)
    statements = [
        f"do $$ begin create role {role} login nosuperuser nobypassrls; "
        "exception when duplicate_object then null; end $$"
        for role in roles
    ]
    for role in roles:
        statements.append(f"revoke all on all tables in schema shop from {role}")
    statements += [f"grant pg_read_all_stats to {role}" for role in READS_ACTIVITY]
    return [*statements, *grant_statements(), *partition_grants(), *personal_data_grants()]


def _applied_digest(connection: Connection) -> str:
    comment = connection.execute(
        text("select obj_description(oid) from pg_namespace where nspname = 'shop'")
    ).scalar()
    roles = connection.execute(
        text("select count(*) from pg_roles where rolname = any(:names)"), {"names": sorted(GRANTS)}
    ).scalar_one()
    return (comment or "").removeprefix("declared ") if roles == len(GRANTS) else ""


def _check_currency(connection: Connection) -> None:
    """Raises ValueError when CURRENCY is not that of the shop's products: it cannot be changed."""
    wanted = os.environ.get("CURRENCY")
    priced = connection.execute(
        text("select currency from shop.products order by product_id limit 1")
    ).scalar()
    if wanted and priced and priced != wanted:
        raise ValueError(
            f"CURRENCY: this shop's products are priced in {priced}; "
            f"for {wanted}, use a new database"
        )


def _set_time_zone(connection: Connection, zone: str) -> None:
    """Stores the zone in the database, because the view cannot read the environment."""
    current = connection.execute(text("select current_setting('shop.business_time_zone', true)"))
    if (current.scalar() or DEFAULT_TIME_ZONE) == zone:
        return
    statement = connection.exec_driver_sql(SET_ZONE_STATEMENT, {"zone": zone}).scalar()
    if statement is None:
        raise ValueError(f"BUSINESS_TIME_ZONE: unknown time zone {zone!r}")
    connection.exec_driver_sql(statement)


def _subscribe(connection: Connection) -> None:
    declared = {
        (subscription.event, spec.name)
        for spec in all_specs()
        for subscription in spec.subscriptions
    }
    present = {
        tuple(r) for r in connection.execute(text("select type, consumer from shop.subscriptions"))
    }
    for event, consumer in declared - present:
        connection.execute(
            text("insert into shop.subscriptions (type, consumer) values (:t, :c)"),
            {"t": event, "c": consumer},
        )
    for event, consumer in present - declared:
        connection.execute(
            text("delete from shop.subscriptions where type = :t and consumer = :c"),
            {"t": event, "c": consumer},
        )
