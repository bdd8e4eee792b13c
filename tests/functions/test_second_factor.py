"""login: the second factor of operators (RFC 6238), from its set-up to its removal."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b32decode
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from shop import second_factors
from shop.runtime.config import Secret
from shop.second_factors import FAILURES_MAX, RECOVERY_CODES, STEP_SECONDS, code_at, step_of
from tests.harness import PASSWORD, MakeShop, Response, ShopHarness, run_concurrently

BEGIN, CONFIRM = "/auth/second-factor", "/auth/second-factor/confirm"
REMOVE, LOG_IN = "/auth/second-factor/remove", "/auth/login"
RENEW = "/auth/second-factor/recovery-codes"
NEW_KEY = "n" * 32


def operator(shop: ShopHarness, role: str = "finance") -> dict[str, str]:
    """The credentials of a new account with a role."""
    email = f"kim.{uuid4().hex[:12]}@example.kr"
    assert shop.register(email).status == 201
    shop.sql("update shop.users set role = %s where email = %s", role, email)
    return {"email": email, "password": PASSWORD}


def secret_for(shop: ShopHarness, credentials: dict[str, str]) -> bytes:
    begun = shop.call("POST", BEGIN, credentials)
    assert begun.status == 201, begun.body
    return b32decode(begun.json["secret"])


def present_step() -> int:
    return int(datetime.now(UTC).timestamp()) // STEP_SECONDS


def forget_used_steps(shop: ShopHarness) -> None:
    """As if the code that was accepted last were an older one."""
    shop.sql("update shop.second_factors set last_step = 1 where confirmed_at is not null")


def enabled(shop: ShopHarness, role: str = "finance") -> tuple[dict[str, str], bytes, Any]:
    """Credentials, secret and confirmation of an account with a second factor."""
    credentials = operator(shop, role)
    secret = secret_for(shop, credentials)
    code = code_at(present_step(), secret)
    confirmed = shop.call("POST", CONFIRM, {**credentials, "code": code})
    assert confirmed.status == 200, confirmed.body
    forget_used_steps(shop)
    return credentials, secret, confirmed.json


def log_in(shop: ShopHarness, credentials: dict[str, str], code: str | None = None) -> Response:
    return shop.call("POST", LOG_IN, credentials if code is None else {**credentials, "code": code})


def wrong(secret: bytes) -> str:
    """A code of none of the steps about now."""
    near = {code_at(present_step() + drift, secret) for drift in range(-3, 4)}
    return next(code for code in ("000000", "111111", "222222", "333333") if code not in near)


# ---------------------------------------------------------------- codes


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_codes_are_those_of_rfc_6238(seconds: int, code: str) -> None:
    """Appendix B, of which the last six of eight digits."""
    assert code_at(seconds // STEP_SECONDS, b"12345678901234567890") == code


@pytest.mark.parametrize(("drift", "is_accepted"), [(-2, 0), (-1, 1), (0, 1), (1, 1), (2, 0)])
def test_code_is_of_the_present_step_or_of_one_beside_it(drift: int, is_accepted: int) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    step = int(now.timestamp()) // STEP_SECONDS + drift
    secret = b"12345678901234567890"

    assert step_of(code_at(step, secret), secret, now) == (step if is_accepted else None)


# ---------------------------------------------------------------- set-up


def test_second_factor_is_needed_once_a_first_code_is_confirmed(shop: ShopHarness) -> None:
    credentials = operator(shop)
    before = shop.log_in(credentials["email"]).json["accessToken"]
    begun = shop.call("POST", BEGIN, credentials)
    secret = b32decode(begun.json["secret"])
    assert log_in(shop, credentials).status == 200, "it is not confirmed yet"

    body = {**credentials, "code": code_at(present_step(), secret)}
    confirmed = shop.call("POST", CONFIRM, body)

    uri: str = begun.json["uri"]
    assert uri.startswith("otpauth://totp/")
    assert parse_qs(urlsplit(uri).query)["secret"] == [begun.json["secret"]]
    assert begun.headers["cache-control"] == confirmed.headers["cache-control"] == "no-store"
    assert confirmed.status == 200
    assert len(set(confirmed.json["recoveryCodes"])) == RECOVERY_CODES
    session = confirmed.json["accessToken"]
    signed_in = [shop.call("GET", "/users/me", token=t).status for t in (session, before)]
    assert signed_in == [200, 401], "the sessions before it have ended"
    without = log_in(shop, credentials)
    assert (without.status, without.error) == (401, "SECOND_FACTOR_REQUIRED")
    forget_used_steps(shop)
    assert log_in(shop, credentials, code_at(present_step(), secret)).status == 200
    (entry,) = shop.sql(
        "select actor_role, before, after from shop.audit_log where action = 'user.factor_enabled'"
    )
    assert entry == {"actor_role": "finance", "before": None, "after": None}


def test_wrong_password_gets_the_answer_of_an_unknown_account(shop: ShopHarness) -> None:
    credentials, _, _ = enabled(shop)
    body = {**credentials, "password": "not the password"}

    answers = [
        shop.call("POST", path, {**body, "code": "123456"}) for path in (LOG_IN, CONFIRM, REMOVE)
    ]
    answers.append(shop.call("POST", BEGIN, body))

    assert [(a.status, a.error) for a in answers] == [(401, "INVALID_CREDENTIALS")] * 4


def test_second_factor_is_set_up_once_and_by_operators_only(shop: ShopHarness) -> None:
    credentials, _, _ = enabled(shop)
    customer = operator(shop, "customer")

    again, foreign = (shop.call("POST", BEGIN, each) for each in (credentials, customer))
    confirmed = shop.call("POST", CONFIRM, {**credentials, "code": "123456"})

    assert (again.status, again.error) == (409, "SECOND_FACTOR_ENABLED")
    assert (foreign.status, foreign.error) == (403, "FORBIDDEN")
    assert (confirmed.status, confirmed.error) == (409, "NO_SECOND_FACTOR")
    assert shop.sql("select count(*)::int as rows from shop.second_factors") == [{"rows": 1}]


def test_database_has_neither_secret_nor_recovery_code(shop: ShopHarness) -> None:
    _, secret, confirmed = enabled(shop)

    (row,) = shop.sql("select to_jsonb(f)::text as text from shop.second_factors f")

    for text in (secret.hex(), *confirmed["recoveryCodes"]):
        assert text not in row["text"]


# ---------------------------------------------------------------- log-in


def test_code_is_accepted_once(shop: ShopHarness) -> None:
    credentials, secret, _ = enabled(shop)
    code = code_at(present_step(), secret)

    answers = run_concurrently(*[lambda: log_in(shop, credentials, code)] * 3)

    assert sorted(answer.status for answer in answers) == [200, 401, 401]
    assert {a.error for a in answers if a.status == 401} == {"INVALID_CODE"}


def test_recovery_code_is_accepted_once(shop: ShopHarness) -> None:
    credentials, _, confirmed = enabled(shop)
    first, second = confirmed["recoveryCodes"][:2]

    answers = [log_in(shop, credentials, code) for code in (first, first, second)]

    assert [answer.status for answer in answers] == [200, 401, 200]
    left = shop.sql("select cardinality(recovery_hashes) as codes from shop.second_factors")
    assert left == [{"codes": RECOVERY_CODES - 2}]


def test_code_of_another_account_is_rejected(shop: ShopHarness) -> None:
    credentials, _, _ = enabled(shop)
    _, secret, confirmed = enabled(shop)

    codes = (code_at(present_step(), secret), confirmed["recoveryCodes"][0])

    assert [log_in(shop, credentials, code).status for code in codes] == [401, 401]


@pytest.mark.parametrize("code", ["", "12345", "1234567", "12345a", "abcd-efgh-ijkl-mnop", 123456])
def test_code_of_another_form_is_422(shop: ShopHarness, code: Any) -> None:
    credentials = operator(shop)

    answer = shop.call("POST", LOG_IN, {**credentials, "code": code})

    assert (answer.status, answer.error) == (422, "INVALID")


def test_guesses_wait_longer_each_time_but_not_recovery_codes(shop: ShopHarness) -> None:
    credentials, secret, confirmed = enabled(shop)

    guesses = [log_in(shop, credentials, wrong(secret)) for _ in range(FAILURES_MAX + 1)]
    right = log_in(shop, credentials, code_at(present_step(), secret))
    shop.sql("update shop.second_factors set blocked_until = now()")
    later = [log_in(shop, credentials, wrong(secret)) for _ in range(2)]
    recovered = log_in(shop, credentials, confirmed["recoveryCodes"][0])
    next_one = log_in(shop, credentials, code_at(present_step(), secret))

    assert [each.status for each in guesses] == [401] * FAILURES_MAX + [429]
    assert (right.status, right.error) == (429, "TOO_MANY_ATTEMPTS")
    assert int(right.headers["retry-after"]) <= second_factors.WAIT_SECONDS_MIN
    assert [each.status for each in later] == [401, 429]
    assert int(later[1].headers["retry-after"]) > second_factors.WAIT_SECONDS_MIN
    assert (recovered.status, next_one.status) == (200, 200)
    (alert,) = shop.sql("select kind, detail from shop.alarms")
    assert alert == {
        "kind": "second_factor_guessed",
        "detail": "5 wrong codes after the right password",
    }


def test_concurrent_guesses_get_no_more_results_than_allowed(shop: ShopHarness) -> None:
    credentials, secret, _ = enabled(shop)
    guess = wrong(secret)

    answers = run_concurrently(*[lambda: log_in(shop, credentials, guess)] * (FAILURES_MAX + 3))

    assert sorted(answer.status for answer in answers) == [401] * FAILURES_MAX + [429] * 3


def test_replaced_password_still_needs_a_code(shop: ShopHarness) -> None:
    credentials, _, confirmed = enabled(shop)
    body = {"currentPassword": PASSWORD, "newPassword": f"{PASSWORD} replaced"}
    token = confirmed["accessToken"]
    assert shop.call("POST", "/users/me/password", body, token=token).status == 204

    answer = log_in(shop, {**credentials, "password": body["newPassword"]})

    assert (answer.status, answer.error) == (401, "SECOND_FACTOR_REQUIRED")


# ---------------------------------------------------------------- roles, removal


def test_role_that_needs_a_second_factor_logs_in_only_with_one(make_shop: MakeShop) -> None:
    shop = make_shop(second_factor_roles="admin, finance")
    credentials, other = operator(shop), operator(shop, "support")

    without = log_in(shop, credentials)
    secret = secret_for(shop, credentials)
    body = {**credentials, "code": code_at(present_step(), secret)}
    confirmed = shop.call("POST", CONFIRM, body)
    forget_used_steps(shop)
    removed = shop.call("POST", REMOVE, {**body, "code": confirmed.json["recoveryCodes"][0]})

    assert (without.status, without.error) == (403, "SECOND_FACTOR_NEEDED")
    assert confirmed.status == 200
    assert (removed.status, removed.error) == (403, "SECOND_FACTOR_NEEDED")
    assert log_in(shop, other).status == 200


def test_removed_second_factor_ends_sessions_and_is_not_needed(shop: ShopHarness) -> None:
    credentials, secret, confirmed = enabled(shop)

    rejected = shop.call("POST", REMOVE, {**credentials, "code": wrong(secret)})
    code = code_at(present_step(), secret)
    removed = shop.call("POST", REMOVE, {**credentials, "code": code})

    assert (rejected.status, removed.status) == (401, 204)
    assert shop.call("GET", "/users/me", token=confirmed["accessToken"]).status == 401
    assert log_in(shop, credentials).status == 200
    assert shop.sql("select user_id from shop.second_factors") == []
    (entry,) = shop.sql("select action from shop.audit_log where action like 'user.factor_r%%'")
    assert entry == {"action": "user.factor_removed"}


# ---------------------------------------------------------------- recovery codes


def renew(shop: ShopHarness, credentials: dict[str, str], code: str) -> Response:
    return shop.call("POST", RENEW, {**credentials, "code": code})


def test_new_recovery_codes_end_those_before(shop: ShopHarness) -> None:
    credentials, secret, confirmed = enabled(shop)
    session = confirmed["accessToken"]

    renewed = renew(shop, credentials, code_at(present_step(), secret))

    assert renewed.status == 200
    assert renewed.headers["cache-control"] == "no-store"
    before, codes = confirmed["recoveryCodes"], renewed.json["recoveryCodes"]
    assert len(set(codes)) == RECOVERY_CODES and not set(codes) & set(before)
    assert shop.call("GET", "/users/me", token=session).status == 200, "sessions stay open"
    assert [log_in(shop, credentials, code).status for code in (before[0], codes[0])] == [401, 200]
    entries = shop.sql("select action from shop.audit_log where action like '%%recovery%%'")
    assert sorted(row["action"] for row in entries) == [
        "user.recovery_code_used",
        "user.recovery_codes_renewed",
    ]


def test_wrong_code_gets_no_recovery_codes(shop: ShopHarness) -> None:
    credentials, secret, confirmed = enabled(shop)

    rejected = renew(shop, credentials, wrong(secret))
    without = renew(shop, operator(shop), "123456")

    assert (rejected.status, rejected.error) == (401, "INVALID_CODE")
    assert (without.status, without.error) == (409, "NO_SECOND_FACTOR")
    assert log_in(shop, credentials, confirmed["recoveryCodes"][0]).status == 200


def test_each_change_of_a_second_factor_is_announced_once(shop: ShopHarness) -> None:
    credentials, secret, confirmed = enabled(shop)
    log_in(shop, credentials, confirmed["recoveryCodes"][0])
    log_in(shop, credentials, code_at(present_step(), secret))
    forget_used_steps(shop)
    renew(shop, credentials, code_at(present_step(), secret))
    forget_used_steps(shop)
    shop.call("POST", REMOVE, {**credentials, "code": code_at(present_step(), secret)})

    announced = shop.sql(
        "select type, data from shop.outbox where source = '/shop/login' order by event_id"
    )
    (account,) = shop.sql("select user_id from shop.users where email = %s", credentials["email"])

    assert [row["type"] for row in announced] == [
        "user.second-factor-enabled",
        "user.recovery-code-used",
        "user.recovery-codes-renewed",
        "user.second-factor-removed",
    ]
    assert {row["data"]["userId"] for row in announced} == {account["user_id"]}


# ---------------------------------------------------------------- another key


def test_factor_of_before_the_last_release_is_valid_with_one_key_and_with_two(
    shop: ShopHarness, make_shop: MakeShop
) -> None:
    credentials, secret, confirmed = enabled(shop)
    (row,) = shop.sql("select factor_id from shop.second_factors")
    key = shop.secrets.second_factor_key
    code = confirmed["recoveryCodes"][0]
    old_hash = hmac.digest(
        key.encode(), b"recovery:" + row["factor_id"].bytes + code.encode(), hashlib.sha256
    )
    shop.sql("update shop.second_factors set key_id = null, recovery_hashes = %s", [old_hash])
    both = make_shop(second_factor_key=Secret(f"{NEW_KEY} {key}"))

    assert log_in(shop, credentials, code_at(present_step(), secret)).status == 200
    forget_used_steps(shop)
    assert log_in(both, credentials, code_at(present_step(), secret)).status == 200
    assert [log_in(both, credentials, code).status for _ in range(2)] == [200, 401]


def test_factor_of_another_key_is_rejected_until_that_key_is_given_too(
    shop: ShopHarness, make_shop: MakeShop
) -> None:
    credentials, secret, confirmed = enabled(shop)
    new = make_shop(second_factor_key=Secret(NEW_KEY))
    both = make_shop(second_factor_key=Secret(f"{NEW_KEY}\n{shop.secrets.second_factor_key}"))
    codes = (code_at(present_step(), secret), confirmed["recoveryCodes"][0])

    rejected = [log_in(new, credentials, code) for code in codes]

    assert [(each.status, each.error) for each in rejected] == [(401, "INVALID_CODE")] * 2
    assert [log_in(both, credentials, code).status for code in codes] == [200, 200]
