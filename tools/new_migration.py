"""Creates the frame of the next migration: ``make migration name=reviews``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from tools.migrate import MIGRATIONS

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
NAME_LENGTH_MAX = 40


class MigrationNotCreated(Exception):
    """The migration was not created and nothing was written; the message is the reason."""


def main(name: Annotated[str, typer.Argument(help="its topic, such as reviews")]) -> None:
    """Create shop/schema/migrations/versions/NNNN_NAME.py."""
    try:
        written = make_migration(name, MIGRATIONS)
    except MigrationNotCreated as error:
        typer.echo(f"migration: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"  wrote {written.relative_to(MIGRATIONS.parents[2])}")
    typer.echo("migration: declare the same change in shop/schema/tables.py, then")
    typer.echo("  .venv/bin/python -m pytest tests/contract/test_migrations.py")


def make_migration(name: str, migrations: Path) -> Path:
    """Writes the frame of the migration after the newest; returns its file.

    Raises ``MigrationNotCreated`` for a name that is not words in lower case with underscores, and
    while two migrations follow the same one.
    """
    if not NAME.fullmatch(name) or len(name) > NAME_LENGTH_MAX:
        raise MigrationNotCreated(
            f"{name!r} is not a valid topic: use lower case and underscores, such as reviews, "
            f"with at most {NAME_LENGTH_MAX} characters"
        )
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    heads = ScriptDirectory.from_config(config).get_heads()
    if len(heads) != 1:
        raise MigrationNotCreated(
            f"migrations {' and '.join(sorted(heads))} follow the same one: renumber the newer"
        )
    message = name.replace("_", " ")
    script = command.revision(config, message=message, rev_id=f"{int(heads[0]) + 1:04}")
    assert isinstance(script, Script), "one revision was asked for"
    return Path(script.path)


if __name__ == "__main__":
    typer.run(main)
