"""``shop account``: creates and changes operators' accounts, as the role shop_accounts.

The first accounts of a shop are made here; afterwards administrators may also use ``/admin/users``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NamedTuple

import typer

from shop import account_management, accounts, audit_log, one_time_links, second_factors
from shop.adapters.db import Database, Transaction
from shop.adapters.passwords import check_not_common, hash_password, prepare_new
from shop.audit_log import COMMAND, Action
from shop.primitives.errors import ClientError
from shop.primitives.statuses import AccountState
from shop.primitives.text import one_line
from shop.runtime import setting_checks
from tools.operations.reporting import EXIT_OK, Outcome, show_json, show_outcomes, show_table

# of the events of these commands: the function that does the same by HTTP
SOURCE = "/shop/manage_accounts"
BATCH = 500


class Password(NamedTuple):
    """A password that an operator has chosen."""

    text: str


class LinkKey(NamedTuple):
    """The key of one-time links, with one of which an account's owner chooses the password."""

    text: str


def password_or_key(*, from_stdin: bool, by_link: bool, link_key: str) -> Password | LinkKey:
    """What an account gets: a password that is read, or a link, which needs the key.

    ``BadParameter`` for both and for a key that is missing or too short.
    """
    if not by_link:
        return Password(read_password(from_stdin=from_stdin))
    if from_stdin:
        raise typer.BadParameter("--link and --password-stdin exclude each other")
    try:
        setting_checks.check_key(link_key)
    except ValueError:
        raise typer.BadParameter("--link needs LINK_KEY, or the secret file link-key") from None
    return LinkKey(link_key)


