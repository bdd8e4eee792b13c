"""The database job of Compose and of the chart's hook: migration, passwords, seed."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from shop.primitives.spec import LOGIN_ROLES
from shop.runtime.config import ConfigurationError
from tools.compose.database import run_migrate
from tools.seed import LOCAL_ACCOUNTS, SeedNotAllowed

ROLES = [f"shop_{role}" for role in LOGIN_ROLES]
# other tests share the server, so the previous passwords are restored
PASSWORDS = "select rolname, rolpassword from pg_authid where rolname = any(%s)"


@pytest.fixture
def deployed(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The settings of the job; returns the database's URL."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("SHOP_PROFILE", "local")
    return database_url


def passwords_of(url: str) -> dict[str, str | None]:
    with psycopg.connect(url) as connection:
        return dict(connection.execute(PASSWORDS, [ROLES]).fetchall())


def test_each_role_gets_the_password_in_its_file(deployed: str, tmp_path: Path) -> None:
    for role in ROLES:
        (tmp_path / f"password-{role}").write_text(f"it's of {role}\n")
    (tmp_path / "database-url").write_text("not a password")
    before = passwords_of(deployed)

    try:
        assert run_migrate(passwords=tmp_path, with_seed=False) == 0

        given = passwords_of(deployed)
        assert sorted(given) == sorted(ROLES)
        assert all((text or "").startswith("SCRAM-SHA-256$") for text in given.values())
    finally:
        with psycopg.connect(deployed, autocommit=True) as connection:
            for role, password in before.items():
                statement = SQL("alter role {} password {}")
                connection.execute(statement.format(Identifier(role), Literal(password)))


def test_password_for_an_unknown_role_changes_none(deployed: str, tmp_path: Path) -> None:
    before = passwords_of(deployed)
    (tmp_path / "password-shop_catalog_ro").write_text("new")
    (tmp_path / "password-shop_unknown").write_text("new")

    with pytest.raises(psycopg.errors.UndefinedObject):
        run_migrate(passwords=tmp_path, with_seed=False)

    assert passwords_of(deployed) == before


def test_seed_is_created_once_and_rejected_in_prod(
    deployed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_migrate(passwords=None, with_seed=True) == 0
    assert run_migrate(passwords=None, with_seed=True) == 0

    printed = capsys.readouterr().out
    assert [printed.count(email) for _, email, _ in LOCAL_ACCOUNTS] == [2] * len(LOCAL_ACCOUNTS)
    assert not [password for _, _, password in LOCAL_ACCOUNTS if password in printed]
    monkeypatch.setenv("SHOP_PROFILE", "prod")
    with pytest.raises(SeedNotAllowed):
        run_migrate(passwords=None, with_seed=True)


def test_missing_database_url_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)

    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        run_migrate(passwords=None, with_seed=False)
