"""What a test module may not leave behind on the PostgreSQL server that all modules share.

Each test has a database of its own, but roles, their settings and connections belong to the server.
"""

from __future__ import annotations

from contextlib import suppress

import psycopg

from tests.waiting import wait_for

# One row for each thing: its kind, and a text that differs when anything about it does.  The shop's
# roles alone: tests create and drop others.
STATE = """
select 'role', row_to_json(r)::text from (
  select rolname, rolcanlogin, rolconnlimit, rolsuper, rolbypassrls, rolvaliduntil,
    md5(rolpassword) as password_hash
  from pg_authid where rolname like 'shop%' or rolname = current_user) r
union all
select 'setting', setrole::regrole || ' ' || setconfig::text
  from pg_db_role_setting where setdatabase = 0
union all
select 'connection', format('%s of %s to %s, from %s', pid, usename, datname, application_name)
  from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()
"""

ServerState = frozenset[tuple[str, str]]


def server_state(url: str) -> ServerState:
    """The roles, their settings for every database, and the open connections of other clients."""
    with psycopg.connect(url) as connection:
        return frozenset(connection.execute(STATE).fetchall())


def changes_since(before: ServerState, url: str) -> list[str]:
    """What is different now, one line each; a connection may take a moment to close."""
    changes: list[str] = []

    def is_unchanged() -> bool:
        after = server_state(url)
        lost = {(kind, text) for kind, text in before - after if kind != "connection"}
        changes[:] = sorted(f"new {kind}: {text}" for kind, text in after - before)
        changes.extend(sorted(f"gone {kind}: {text}" for kind, text in lost))
        return not changes

    with suppress(AssertionError):
        wait_for(is_unchanged, "the server as it was before")
    return changes
