"""The pipelines of the database adapter on a real PostgreSQL: values, failures, poolers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from shop.adapters import db
from shop.adapters.db import Database

MILLIONS = 3_000_000


@pytest.fixture(params=[True, False], ids=["prepared", "not prepared"])
def database(request: pytest.FixtureRequest, database_url: str) -> Iterator[Database]:
    made = Database(database_url, source="/shop/test", prepare=request.param)
    yield made
    made.close()


def test_values_go_and_come_back(database: Database) -> None:
    number, text, key = 2**40, "한글 %s $1 \\ '", uuid4()
    with database.transaction() as session:
        row = session.tx.one(
            "select %(n)s::bigint as n, %(t)s::text as t, %(k)s::uuid as k, %(b)s::bytea as b,"
            " %(l)s::uuid[] as l, %(none)s::int as none, %(n)s::bigint + 1 as more, '50%%' as p",
            n=number,
            t=text,
            k=key,
            b=b"\0\xff",
            l=[key, key],
            none=None,
        )
    assert row == (number, text, key, b"\0\xff", [key, key], None, number + 1, "50%")
    assert isinstance(row.k, UUID)


def test_much_goes_both_ways_at_once(database: Database) -> None:
    statement = "select %(text)s::text as text"
    with database.transaction() as session:
        sent = [(statement, {"text": letter * MILLIONS}) for letter in "abc"]
        answers = session.tx.together(*sent)
    assert [rows[0].text[0] + str(len(rows[0].text)) for rows in answers] == [
        f"{letter}{MILLIONS}" for letter in "abc"
    ]


def test_the_first_failure_is_raised_and_what_follows_does_not_run(database: Database) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        with database.transaction() as session:
            session.tx.together(
                ("select %(n)s::int as n", {"n": 1}),
                ("select 1 / %(n)s::int", {"n": 0}),
                ("create table shop.never (n int)", {}),
            )
    with database.transaction() as session:
        assert session.tx.one("select to_regclass('shop.never') as found").found is None
        assert session.tx.one("select %(n)s::int as n", n=5).n == 5


def test_what_could_not_be_prepared_is_prepared_when_it_can_be(database: Database) -> None:
    statement = "select %(n)s::int as n from later"
    with pytest.raises(psycopg.errors.UndefinedTable):
        with database.transaction() as session:
            session.tx.one(statement, n=1)
    with database.transaction() as session:
        session.tx.run("create temp table later (x int)")
        session.tx.run("insert into later values (1), (2)")
        assert [row.n for row in session.tx.all(statement, n=7)] == [7, 7]


def test_an_unfit_value_sends_nothing(database: Database) -> None:
    with database.transaction() as session:
        with pytest.raises(psycopg.ProgrammingError):
            session.tx.together(("select 1", {}), ("select %(x)s", {"x": object()}))
        assert session.tx.one("select 2 as two").two == 2


def test_nothing_stays_that_was_not_committed(database: Database) -> None:
    insert = "insert into shop.categories (name) values (%(name)s)"
    with database.transaction() as session:
        assert session.tx.run(insert, name="버려짐") == 1
    with database.transaction() as session:
        assert session.tx.run(insert, name="남음") == 1
        session.commit()
    with database.transaction() as session:
        rows = session.tx.all("select name from shop.categories where name in ('버려짐', '남음')")
    assert [row.name for row in rows] == ["남음"]


def test_a_connection_that_died_asleep_is_replaced(database: Database, database_url: str) -> None:
    with database.transaction() as session:
        pid = session.tx.one("select pg_backend_pid() as pid").pid
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    with database.transaction() as session:
        assert session.tx.one("select pg_backend_pid() as pid").pid != pid


def test_a_connection_that_dies_at_work_is_an_error_that_may_pass(database: Database) -> None:
    with pytest.raises(db.NOT_NOW):
        with database.transaction() as session:
            session.tx.one("select pg_terminate_backend(pg_backend_pid())")
            session.tx.one("select 1")
    with database.transaction() as session:
        assert session.tx.one("select 1 as one").one == 1


@pytest.mark.parametrize(
    "statement",
    [
        "do $$ begin raise 'could not extend file' using errcode = 'internal_error'; end $$",
        "do $$ begin raise 'no space left' using errcode = 'disk_full'; end $$",
    ],
    ids=["file too large", "disk full"],
)
def test_a_server_that_cannot_write_may_be_able_to_later(
    database: Database, statement: LiteralString
) -> None:
    with pytest.raises(db.NOT_NOW):
        with database.transaction() as session:
            session.tx.run(statement)
    with database.transaction() as session:
        assert session.tx.one("select 1 as one").one == 1


def test_a_statement_is_prepared_once(database_url: str) -> None:
    database = Database(database_url, source="/shop/test", prepare=True)
    for number in range(5):
        with database.transaction() as session:
            session.tx.one("select %(n)s::int as n", n=number)
            names = session.tx.all(
                "select name from pg_prepared_statements where statement like 'select $1::int%%'"
            )
    assert len(names) == 1
    database.close()


def test_a_pooler_without_prepared_statements_sees_none(database_url: str) -> None:
    database = Database(database_url, source="/shop/test", prepare=False)
    with database.transaction() as session:
        session.tx.one("select %(n)s::int as n", n=1)
        assert session.tx.one("select count(*) as c from pg_prepared_statements").c == 0
    database.close()
