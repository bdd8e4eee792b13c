"""``shop account``: the first accounts of a shop, and every later change, each with an entry."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from shop import second_factors
from shop.runtime.config import Secret
from tests.harness import PASSWORD, MakeShop, ShopHarness
from tests.sample_requests import Samples
from tools.cli import app

NEW_PASSWORD = "another long pass phrase"


@pytest.fixture
def email() -> str:
    """An address without an account."""
    return f"kim.{uuid4().hex[:12]}@example.kr"


def run(
    shop: ShopHarness, *arguments: str, password: str | None = None, link_key: str | None = None
) -> Result:
    """Runs ``shop account`` as shop_accounts; ``password`` is the standard input."""
    environment = {"ACCOUNTS_DATABASE_URL": shop.role_url("accounts"), "LINK_KEY": link_key}
    typed = None if password is None else f"{password}\n"
    return CliRunner().invoke(app, ["account", *arguments], env=environment, input=typed)


def create(shop: ShopHarness, email: str, role: str, *, password: str = PASSWORD) -> Result:
    options = ("--role", role, "--name", "Kim", "--password-stdin")
    return run(shop, "create", email, *options, password=password)


def entries(shop: ShopHarness) -> list[tuple[Any, ...]]:
    rows = shop.sql(
        "select action, before, after from shop.audit_log where actor_kind = 'COMMAND' "
        "and object_kind = 'user' order by seq"
    )
    return [tuple(row.values()) for row in rows]


@pytest.mark.parametrize("role", ["staff", "support", "finance", "admin"])
def test_created_account_logs_in_with_its_role_and_has_an_entry(
    accounts: ShopHarness, email: str, role: str
) -> None:
    before = len(entries(accounts))

    result = create(accounts, email, role)

    assert result.exit_code == 0, result.output
    token = accounts.log_in(email).json["accessToken"]
    assert accounts.call("GET", "/users/me", token=token).json["role"] == role
    assert entries(accounts)[before:] == [
        ("user.created", None, {"role": role, "state": "ACTIVE"}),
    ]


def test_second_account_of_an_address_is_not_created(accounts: ShopHarness, email: str) -> None:
    create(accounts, email, "staff")

    result = create(accounts, email.upper(), "admin")

    assert (result.exit_code, "there is an account" in result.output) == (1, True)


@pytest.mark.parametrize("password", ["short", "password1", ""])
def test_weak_password_creates_no_account(accounts: ShopHarness, email: str, password: str) -> None:
    result = create(accounts, email, "staff", password=password)

    assert result.exit_code in (1, 2)
    assert accounts.sql("select 1 from shop.users where email = %s", email) == []


def test_password_needs_a_terminal_or_the_standard_input(accounts: ShopHarness, email: str) -> None:
    result = run(accounts, "create", email, "--role", "staff", "--name", "Kim")

    assert (result.exit_code, "--password-stdin" in result.output) == (2, True)


def test_listed_accounts_are_those_of_role_and_state(accounts: ShopHarness, email: str) -> None:
    create(accounts, email, "finance")
    run(accounts, "disable", email)

    result = run(accounts, "list", "--role", "finance", "--state", "disabled", "--json")

    assert [one["email"] for one in json.loads(result.stdout)] == [email]
    assert "hash" not in result.stdout


def test_role_disable_and_enable_have_entries_with_before_and_after(
    accounts: ShopHarness, email: str
) -> None:
    create(accounts, email, "staff")
    before = len(entries(accounts))

    codes = [
        run(accounts, "role", email, "support").exit_code,
        run(accounts, "disable", email).exit_code,
        run(accounts, "disable", email).exit_code,
        run(accounts, "enable", email).exit_code,
    ]

    staff, support = ({"role": role, "state": "ACTIVE"} for role in ("staff", "support"))
    disabled = {"role": "support", "state": "DISABLED"}
    assert codes == [0, 0, 0, 0]
    assert entries(accounts)[before:] == [
        ("user.changed", staff, support),
        ("user.changed", support, disabled),
        ("user.changed", disabled, support),
    ]


def test_reset_password_ends_sessions_and_the_old_password(
    accounts: ShopHarness, email: str
) -> None:
    create(accounts, email, "staff")
    token = accounts.log_in(email).json["accessToken"]

    result = run(accounts, "reset-password", email, "--password-stdin", password=NEW_PASSWORD)

    assert result.exit_code == 0, result.output
    assert accounts.call("GET", "/users/me", token=token).status == 401
    assert accounts.log_in(email).status == 401
    assert accounts.log_in(email, NEW_PASSWORD).status == 200
    assert entries(accounts)[-1] == ("user.password_set", None, None)


def set_password(shop: ShopHarness, token: str) -> int:
    body = {"token": token, "newPassword": NEW_PASSWORD}
    return shop.call("POST", "/auth/password-reset/confirm", body).status


def test_account_created_by_link_logs_in_only_after_its_owner_has_set_the_password(
    accounts: ShopHarness, email: str
) -> None:
    key = accounts.secrets.link_key

    result = run(
        accounts, "create", email, "--role", "staff", "--name", "Kim", "--link", link_key=key
    )

    assert result.exit_code == 0, result.output
    token = result.stdout.split()[-1]
    answer = accounts.log_in(email, NEW_PASSWORD)
    assert (answer.status, answer.error) == (401, "INVALID_CREDENTIALS")
    assert [set_password(accounts, token) for _ in range(2)] == [204, 403]
    assert accounts.log_in(email, NEW_PASSWORD).status == 200
    assert entries(accounts)[-2:] == [
        ("user.created", None, {"role": "staff", "state": "ACTIVE"}),
        ("user.link_made", None, {"minutes": 4320}),
    ]


def test_reset_by_link_changes_nothing_until_it_is_used(accounts: ShopHarness, email: str) -> None:
    create(accounts, email, "staff")

    result = run(accounts, "reset-password", email, "--link", link_key=accounts.secrets.link_key)

    assert result.exit_code == 0, result.output
    session = accounts.log_in(email).json["accessToken"]
    assert set_password(accounts, result.stdout.split()[-1]) == 204
    assert accounts.call("GET", "/users/me", token=session).status == 401
    assert entries(accounts)[-1] == ("user.link_made", None, {"minutes": 30})


@pytest.mark.parametrize("key", [None, "too short"])
def test_link_without_the_key_exits_2_and_makes_nothing(
    accounts: ShopHarness, email: str, key: str | None
) -> None:
    create(accounts, email, "staff")

    result = run(accounts, "reset-password", email, "--link", link_key=key)

    assert (result.exit_code, "LINK_KEY" in result.output) == (2, True)
    both = run(accounts, "reset-password", email, "--link", "--password-stdin", password="x")
    assert both.exit_code == 2


def test_unknown_address_exits_1(accounts: ShopHarness) -> None:
    result = run(accounts, "disable", "unknown@example.kr")

    assert (result.exit_code, "no account" in result.output) == (1, True)


def test_unknown_role_exits_2(accounts: ShopHarness, email: str) -> None:
    assert create(accounts, email, "root").exit_code == 2


def test_closed_account_is_erased_and_its_address_is_free(
    accounts: ShopHarness, email: str
) -> None:
    create(accounts, email, "customer")
    before = len(entries(accounts))

    closed, unknown = run(accounts, "close", email), run(accounts, "close", email)

    assert (closed.exit_code, unknown.exit_code) == (0, 1)
    assert "is closed, and its personal data is erased" in closed.stdout
    entry = ("user.closed", {"state": "ACTIVE"}, {"state": "CLOSED"})
    assert entries(accounts)[before:] == [entry]
    (event,) = [e for e in accounts.outbox(undone=False) if e["type"] == "user.closed"]
    assert event["source"] == "/shop/manage_accounts"
    assert accounts.register(email).status == 201


def test_account_of_an_operator_is_not_closed(accounts: ShopHarness, email: str) -> None:
    create(accounts, email, "staff")

    result = run(accounts, "close", email)

    assert (result.exit_code, "role customer first" in result.stdout) == (1, True)


def test_lost_second_factor_is_removed_once_and_recorded(accounts: ShopHarness) -> None:
    lost = Samples(accounts).confirmed_factor()

    results = [run(accounts, "reset-second-factor", each) for each in (lost["email"],) * 2]

    assert [result.exit_code for result in results] == [0, 1]
    assert "has no second factor" in results[1].output
    assert accounts.log_in(lost["email"]).status == 200
    (entry,) = accounts.sql(
        "select actor_kind from shop.audit_log where action = 'user.factor_removed'"
    )
    assert entry == {"actor_kind": "COMMAND"}
    (event,) = [
        e for e in accounts.outbox(undone=False) if e["type"] == "user.second-factor-removed"
    ]
    assert event["source"] == "/shop/manage_accounts"


def test_language_of_mails_is_asked_for_or_the_shops(accounts: ShopHarness) -> None:
    asked = (("--language", "en"), (), ("--language", "fr"))
    emails = [f"{uuid4().hex}@example.kr" for _ in asked]
    options = ("--role", "staff", "--name", "Kim", "--password-stdin")
    environment = {"ACCOUNTS_DATABASE_URL": accounts.role_url("accounts"), "SHOP_LANGUAGE": "en"}

    results = [
        run(accounts, "create", email, *options, *language, password=PASSWORD)
        for email, language in zip(emails, asked, strict=True)
    ]
    in_english = CliRunner().invoke(
        app,
        ["account", "create", emails[2], *options],
        env=environment,
        input=f"{PASSWORD}\n",
    )

    assert [result.exit_code for result in (*results, in_english)] == [0, 0, 2, 0]
    rows = accounts.sql("select email, language from shop.users where email = any(%s)", emails)
    languages = {row["email"]: row["language"] for row in rows}
    assert [languages[email] for email in emails] == ["en", "ko", "en"]


def rotate(shop: ShopHarness, keys: str) -> Result:
    environment = {
        "ACCOUNTS_DATABASE_URL": shop.role_url("accounts"),
        "SECOND_FACTOR_KEY": keys,
    }
    return CliRunner().invoke(app, ["account", "rotate-second-factor-key"], env=environment)


def test_rotated_key_keeps_codes_and_recovery_codes_without_the_old_key(
    shop: ShopHarness, make_shop: MakeShop
) -> None:
    owner, old_key = Samples(shop).confirmed_factor(), shop.secrets.second_factor_key
    keys = [f"{'n' * 32} {old_key}", f"{'m' * 32} {'n' * 32}"]

    results = [rotate(shop, each) for each in (*keys, keys[1])]

    assert [result.exit_code for result in results] == [0, 0, 0], results[0].output
    assert [result.stdout.rsplit(":", 1)[1].strip() for result in results] == [
        "1 second factors",
        "1 second factors",
        "0 second factors",
    ]
    last = make_shop(second_factor_key=Secret("m" * 32))
    assert last.call("POST", "/auth/login", owner).status == 200, "a recovery code"
    (row,) = shop.sql("select factor_id, salt, pad from shop.second_factors")
    guesses = [second_factors.new_secret(row[name], old_key) for name in ("salt", "factor_id")]
    assert row["pad"] not in guesses
    entries_of_keys = shop.sql(
        "select after from shop.audit_log where action = 'second_factor.key_rotated' order by seq"
    )
    assert [row["after"] for row in entries_of_keys] == [{"factors": n} for n in (1, 1, 0)]


def test_factor_of_neither_key_is_left_as_it_is(shop: ShopHarness) -> None:
    Samples(shop).confirmed_factor()
    (before,) = shop.sql("select * from shop.second_factors")

    result = rotate(shop, f"{'n' * 32} {'m' * 32}")

    assert (result.exit_code, "1 are of neither key" in result.stdout) == (1, True)
    assert shop.sql("select * from shop.second_factors") == [before]


@pytest.mark.parametrize("keys", ["", "n" * 32, f"{'n' * 32} short", f"{'n' * 32} {'n' * 32}"])
def test_rotation_needs_two_different_keys(shop: ShopHarness, keys: str) -> None:
    result = rotate(shop, keys)

    assert (result.exit_code, "SECOND_FACTOR_KEY" in result.output) == (2, True)