def read_password(*, from_stdin: bool) -> str:
    """A new password: the first line of the standard input, or typed twice at a terminal.

    ``BadParameter`` where neither is possible, and for a password that would not be accepted.
    """
    if not from_stdin and not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask for a password: --password-stdin")
    if from_stdin:
        typed = sys.stdin.readline().rstrip("\r\n")
    else:
        typed = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    try:
        return prepare_new(typed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def run_create(
    database_url: str,
    email: str,
    *,
    name: str,
    role: str,
    language: str,
    secret: Password | LinkKey,
    as_json: bool,
) -> int:
    """Creates an account with a role; returns 1 when the e-mail address has one already.

    With the key of links, it has no password and a link to set one is printed.
    """
    address, shown_name = accounts.check_email(email), one_line(name, length_max=100)

    def create(tx: Transaction) -> str:
        user_id = account_management.create(
            tx,
            COMMAND,
            email=address,
            name=shown_name,
            role=role,
            language=language,
            password_hash=_hash(secret, address) if isinstance(secret, Password) else "",
        )
        created = f"created as account {user_id} with the role {role}"
        if isinstance(secret, Password):
            return created
        link = _make_link(tx, user_id, secret, minutes=one_time_links.INVITATION_MINUTES)
        return f"{created}; {link}"

    return _run(database_url, email, create, as_json=as_json)


def run_list(
    database_url: str,
    *,
    email: str | None,
    role: str | None,
    state: str | None,
    limit: int,
    as_json: bool,
) -> int:
    """Lists accounts, newest first; always returns 0."""
    statement = accounts.list_accounts(email=email, role=role, state=state, limit=limit)
    with _transaction(database_url) as tx:
        rows = tx.fetch_all(statement)
    if as_json:
        show_json([dict(zip(accounts.ManagedAccount.columns, row, strict=True)) for row in rows])
        return EXIT_OK
    show_table(
        ("account", "e-mail", "name", "role", "state", "created"),
        [
            (
                row.user_id,
                row.email,
                row.name,
                row.role,
                row.state,
                f"{row.created_at:%Y-%m-%d %H:%M:%S%z}",
            )
            for row in rows
        ],
    )
    if len(rows) == limit:
        print(f"the newest {limit} only")
    return EXIT_OK


def run_change(
    database_url: str,
    email: str,
    *,
    role: str | None = None,
    state: AccountState | None = None,
    as_json: bool,
) -> int:
    """Sets the role or state of an account; 1 when it is unknown or the last administrator."""

    def change(tx: Transaction) -> str:
        user_id = _id_of(tx, email)
        account = account_management.change(tx, COMMAND, user_id, role=role, state=state)
        return f"account {user_id} is {account.state} with the role {account.role}"

    return _run(database_url, email, change, as_json=as_json)


def run_close(database_url: str, email: str, *, as_json: bool) -> int:
    """Closes a customer's account; 1 when it is unknown, an operator's, or has open orders."""

    def close(tx: Transaction) -> str:
        user_id = _id_of(tx, email)
        account_management.close(tx, COMMAND, user_id)
        return f"account {user_id} is closed, and its personal data is erased"

    return _run(database_url, email, close, as_json=as_json)


def run_reset(database_url: str, email: str, *, secret: Password | LinkKey, as_json: bool) -> int:
    """Replaces the password of an account and ends its sessions; 1 when it is unknown.

    With the key of links, a link for its owner to do so is printed, and nothing else changes.
    """

    def reset(tx: Transaction) -> str:
        user_id = _id_of(tx, email)
        if isinstance(secret, LinkKey):
            link = _make_link(tx, user_id, secret, minutes=one_time_links.RESET_MINUTES)
            return f"account {user_id}: {link}"
        new_hash = _hash(secret, email)
        account_management.set_password(tx, COMMAND, user_id, new_hash=new_hash)
        return f"account {user_id} has a new password; its sessions have ended"

    return _run(database_url, email, reset, as_json=as_json)


def run_remove_factor(database_url: str, email: str, *, as_json: bool) -> int:
    """Removes the second factor of an account and ends its sessions; 1 when there is none."""

    def remove(tx: Transaction) -> str:
        user_id = _id_of(tx, email)
        account_management.remove_factor(tx, COMMAND, user_id)
        return f"account {user_id} has no second factor; its sessions have ended"

    return _run(database_url, email, remove, as_json=as_json)


def run_rotate_factors(database_url: str, keys: str, *, as_json: bool) -> int:
    """Gives the second factors the first of two keys; 1 when some are of neither.

    Each keeps the secret that its application has.
    """
    moved, left = 0, 0
    with _transaction(database_url) as tx:
        after = 0
        while found := tx.fetch_all(second_factors.of_other_keys(keys, after=after, batch=BATCH)):
            after = found[-1].user_id
            factors = [factor for factor in found if second_factors.has_key(factor, keys)]
            tx.execute(second_factors.moves(factors, keys))
            moved, left = moved + len(factors), left + len(found) - len(factors)
        key_id = second_factors.key_id_of(keys.split()[0])
        after_it = {"factors": moved}
        tx.execute(
            audit_log.record(COMMAND, Action.SECOND_FACTOR_KEY_ROTATED, key_id, after=after_it)
        )
    others = f"; {left} are of neither key, and their codes are rejected" if left else ""
    outcome = Outcome(f"key {key_id}", is_done=not left, what=f"{moved} second factors{others}")
    return show_outcomes([outcome], as_json=as_json)


def two_keys(text: str) -> str:
    """The new key of second factors and the one before; ``BadParameter`` for anything else."""
    try:
        setting_checks.check_keys(text)
    except ValueError as error:
        raise typer.BadParameter(f"SECOND_FACTOR_KEY {error}") from None
    if len(text.split()) == 1:
        raise typer.BadParameter("SECOND_FACTOR_KEY must be the new key, a space, the one before")
    return text


def _hash(password: Password, email: str) -> str:
    check_not_common(password.text, email=email, shop_names=accounts.SHOP_NAMES)
    return hash_password(password.text)


def _make_link(tx: Transaction, user_id: int, key: LinkKey, *, minutes: int) -> str:
    link_id, expires_at = account_management.make_link(tx, COMMAND, user_id, minutes=minutes)
    token = one_time_links.token_of(link_id, key.text)
    until = f"{expires_at:%Y-%m-%d %H:%M:%S%z}"
    return f"POST /auth/password-reset/confirm takes, once and until {until}, the token {token}"


def _run(
    database_url: str, email: str, work: Callable[[Transaction], str], *, as_json: bool
) -> int:
    try:
        with _transaction(database_url) as tx:
            outcome = Outcome(email, is_done=True, what=work(tx))
    except ClientError as error:
        outcome = Outcome(email, is_done=False, what=error.message)
    return show_outcomes([outcome], as_json=as_json)


@contextmanager
def _transaction(database_url: str) -> Generator[Transaction]:
    database = Database(database_url, source=SOURCE)
    try:
        with database.transaction(actor="command") as session:
            yield session.tx
            session.commit()
    finally:
        database.close()


def _id_of(tx: Transaction, email: str) -> int:
    found = tx.fetch_one(accounts.list_accounts(email=email, limit=1))
    if found is None:
        raise ClientError(404, "NOT_FOUND", "there is no account with this e-mail")
    return found.user_id
