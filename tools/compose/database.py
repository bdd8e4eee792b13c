"""``shop migrate``: brings a deployment's database to this version; a job, run before functions."""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg import sql

from shop.runtime import config
from tools.migrate import migrate
from tools.seed import seed

PASSWORD = "password-"  # noqa: S105 (how the files' names begin)


def run_migrate(*, passwords: Path | None, with_seed: bool) -> int:
    """Migrates DATABASE_URL, an administrator's; gives roles their passwords; seeds when asked.

    ``passwords`` is a folder with a file ``password-<role>`` for each role that logs in with one.
    Raises ConfigurationError without an address, SeedNotAllowed for a seed in the prod profile, and
    what PostgreSQL raises.
    """
    url = config.load(needs=("postgres",)).database_url.reveal()
    migrate(url)
    print("migrated")
    if passwords is not None:
        print(f"{give_passwords(url, passwords)} roles have their passwords")
    if with_seed:
        for role, email, _ in seed(url):
            print(f"account {role}: {email}")
    return 0


def give_passwords(url: str, folder: Path) -> int:
    """Gives each role the password in its file; returns how many did.

    The statement goes with the password inside, for PostgreSQL takes none as a parameter; it is
    kept out of the server's log for the transaction.
    """
    files = sorted(folder.glob(f"{PASSWORD}*"))
    with psycopg.connect(url, connect_timeout=10) as connection:
        connection.execute("set local log_statement = 'none'")
        connection.execute("set local log_min_duration_statement = -1")
        for file in files:
            role = sql.Identifier(file.name.removeprefix(PASSWORD))
            password = sql.Literal(file.read_text("utf-8").strip())
            connection.execute(sql.SQL("alter role {} password {}").format(role, password))
    return len(files)
