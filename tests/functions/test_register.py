"""register: creates one account per email address, and shows accounts to their owners only."""

from __future__ import annotations

import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from functions.register.schema import Registration
from shop.messaging.idempotency import fingerprint
from shop.runtime.idempotency_policy import comparable
from tests.harness import PASSWORD, Rows, ShopHarness, run_concurrently
from tests.sample_requests import Samples


def some_email() -> str:
    return f"kim.{uuid4().hex[:12]}@example.com"


def accounts_of(rows: Rows, email: str) -> int:
    return rows("select count(*) from shop.users where email_key = lower(%s)", email)[0][0]


def registered_events(rows: Rows) -> list[Any]:
    return rows("select data, order_id from shop.outbox where type = 'user.registered'")


def test_new_account_is_a_customer_with_a_hashed_password(
    accounts: ShopHarness, rows: Rows
) -> None:
    email = f"Kim.{uuid4().hex[:12]}@Example.COM"

    answer = accounts.register(email)

    assert answer.status == 201
    members = {"id", "email", "name", "role", "language", "emailVerified", "createdAt"}
    assert set(answer.json) == members
    assert (answer.json["email"], answer.json["name"]) == (email, "김철수")
    assert answer.json["role"] == "customer"
    assert datetime.fromisoformat(answer.json["createdAt"]).utcoffset() == timedelta(0)
    assert answer.headers["location"] == "/users/me"
    ((stored, key, role),) = rows(
        "select password_hash, email_key, role from shop.users where user_id = %s",
        answer.json["id"],
    )
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert (key, role) == (email.lower(), "customer")


@pytest.mark.parametrize(
    ("accept_language", "expected"), [("en-GB,en;q=0.9,ko;q=0.8", "en"), ("ja", "ko")]
)
def test_language_of_a_new_account_is_what_accept_language_prefers(
    accounts: ShopHarness, rows: Rows, accept_language: str, expected: str
) -> None:
    answer = accounts.register(some_email(), headers={"accept-language": accept_language})

    assert answer.json["language"] == expected
    stored = rows("select language from shop.users where user_id = %s", answer.json["id"])
    assert stored == [(expected,)]


def test_registration_event_contains_the_id_only(accounts: ShopHarness, rows: Rows) -> None:
    user_id = accounts.register(some_email()).json["id"]

    announced = [data for data, _ in registered_events(rows) if data["userId"] == user_id]

    assert announced == [{"userId": user_id}]


def test_other_spelling_of_a_taken_email_gets_409(accounts: ShopHarness, rows: Rows) -> None:
    email = some_email()
    assert accounts.register(email).status == 201
    before = len(registered_events(rows))

    answer = accounts.register(email.upper())

    assert (answer.status, answer.json["error"]) == (409, "EMAIL_TAKEN")
    assert accounts_of(rows, email) == 1
    assert len(registered_events(rows)) == before


def test_concurrent_registrations_create_one_account(accounts: ShopHarness, rows: Rows) -> None:
    email = some_email()

    with ThreadPoolExecutor(20) as pool:
        requests = [pool.submit(accounts.register, email) for _ in range(100)]
        answers = [request.result().status for request in requests]

    assert sorted(set(answers)) == [201, 409]
    assert answers.count(201) == 1
    assert accounts_of(rows, email) == 1


def test_repeated_key_gets_the_stored_response(accounts: ShopHarness, rows: Rows) -> None:
    email, key = some_email(), uuid4().hex

    first = accounts.register(email, key=key)
    again = accounts.register(email, key=key)
    other = accounts.register(some_email(), key=key)

    assert (first.status, again.status, other.status) == (201, 201, 422)
    assert again.body == first.body
    assert again.headers["idempotent-replayed"] == "true"
    assert accounts_of(rows, email) == 1


def test_repeated_key_with_another_password_gets_422(accounts: ShopHarness, rows: Rows) -> None:
    email, key = some_email(), uuid4().hex
    first = accounts.register(email, key=key)

    other = accounts.register(email, "another password altogether", key=key)
    again = accounts.register(email, key=key)

    assert (first.status, other.status, again.status) == (201, 422, 201)
    assert other.json["error"] == "IDEMPOTENCY_KEY_REUSED"
    assert again.body == first.body
    assert accounts.log_in(email).status == 200


def test_fingerprint_of_a_registration_cannot_be_computed_without_the_signing_key(
    accounts: ShopHarness, rows: Rows
) -> None:
    email, key = some_email(), uuid4().hex
    accounts.register(email, key=key)

    ((stored,),) = rows("select fingerprint from shop.idempotency where key = %s", key)

    body = Registration(email=email, password=SecretStr(PASSWORD), name="김철수")
    signing_key = accounts.secrets.event_keys["identity"].encode()
    for guess in (b"", b"x", signing_key):
        computed = fingerprint({}, comparable(body, guess))
        assert (bytes(stored) == computed) == (guess == signing_key)


