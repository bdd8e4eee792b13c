"""The database adapter on a real PostgreSQL: values, failures, poolers."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from shop.adapters import db
from shop.adapters.db import Database
from shop.adapters.statements import Command, Query, Row, enum_column
from tests.waiting import wait_for

MILLIONS = 3_000_000


class Text(Row):
    text: str


class Number(Row):
    n: int


class Name(Row):
    name: str


class Values(Row):
    n: int
    t: str
    k: UUID
    b: bytes
    l: list[UUID]  # noqa: E741, as the column is named
    none: int | None
    more: int
    p: str


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Coloured(Row):
    colour: Colour = enum_column(Colour)


class ColouredNumber(Coloured):
    n: int


SELECT_TEXT = Query(Text, "select %(text)s::text as text")
SELECT_NUMBER = Query(Number, "select %(n)s::int as n")
SELECT_PID = Query(Number, "select pg_backend_pid() as n")
PREPARED = Query(Name, "select statement as name from pg_prepared_statements")
SENT_AS_BIGINT = "select $1::bigint + cardinality($2::bigint[]) as n"
DIVIDE = Query(Number, "select 1 / %(n)s::int as n")
OTHERS: tuple[LiteralString, ...] = (
    "select %(n)s::int + 0 * 1 as n",
    "select %(n)s::int + 0 * 2 as n",
    "select %(n)s::int + 0 * 3 as n",
    "select %(n)s::int + 0 * 4 as n",
    "select %(n)s::int + 0 * 5 as n",
    "select %(n)s::int + 0 * 6 as n",
    "select %(n)s::int + 0 * 7 as n",
    "select %(n)s::int + 0 * 8 as n",
)
ADD_CATEGORY = Command("insert into shop.categories (name) values (%(name)s)")


@pytest.fixture(params=[True, False], ids=["prepared", "not prepared"])
def database(request: pytest.FixtureRequest, database_url: str) -> Iterator[Database]:
    made = Database(database_url, source="/shop/test", prepare=request.param)
    yield made
    made.close()


def test_values_are_returned_as_they_were_sent(database: Database) -> None:
    number, text, key = 2**40, "한글 %s $1 \\ '", uuid4()
    select = Query(
        Values,
        "select %(n)s::bigint as n, %(t)s::text as t, %(k)s::uuid as k, %(b)s::bytea as b,"
        " %(l)s::uuid[] as l, %(none)s::int as none, %(n)s::bigint + 1 as more, '50%%' as p",
    )
    with database.transaction() as session:
        row = session.tx.fetch_one(
            select(n=number, t=text, k=key, b=b"\0\xff", l=[key, key], none=None)
        )
    assert row == (number, text, key, b"\0\xff", [key, key], None, number + 1, "50%")
    assert row is not None and row.k == key and row.p == "50%"


def test_enum_columns_and_parameters_are_members_and_their_text(database: Database) -> None:
    select = Query(
        ColouredNumber,
        "select %(colour)s::text as colour, cardinality(%(colours)s::text[]) as n",
    )
    with database.transaction() as session:
        row = session.tx.fetch_one(select(colour=Colour.BLUE, colours=list(Colour)))
    assert row is not None
    assert (row.colour, row.n) == (Colour.BLUE, 2)
    assert row.colour is Colour.BLUE


def test_large_values_in_one_pipeline_do_not_block(database: Database) -> None:
    with database.transaction() as session:
        statements = [SELECT_TEXT(text=letter * MILLIONS) for letter in "abc"]
        results = session.tx.pipeline(*statements)
    texts: list[str] = [row[0] for rows in results for row in rows]
    assert [text[0] + str(len(text)) for text in texts] == [
        f"{letter}{MILLIONS}" for letter in "abc"
    ]


def test_the_first_failure_is_raised_and_later_statements_do_not_run(database: Database) -> None:
    divide = Query(Row, "select 1 / %(n)s::int")
    with pytest.raises(psycopg.errors.DivisionByZero):
        with database.transaction() as session:
            session.tx.pipeline(
                SELECT_NUMBER(n=1), divide(n=0), Command("create table shop.never (n int)")()
            )
    with database.transaction() as session:
        found = session.tx.fetch_one(Query(Text, "select to_regclass('shop.never') as text")())
        assert found is not None and found.text is None
        assert session.tx.fetch_one(SELECT_NUMBER(n=5)) == (5,)


def test_a_statement_that_failed_to_prepare_is_prepared_later(database: Database) -> None:
    select = Query(Number, "select %(n)s::int as n from later")
    with pytest.raises(psycopg.errors.UndefinedTable):
        with database.transaction() as session:
            session.tx.fetch_one(select(n=1))
    with database.transaction() as session:
        session.tx.execute(Command("create temp table later (x int)")())
        assert session.tx.execute(Command("insert into later values (1), (2)")()) == 2
        assert [row.n for row in session.tx.fetch_all(select(n=7))] == [7, 7]


def test_a_value_that_cannot_be_converted_sends_nothing(database: Database) -> None:
    with database.transaction() as session:
        with pytest.raises(psycopg.ProgrammingError):
            session.tx.pipeline(SELECT_NUMBER(n=1), Query(Row, "select %(x)s")(x=object()))
        assert session.tx.fetch_one(SELECT_NUMBER(n=2)) == (2,)


def test_only_committed_changes_are_kept(database: Database) -> None:
    with database.transaction() as session:
        assert session.tx.execute(ADD_CATEGORY(name="버려짐")) == 1
    with database.transaction() as session:
        assert session.tx.execute(ADD_CATEGORY(name="남음")) == 1
        session.commit()
    select = Query(Name, "select name from shop.categories where name in ('버려짐', '남음')")
    with database.transaction() as session:
        assert [row.name for row in session.tx.fetch_all(select())] == ["남음"]


def test_an_idle_connection_that_was_closed_is_replaced(
    database: Database, database_url: str
) -> None:
    with database.transaction() as session:
        before = session.tx.fetch_one(SELECT_PID())
    assert before is not None
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("select pg_terminate_backend(%s, 5000)", (before.n,))
    with database.transaction() as session:
        assert session.tx.fetch_one(SELECT_PID()) != before


def test_a_connection_closed_in_a_transaction_is_an_unavailable_error(database: Database) -> None:
    terminate = Query(Row, "select pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(db.UNAVAILABLE_ERRORS):
        with database.transaction() as session:
            session.tx.fetch_one(terminate())
            session.tx.fetch_one(SELECT_NUMBER(n=1))
    with database.transaction() as session:
        assert session.tx.fetch_one(SELECT_NUMBER(n=1)) == (1,)


def test_a_process_that_was_suspended_in_a_transaction_gets_an_unavailable_error(
    database: Database, database_url: str
) -> None:
    limit = Command("set local idle_in_transaction_session_timeout = 1")
    with psycopg.connect(database_url, autocommit=True) as admin:
        with pytest.raises(db.UNAVAILABLE_ERRORS):
            with database.transaction() as session:
                pid = session.tx.fetch_one(SELECT_PID())
                session.tx.execute(limit())
                assert pid is not None
                wait_for(lambda: not _is_connected(admin, pid.n), "the server ended the connection")
                session.tx.fetch_one(SELECT_NUMBER(n=1))
    with database.transaction() as session:
        assert session.tx.fetch_one(SELECT_NUMBER(n=1)) == (1,)


def _is_connected(admin: psycopg.Connection, pid: int) -> bool:
    found = admin.execute("select from pg_stat_activity where pid = %s", [pid])
    return found.rowcount > 0


@pytest.mark.parametrize(
    "statement",
    [
        "do $$ begin raise 'could not extend file' using errcode = 'internal_error'; end $$",
        "do $$ begin raise 'no space left' using errcode = 'disk_full'; end $$",
        "do $$ begin raise 'too long' using errcode = '25P04'; end $$",
    ],
    ids=["file too large", "disk full", "transaction timeout"],
)
def test_a_server_that_fails_by_itself_is_an_unavailable_error(
    database: Database, statement: LiteralString
) -> None:
    with pytest.raises(db.UNAVAILABLE_ERRORS):
        with database.transaction() as session:
            session.tx.execute(Command(statement)())
    with database.transaction() as session:
        assert session.tx.fetch_one(SELECT_NUMBER(n=1)) == (1,)


def test_a_statement_is_prepared_once_whatever_the_size_of_its_integers(database_url: str) -> None:
    database = Database(database_url, source="/shop/test", prepare=True)
    select = Query(Number, "select %(n)s::bigint + cardinality(%(l)s::bigint[]) as n")
    for number in (0, -1, 2**15, 2**31, 2**40):
        with database.transaction() as session:
            assert session.tx.fetch_one(select(n=number, l=[number, 1])) == (number + 2,)
            names = session.tx.fetch_all(PREPARED())
    assert [name for name in names if "cardinality" in name.name] == [(SENT_AS_BIGINT,)]
    database.close()


def test_a_statement_that_fails_stays_prepared(database_url: str) -> None:
    database = Database(database_url, source="/shop/test", prepare=True)
    for _ in range(3):
        with database.transaction() as session, pytest.raises(psycopg.errors.UniqueViolation):
            session.tx.pipeline(ADD_CATEGORY(name="same"), ADD_CATEGORY(name="same"))
    with database.transaction() as session:
        names = session.tx.fetch_all(PREPARED())
    assert len([name for name in names if "shop.categories" in name.name]) == 1
    database.close()


def test_the_statement_that_was_unused_for_longest_is_closed_for_another(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "PREPARED_MAX", 6)
    database = Database(database_url, source="/shop/test", prepare=True)
    others = [Query(Number, text) for text in OTHERS]

    names: list[Name] = []
    for other in others:
        with database.transaction() as session:
            first, second, _ = session.tx.pipeline(
                SELECT_TEXT(text="a"), other(n=1), SELECT_TEXT(text="b")
            )
            assert (first, second) == ([("a",)], [(1,)])
            names = session.tx.fetch_all(PREPARED())

    kept = [name.name for name in names]
    assert len(kept) <= 6
    assert SELECT_TEXT.sql.replace("%(text)s", "$1") in kept
    assert OTHERS[-1].replace("%(n)s", "$1") in kept and OTHERS[0] not in kept
    database.close()


def test_closing_that_was_skipped_after_a_failure_is_repeated(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "PREPARED_MAX", 4)
    database = Database(database_url, source="/shop/test", prepare=True)
    others = [Query(Number, text) for text in OTHERS]
    for other in others:
        with database.transaction() as session, pytest.raises(psycopg.errors.DivisionByZero):
            session.tx.pipeline(DIVIDE(n=0), other(n=1))
    with database.transaction() as session:
        session.tx.pipeline(*(other(n=1) for other in others))
        names = session.tx.fetch_all(PREPARED())
    assert len(names) <= 4
    database.close()


def test_without_prepare_no_statement_is_prepared(database_url: str) -> None:
    database = Database(database_url, source="/shop/test", prepare=False)
    with database.transaction() as session:
        session.tx.fetch_one(SELECT_NUMBER(n=1))
        count = Query(Number, "select count(*) as n from pg_prepared_statements")
        assert session.tx.fetch_one(count()) == (0,)
    database.close()
