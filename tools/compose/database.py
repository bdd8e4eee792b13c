"""``shop migrate``: migrates a deployment's database to this version, before functions start."""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg import sql

from shop.runtime import config
from tools.migrate import migrate
from tools.operations.reporting import show_json
from tools.seed import seed

PASSWORD_FILE_PREFIX = "password-"  # noqa: S105 (a prefix of file names)


def run_migrate(*, passwords: Path | None, with_seed: bool, as_json: bool = False) -> int:
    """Migrates the database, sets the roles' passwords and optionally seeds.

    DATABASE_URL is an administrator's.  ``passwords`` is a folder with files ``password-<role>``.
    Raises ConfigurationError without an address, SeedNotAllowed for a seed in the prod profile, and
    what PostgreSQL raises.
    """
    url = config.load(needs=("postgres",)).database_url.reveal()
    migrate(url)
    count = set_passwords(url, passwords) if passwords is not None else None
    accounts = [(role, email) for role, email, _ in seed(url)] if with_seed else []
    if as_json:
        show_json({"migrated": True, "passwords": count or 0, "accounts": dict(accounts)})
        return 0
    print("migrated")
    if count is not None:
        print(f"{count} role passwords set")
    for role, email in accounts:
        print(f"account {role}: {email}")
    return 0


def set_passwords(url: str, folder: Path) -> int:
    """Sets each role's password from its file; returns the number of roles.

    PostgreSQL accepts no parameter in ``alter role``, so the statement contains the password; it is
    kept out of the server's log.
    """
    files = sorted(folder.glob(f"{PASSWORD_FILE_PREFIX}*"))
    with psycopg.connect(url, connect_timeout=10) as connection:
        connection.execute("set local log_statement = 'none'")
        connection.execute("set local log_min_duration_statement = -1")
        for file in files:
            role = sql.Identifier(file.name.removeprefix(PASSWORD_FILE_PREFIX))
            password = sql.Literal(file.read_text("utf-8").strip())
            connection.execute(sql.SQL("alter role {} password {}").format(role, password))
    return len(files)