EMAILS_REFUSED = [
    "",
    "a",
    "a@",
    "@x.kr",
    "a@x",
    "a@@x.kr",
    "a@b@x.kr",
    '"a b"@x.kr',
    "a b@x.kr",
    "a@x.kr\n",
    "\ta@x.kr",
    ".a@x.kr",
    "a.@x.kr",
    "a..b@x.kr",
    "a@-x.kr",
    "a@x-.kr",
    "a@x..kr",
    "a@x.kr.",
    "a@[127.0.0.1]",
    "a@127.0.0.1",
    "한글@x.kr",
    "a@한글.한국",
    "\u0430@x.kr",
    "a@x.kr\u200b",
    "a@x.kr\r\nBcc: b@x.kr",
    "a" * 65 + "@x.kr",
    "a@" + "x" * 64 + ".kr",
    "a@" + ".".join(["x" * 60] * 4) + ".example.kr",
    "a@x.kr'; drop table shop.users;--",
]
NAMES_REFUSED = [
    "",
    "   ",
    "x" * 101,
    "a\x00b",
    "a\tb",
    "a\r\nX-Y: 1",
    "evil\u202etxt",
    "zero\u200bwidth",
    "\ufeffbom",
    "line\u2028break",
    "nonchar\ufffe",
    "zero\u200dwidth",
    "\u200d\U0001f469",
    "\U0001f468\u200d",
    "\u06a9\u200c",
    "한\u200c글",
    "Z" + "\u0301" * 6,
]
NAMES_ACCEPTED = [
    "김",
    "x" * 100,
    "O'Brien; DROP TABLE orders;--",
    "İstanbul ß",
    "{{7*7}} ${jndi:ldap://x}",
    "<script>alert(1)</script>",
    "Café",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u2764\ufe0f\u200d\U0001f525 \U0001f469\U0001f3fd\u200d\U0001f680",
    "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627",
    "\u0dc1\u0dca\u200d\u0dbb\u0dd3",
    "\u0d15\u0d4d\u200d \u0915\u094d\u200c\u0937",
    "\U0001f600 smile",
    "Việt Nguyễn",
]


@pytest.mark.parametrize("email", EMAILS_REFUSED)
def test_invalid_email_gets_422(accounts: ShopHarness, rows: Rows, email: str) -> None:
    before = rows("select count(*) from shop.users")

    answer = accounts.register(email)

    assert answer.status == 422
    assert rows("select count(*) from shop.users") == before


@pytest.mark.parametrize("local", ["a+tag", "o'brien", "x" * 30, "a.b.c", "1", "_", "A-Z"])
def test_unusual_valid_email_is_accepted(accounts: ShopHarness, local: str) -> None:
    email = f"{local}@x-{uuid4().hex[:12]}.xn--3e0b707e"

    assert accounts.register(email).json["email"] == email


@pytest.mark.parametrize("name", NAMES_REFUSED)
def test_invisible_name_gets_422(accounts: ShopHarness, rows: Rows, name: str) -> None:
    email = some_email()

    answer = accounts.call("POST", "/users", {"email": email, "password": PASSWORD, "name": name})

    assert answer.status == 422
    assert accounts_of(rows, email) == 0


@pytest.mark.parametrize("name", ["김철수", "José", "Nguyễn " * 12, "e\u0301" * 100])
def test_decomposed_name_is_composed_before_its_length_is_checked(
    accounts: ShopHarness, name: str
) -> None:
    decomposed = unicodedata.normalize("NFD", name)
    body = {"email": some_email(), "password": PASSWORD, "name": decomposed}

    answer = accounts.call("POST", "/users", body)

    assert (answer.status, answer.json["name"]) == (201, unicodedata.normalize("NFC", name))


@pytest.mark.parametrize("name", NAMES_ACCEPTED)
def test_valid_name_is_stored_unchanged(accounts: ShopHarness, name: str) -> None:
    body = {"email": some_email(), "password": PASSWORD, "name": name}

    answer = accounts.call("POST", "/users", body)

    assert (answer.status, answer.json["name"]) == (201, name)


@pytest.mark.parametrize(
    "password", ["7 chars", "x" * 129, "Password123", "Welcome1!", "Shop.Test-1", "EMAIL"]
)
def test_weak_password_gets_422(accounts: ShopHarness, rows: Rows, password: str) -> None:
    email = some_email()
    before = len(registered_events(rows))

    answer = accounts.register(email, email.upper() if password == "EMAIL" else password)

    assert answer.status == 422
    assert password.encode() not in answer.body
    assert accounts_of(rows, email) == 0
    assert len(registered_events(rows)) == before


