"""What the accounts tests stand on: one database and one process for each of their modules.

Each test has accounts and network addresses of its own, so they need no database each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.functions.accounts_front import Front

Rows = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def accounts_url(postgres_url: str, template_url: str) -> Iterator[str]:
    """The administrator's URL of this module's own database: migrated, seeded, thrown away."""
    template, name = template_url.rsplit("/", 1)[1], f"accounts_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
    yield f"{postgres_url.rsplit('/', 1)[0]}/{name}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="module")
def rows(accounts_url: str) -> Iterator[Rows]:
    """Asks the database as its administrator, past every policy."""
    with psycopg.connect(accounts_url, autocommit=True) as connection:
        yield lambda sql, *values: connection.execute(sql, values or None).fetchall()


@pytest.fixture(scope="module")
def front(accounts_url: str, redis_url: str) -> Iterator[Front]:
    """``register`` and ``login``, connected as the role they share."""
    made = Front(_as_identity(accounts_url), redis_url)
    yield made
    made.services.close()


@pytest.fixture
def front_without_redis(accounts_url: str) -> Iterator[Front]:
    """The same, with nobody at Redis's address (port 1 is nobody's)."""
    made = Front(_as_identity(accounts_url), "redis://127.0.0.1:1/0")
    yield made
    made.services.close()


def _as_identity(url: str) -> str:
    return f"postgresql://shop_identity@{url.split('@')[1]}"