def test_common_password_is_accepted_where_the_setting_allows_it(accounts: ShopHarness) -> None:
    shop = replace(accounts, overrides={"common_passwords_allowed": True}, apps={})
    email = some_email()

    answers = [shop.register(some_email(), "1234567"), shop.register(email, "test1234")]

    assert [answer.status for answer in answers] == [422, 201]
    assert shop.log_in(email, "test1234").status == 200
    shop.close()


@pytest.mark.parametrize(
    "extra",
    [
        {"role": "admin"},
        {"is_admin": True},
        {"user_id": 1},
        {"active": True},
        {"__proto__": {"role": "staff"}},
        {"password_hash": "x"},
        {"emailKey": "x"},
    ],
)
def test_unknown_property_gets_422(
    accounts: ShopHarness, rows: Rows, extra: dict[str, Any]
) -> None:
    email = some_email()
    body = {"email": email, "password": PASSWORD, "name": "김철수", **extra}

    assert accounts.call("POST", "/users", body).status == 422
    assert accounts_of(rows, email) == 0


@pytest.mark.parametrize("value", [None, 1, 1.5, True, [], {}, ["a@x.kr"], {"$gt": ""}])
@pytest.mark.parametrize("property_name", ["email", "password", "name"])
def test_value_of_another_type_gets_422(
    accounts: ShopHarness, property_name: str, value: Any
) -> None:
    body = {"email": some_email(), "password": PASSWORD, "name": "김철수", property_name: value}

    assert accounts.call("POST", "/users", body).status == 422


def test_account_is_shown_to_its_owner(accounts: ShopHarness) -> None:
    email = some_email()
    created = accounts.register(email).json
    token = accounts.log_in(email).json["accessToken"]

    answer = accounts.call(
        "GET", "/users/me", token=token, headers={"x-user-id": "1", "x-role": "staff"}
    )

    assert (answer.status, answer.json) == (200, created)


def test_account_without_a_token_gets_401(accounts: ShopHarness) -> None:
    answer = accounts.call("GET", "/users/me", headers={"x-user-id": "1"})

    assert (answer.status, answer.json["error"]) == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_invalid_registration_gets_422_and_writes_nothing(samples: Samples) -> None:
    good = {"email": "kim@test.kr", "password": PASSWORD, "name": "Kim"}
    before = samples.rows()
    bad: dict[str, tuple[Any, ...]] = {
        "email": (
            "a", "a@", "@x.kr", "a@x", "a@@x.kr", "a@x.kr\n", "a @x.kr", "a b@x.kr", '"a"@x.kr',
            "a@x..kr", "a@-x.kr", "a@x.kr.", "김@x.kr", "a@김.kr", "a@[127.0.0.1]",
            "a" * 65 + "@x.kr",
            "a@" + "x" * 250 + ".kr", "a@x.kr\u200b", "a@x.kr,b@x.kr", "a\r\nBcc: b@x.kr",
        ),
        "password": ("1234567", "x" * 129, "password", "12345678", "kim@test.kr", "qwertyuiop"),
        "name": ("", "x" * 101, "a\nb", "\u202eKim", "a\u200bb", "\x00"),
    }  # fmt: skip
    for name, values in bad.items():
        for value in values:
            answer = samples.shop.call("POST", "/users", json_body={**good, name: value})
            assert answer.status == 422, (name, value, answer.status)
            assert PASSWORD.encode() not in answer.body
    for extra in ("role", "isAdmin", "active", "id", "userId"):
        body = {**good, extra: "staff"}
        assert samples.shop.call("POST", "/users", json_body=body).status == 422, extra
    assert samples.rows() == before


def test_spaces_around_an_address_are_ignored(samples: Samples) -> None:
    email = f"{uuid4().hex}@test.kr"

    registered = samples.shop.register(f"{email} ")
    again = samples.shop.register(f"  {email.upper()}")
    session = samples.shop.log_in(f" {email} ")

    assert (registered.status, registered.json["email"]) == (201, email)
    assert (again.status, session.status) == (409, 200)


def test_concurrent_spellings_of_one_address_create_one_account(samples: Samples) -> None:
    name = uuid4().hex
    spellings = [f"{name}@test.kr", f"{name.upper()}@TEST.kr", f"{name}@Test.Kr"] * 2

    bodies = [{"email": text, "password": PASSWORD, "name": "Kim"} for text in spellings]
    answers = run_concurrently(
        *(partial(samples.shop.call, "POST", "/users", json_body=body) for body in bodies)
    )

    assert sorted(a.status for a in answers) == [201] + [409] * 5
    (users,) = samples.shop.sql(
        "select count(*) from shop.users where email_key = %s", f"{name}@test.kr"
    )
    assert users["count"] == 1
