"""login: opens sessions by password, renews them once per refresh token, and ends them at once."""

# Redis is emptied in the way of its operator.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from argon2 import PasswordHasher
from psycopg import OperationalError

from functions.login import handler
from shop.accounts import REPETITION_SECONDS
from shop.adapters.passwords import HASHES_AT_ONCE, hash_password
from shop.adapters.tokens import TokenVerifier
from shop.login_failures import NETWORK_FAILURES_MAX, attempt_on
from shop.registry import all_specs, spec_of
from shop.runtime.client_address import network_of
from tests.harness import (
    AUDIENCE,
    ISSUER,
    PASSWORD,
    Response,
    Rows,
    ShopHarness,
    run_concurrently,
)
from tests.sample_requests import ROUTES, Samples, sample_request
from tests.security.test_token_corpus import ATTACKS, SESSION_ATTACKS, TokenFactory

WRONG = "not the password"


@pytest.fixture
def email(accounts: ShopHarness) -> str:
    """The address of a fresh account, whose password is ``PASSWORD``."""
    address = f"lee.{uuid4().hex[:12]}@example.com"
    assert accounts.register(address).status == 201
    return address


@pytest.fixture
def client() -> str:
    """A network address of this test only, since counters outlive a test."""
    return f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::1"


DISABLED = "active = false, state = 'DISABLED'"


def session_of(accounts: ShopHarness, answer: Response) -> UUID:
    """The session of an access token."""
    keys = json.dumps({"keys": accounts.call("GET", "/.well-known/jwks.json").json["keys"]})
    verifier = TokenVerifier(keys, ISSUER, AUDIENCE)
    return verifier.verify(f"Bearer {answer.json['accessToken']}", datetime.now(UTC)).session_id


def is_signed_in(accounts: ShopHarness, answer: Response) -> bool:
    status = accounts.call("GET", "/users/me", token=answer.json["accessToken"]).status
    assert status in (200, 401)
    return status == 200


def refresh(accounts: ShopHarness, token: str) -> Response:
    return accounts.call("POST", "/auth/refresh", {"refreshToken": token})


# ---------------------------------------------------------------- log in


def test_correct_password_opens_a_session(
    accounts: ShopHarness, rows: Rows, email: str, client: str
) -> None:
    answer = accounts.log_in(email, client=client)

    assert answer.status == 200
    assert set(answer.json) == {"accessToken", "refreshToken", "tokenType", "expiresIn"}
    assert (answer.json["tokenType"], answer.json["expiresIn"]) == ("Bearer", 600)
    assert answer.headers["cache-control"] == "no-store"
    assert is_signed_in(accounts, answer)
    ((days,),) = rows(
        "select extract(day from expires_at - created_at)::int from shop.sessions"
        " where session_id = %s",
        session_of(accounts, answer),
    )
    assert days == 30


def test_email_is_case_insensitive(accounts: ShopHarness, email: str, client: str) -> None:
    assert accounts.log_in(email.upper(), client=client).status == 200


def test_only_the_hash_of_a_refresh_token_is_stored(
    accounts: ShopHarness, rows: Rows, email: str, client: str
) -> None:
    answer = accounts.log_in(email, client=client)

    kept = rows(
        "select token_hash, used_at from shop.refresh_tokens where session_id = %s",
        session_of(accounts, answer),
    )

    assert kept == [(hashlib.sha256(answer.json["refreshToken"].encode()).digest(), None)]


def test_unknown_email_wrong_password_and_closed_account_get_the_same_401_after_one_hash(
    accounts: ShopHarness, rows: Rows, email: str, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = f"closed.{uuid4().hex[:12]}@example.com"
    accounts.register(closed)
    rows(f"update shop.users set {DISABLED} where email = %s returning user_id", closed)
    compared: list[str] = []
    really = handler.matching_form

    def counted(password: str, stored_hash: str) -> str | None:
        compared.append(stored_hash[:31])
        return really(password, stored_hash)

    monkeypatch.setattr(handler, "matching_form", counted)

    answers = [
        accounts.log_in(f"unknown.{uuid4().hex[:12]}@example.com", client=client),
        accounts.log_in(email, WRONG, client=client),
        accounts.log_in(closed, PASSWORD, client=client),
    ]

    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert answers[0].json["error"] == "INVALID_CREDENTIALS"
    assert compared == ["$argon2id$v=19$m=19456,t=2,p=1$"] * 3


def test_hash_with_older_parameters_is_renewed(
    accounts: ShopHarness, rows: Rows, email: str, client: str
) -> None:
    weaker = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash(PASSWORD)
    rows(
        "update shop.users set password_hash = %s where email = %s returning user_id",
        weaker,
        email,
    )

    assert accounts.log_in(email, client=client).status == 200

    ((stored,),) = rows("select password_hash from shop.users where email = %s", email)
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert accounts.log_in(email, client=client).status == 200


DECOMPOSED, COMPOSED = "cafe\u0301 \u1112\u1161\u11ab\u1100\u1173\u11af", "caf\u00e9 \ud55c\uae00"


@pytest.mark.parametrize("registered", [DECOMPOSED, COMPOSED, COMPOSED.replace(" ", "\u3000")])
def test_password_is_the_same_however_its_letters_and_spaces_are_encoded(
    accounts: ShopHarness, client: str, registered: str
) -> None:
    email = f"nfc.{uuid4().hex[:12]}@example.com"
    assert accounts.register(email, registered + "12").status == 201

    for typed in (DECOMPOSED, COMPOSED, COMPOSED.replace(" ", "\u00a0")):
        assert accounts.log_in(email, typed + "12", client=client).status == 200
    assert accounts.log_in(email, "cafe 한글12", client=client).status == 401


def test_hash_of_a_password_as_typed_is_accepted_and_renewed(
    accounts: ShopHarness, rows: Rows, email: str, client: str
) -> None:
    """Version 0.1.0 hashed passwords without composing them."""
    rows(
        "update shop.users set password_hash = %s where email = %s returning user_id",
        hash_password(DECOMPOSED),
        email,
    )
    assert accounts.log_in(email, COMPOSED, client=client).status == 401

    assert accounts.log_in(email, DECOMPOSED, client=client).status == 200
    assert accounts.log_in(email, COMPOSED, client=client).status == 200
    assert accounts.log_in(email, DECOMPOSED, client=client).status == 200


def test_space_around_the_email_is_ignored(accounts: ShopHarness, email: str, client: str) -> None:
    assert accounts.log_in(f" {email}  ", client=client).status == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "text",
        None,
        {"email": "a@x.kr"},
        {"email": "a@x.kr", "password": ""},
        {"email": "a@x.kr", "password": 1},
        {"email": "a@x.kr", "password": {"$gt": ""}},
        {"email": "a@x.kr\x00", "password": "x"},
        {"email": ["a@x.kr"], "password": "x"},
        {"email": "a@x.kr", "password": "x" * 129},
        {"email": "a@x.kr", "password": "x", "role": "staff"},
    ],
)
def test_invalid_login_body_gets_422_or_415(accounts: ShopHarness, body: Any) -> None:
    status = accounts.call("POST", "/auth/login", body).status

    assert status == (422 if body is not None else 415)


def test_password_of_a_megabyte_gets_413(accounts: ShopHarness, email: str) -> None:
    assert accounts.log_in(email, "x" * 1_000_000).status == 413


def test_concurrent_hashes_fit_into_the_memory_limit() -> None:
    for name in ("register", "login"):
        room = spec_of(name).scale.memory_mib - 80
        assert room >= HASHES_AT_ONCE * 19


# ---------------------------------------------------------------- guessing


def networks(count: int) -> list[str]:
    """Addresses of as many networks, of one test only."""
    return [f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::{n}" for n in range(1, count + 1)]


def cookie_of(answer: Response) -> dict[str, str]:
    """The Cookie header that a browser sends after a log-in."""
    return {"cookie": answer.headers["set-cookie"].partition(";")[0]}


def let_seconds_pass(rows: Rows, seconds: int) -> None:
    rows(
        "update shop.login_failures set failed_at = failed_at - make_interval(secs => %s)"
        " returning failure_id",
        seconds,
    )


def test_sixth_guess_from_one_network_gets_429_also_with_the_correct_password(
    accounts: ShopHarness, email: str, client: str
) -> None:
    guesses = [accounts.log_in(email, WRONG, client=client) for _ in range(6)]
    right = accounts.log_in(email, client=client)

    assert [guess.status for guess in guesses] == [401] * 5 + [429]
    assert (right.status, right.json["error"]) == (429, "TOO_MANY_ATTEMPTS")
    assert 880 <= int(right.headers["retry-after"]) <= 900


def test_owner_logs_in_from_another_network_while_one_network_guesses(
    accounts: ShopHarness, email: str
) -> None:
    attacker, owner = networks(2)
    for _ in range(20):
        accounts.log_in(email, WRONG, client=attacker)

    assert accounts.log_in(email, client=owner).status == 200
    assert accounts.log_in(email, client=attacker).status == 429


def test_account_shows_the_results_of_ten_guesses_however_many_networks_guess(
    accounts: ShopHarness, email: str
) -> None:
    guesses = [
        accounts.log_in(email, WRONG, client=network).status
        for network in networks(20)
        for _ in range(3)
    ]

    assert guesses == [401] * 10 + [429] * 50
    (elsewhere,) = networks(1)
    assert accounts.log_in(email, client=elsewhere).status == 429


def test_known_device_logs_in_while_every_network_is_rejected(
    accounts: ShopHarness, email: str
) -> None:
    *attackers, home = networks(5)
    device = cookie_of(accounts.log_in(email, client=home))
    for network in (*attackers, home) * 3:
        accounts.log_in(email, WRONG, client=network)

    assert accounts.log_in(email, client=home).status == 429
    answer = accounts.log_in(email, client=home, headers=device)
    assert answer.status == 200
    assert accounts.log_in(email, client=home, headers=cookie_of(answer)).status == 200


def test_guesses_of_a_known_device_are_limited_and_lock_no_other_device(
    accounts: ShopHarness, email: str, client: str
) -> None:
    stolen, other = (cookie_of(accounts.log_in(email, client=client)) for _ in range(2))
    guesses = [
        accounts.log_in(email, WRONG, client=network, headers=stolen).status
        for network in networks(7)
    ]

    assert guesses == [401] * 5 + [429] * 2
    assert accounts.log_in(email, client=client, headers=stolen).status == 429
    assert accounts.log_in(email, client=client, headers=other).status == 200
    assert accounts.log_in(email, client=client).status == 200


def test_device_of_another_account_is_not_known(
    accounts: ShopHarness, email: str, client: str
) -> None:
    other = f"other.{uuid4().hex[:12]}@example.com"
    accounts.register(other)
    device = cookie_of(accounts.log_in(other, client=client))
    for _ in range(5):
        accounts.log_in(email, WRONG, client=client)

    assert accounts.log_in(email, client=client, headers=device).status == 429


def test_device_cookie_is_hidden_from_scripts_and_from_other_sites(
    accounts: ShopHarness, email: str, client: str
) -> None:
    header = accounts.log_in(email, client=client).headers["set-cookie"]

    attributes = {part.strip() for part in header.split(";")[1:]}
    assert attributes == {"Max-Age=15552000", "Secure", "HttpOnly", "SameSite=Strict"}
    assert email not in header
    assert "set-cookie" not in accounts.log_in(email, WRONG, client=client).headers


def test_guesses_at_an_unknown_email_are_limited_too(accounts: ShopHarness, client: str) -> None:
    unknown = f"unknown.{uuid4().hex[:12]}@example.com"

    statuses = [accounts.log_in(unknown, WRONG, client=client).status for _ in range(7)]

    assert statuses == [401] * 5 + [429] * 2


def test_account_registered_after_guesses_at_its_email_can_log_in(
    accounts: ShopHarness, client: str
) -> None:
    email = f"later.{uuid4().hex[:12]}@example.com"
    for network in (client, *networks(2)):
        for _ in range(5):
            accounts.log_in(email, WRONG, client=network)
    assert accounts.log_in(email, client=client).status == 429

    accounts.register(email)

    assert accounts.log_in(email, client=client).status == 200


def test_request_after_retry_after_is_allowed_and_one_a_second_earlier_is_not(
    accounts: ShopHarness, rows: Rows, email: str, client: str
) -> None:
    for _ in range(5):
        accounts.log_in(email, WRONG, client=client)
    wait = int(accounts.log_in(email, client=client).headers["retry-after"])

    let_seconds_pass(rows, wait - 2)  # and at most one second for the requests
    early = accounts.log_in(email, client=client)
    assert early.status == 429
    let_seconds_pass(rows, int(early.headers["retry-after"]))
    assert accounts.log_in(email, client=client).status == 200


def test_limit_of_one_account_does_not_lock_another(
    accounts: ShopHarness, email: str, client: str
) -> None:
    other = f"other.{uuid4().hex[:12]}@example.com"
    accounts.register(other)
    for _ in range(6):
        accounts.log_in(email, WRONG, client=client)

    assert accounts.log_in(other, client=client).status == 200


def test_successful_login_resets_the_limit_of_its_network_only(
    accounts: ShopHarness, email: str, client: str
) -> None:
    (attacker,) = networks(1)
    for _ in range(5):
        accounts.log_in(email, WRONG, client=attacker)
    for _ in range(3):
        statuses = [accounts.log_in(email, WRONG, client=client).status for _ in range(4)]
        assert statuses == [401] * 4
        assert accounts.log_in(email, client=client).status == 200

    assert accounts.log_in(email, client=attacker).status == 429


def test_concurrent_correct_passwords_all_open_sessions(
    accounts: ShopHarness, email: str, client: str
) -> None:
    log_in = partial(accounts.log_in, email, client=client)

    answers = run_concurrently(*[log_in] * 20)

    assert [answer.status for answer in answers] == [200] * 20


def test_concurrent_guesses_are_all_counted(accounts: ShopHarness, email: str, client: str) -> None:
    guess = partial(accounts.log_in, email, WRONG, client=client)
    with ThreadPoolExecutor(16) as pool:
        guesses = [pool.submit(guess) for _ in range(40)]
        statuses = [future.result().status for future in guesses]

    assert statuses.count(401) == 5
    assert statuses.count(429) == 35


def test_correct_password_among_concurrent_guesses_gets_no_result_beyond_the_limit(
    accounts: ShopHarness, rows: Rows, email: str, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is reached while the password is being verified."""
    really = handler.matching_form

    def guessed_meanwhile(password: str, stored_hash: str) -> str | None:
        monkeypatch.setattr(handler, "matching_form", really)
        for _ in range(5):
            assert accounts.log_in(email, WRONG, client=client).status == 401
        return really(password, stored_hash)

    monkeypatch.setattr(handler, "matching_form", guessed_meanwhile)
    sessions = "select count(*) from shop.sessions"
    before = rows(sessions)

    assert accounts.log_in(email, client=client).status == 429
    assert rows(sessions) == before


@pytest.mark.parametrize(
    "change", ["password_changed_at = now()", "active = false, state = 'DISABLED'"]
)
def test_account_changed_while_the_password_is_verified_gets_no_session(
    accounts: ShopHarness,
    rows: Rows,
    email: str,
    client: str,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    really = handler.matching_form

    def changed_meanwhile(password: str, stored_hash: str) -> str | None:
        accounts.sql(f"update shop.users set {change} where email = %s returning user_id", email)
        return really(password, stored_hash)

    monkeypatch.setattr(handler, "matching_form", changed_meanwhile)
    sessions = "select count(*) from shop.sessions"
    before = rows(sessions)

    answer = accounts.log_in(email, client=client)

    assert (answer.status, answer.error) == (401, "INVALID_CREDENTIALS")
    assert rows(sessions) == before


def test_failures_across_accounts_lock_the_network_but_no_known_device(
    accounts: ShopHarness, rows: Rows, email: str
) -> None:
    network, other_network = networks(2)
    device = cookie_of(accounts.log_in(email, client=network))
    attempt = attempt_on("any", device=None, network=network_of(network))
    rows(
        "insert into shop.login_failures (account, source, is_known_device)"
        " select sha256(n::text::bytea), %s, false from generate_series(1, %s) n"
        " returning failure_id",
        attempt.source,
        NETWORK_FAILURES_MAX,
    )

    neighbour = network.rpartition(":")[0] + ":ffff"
    same_network = accounts.log_in(email, client=neighbour)
    forged = accounts.log_in(email, client=f"192.0.2.77, {neighbour}")
    known_device = accounts.log_in(email, client=network, headers=device)

    assert (same_network.status, forged.status, known_device.status) == (429, 429, 200)
    assert accounts.log_in(email, client=other_network).status == 200
    assert 890 <= int(same_network.headers["retry-after"]) <= 900


def test_failures_are_stored_without_email_and_address(
    accounts: ShopHarness, rows: Rows, email: str, client: str
) -> None:
    accounts.log_in(email, WRONG, client=client)

    ((kept,),) = rows("select string_agg(f::text, ' ') from shop.login_failures f")
    for text in (email, client, email.encode().hex(), client.encode().hex()):
        assert text not in kept


def test_limit_holds_over_processes_and_when_redis_is_emptied_or_away(
    accounts: ShopHarness, accounts_without_redis: ShopHarness, email: str, client: str
) -> None:
    answers = [accounts.log_in(email, WRONG, client=client) for _ in range(3)]
    accounts.apps["login"].services.cache._send(("FLUSHALL",))
    answers += [accounts_without_redis.log_in(email, WRONG, client=client) for _ in range(4)]

    assert [answer.status for answer in answers] == [401] * 5 + [429] * 2


def test_failures_that_no_longer_count_are_deleted_by_the_sweep(
    accounts: ShopHarness, rows: Rows, email: str, client: str
) -> None:
    accounts.log_in(email, WRONG, client=client)
    let_seconds_pass(rows, 2 * 3600)
    accounts.log_in(email, WRONG, client=client)

    assert accounts.tick("sweep").status == 204
    ((left,),) = rows(
        "select count(*) from shop.login_failures where failed_at < now() - '1h'::interval"
    )
    ((kept,),) = rows("select count(*) from shop.login_failures")
    assert (left, kept > 0) == (0, True)


def test_requests_during_a_database_outage_are_not_counted(
    accounts: ShopHarness, email: str, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.log_in(email, WRONG, client=client)
    with monkeypatch.context() as outage:
        outage.setattr(handler.accounts, "find_by_email", _database_is_away)
        during = [accounts.log_in(email, client=client).status for _ in range(10)]

    after = [accounts.log_in(email, WRONG, client=client).status for _ in range(5)]

    assert set(during) == {503}
    assert after == [401] * 4 + [429], "the outage was counted, or it cleared what had been"


def _database_is_away(*_: object) -> None:
    raise OperationalError("server closed the connection unexpectedly")


def test_correct_password_without_a_session_is_not_counted_as_a_failure(
    accounts: ShopHarness, email: str, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        accounts.log_in(email, WRONG, client=client)
    with monkeypatch.context() as outage:
        outage.setattr(handler.accounts, "start_session", _no_session)
        during = [accounts.log_in(email, client=client).status for _ in range(10)]

    assert set(during) == {503}
    assert accounts.log_in(email, client=client).status == 200


def _no_session(*_: object, **__: object) -> None:
    raise OperationalError("server closed the connection unexpectedly")


# ---------------------------------------------------------------- refresh


def test_refresh_token_is_exchanged_for_a_new_pair(
    accounts: ShopHarness, email: str, client: str
) -> None:
    first = accounts.log_in(email, client=client)

    second = refresh(accounts, first.json["refreshToken"])
    third = refresh(accounts, second.json["refreshToken"])

    assert (second.status, third.status) == (200, 200)
    assert second.headers["cache-control"] == "no-store"
    assert len({answer.json["refreshToken"] for answer in (first, second, third)}) == 3
    assert session_of(accounts, third) == session_of(accounts, first)
    assert is_signed_in(accounts, third)


def test_refresh_does_not_extend_the_session(
    accounts: ShopHarness, rows: Rows, email: str, client: str
) -> None:
    first = accounts.log_in(email, client=client)
    ends = "select expires_at from shop.sessions where session_id = %s"
    before = rows(ends, session_of(accounts, first))

    refresh(accounts, first.json["refreshToken"])

    assert rows(ends, session_of(accounts, first)) == before


def let_the_repetition_end(rows: Rows, token: str) -> None:
    """As if the token had been used so long ago that no honest client repeats it."""
    rows(
        "update shop.refresh_tokens set used_at = used_at - make_interval(secs => %s)"
        " where token_hash = sha256(%s::text::bytea) returning session_id",
        REPETITION_SECONDS,
        token,
    )


def test_reused_refresh_token_ends_the_session(
    accounts: ShopHarness, rows: Rows, email: str, client: str
) -> None:
    first = accounts.log_in(email, client=client)
    second = refresh(accounts, first.json["refreshToken"])
    assert is_signed_in(accounts, second)
    let_the_repetition_end(rows, first.json["refreshToken"])

    stolen = refresh(accounts, first.json["refreshToken"])

    assert (stolen.status, stolen.json["error"]) == (401, "INVALID_REFRESH_TOKEN")
    assert refresh(accounts, second.json["refreshToken"]).status == 401
    assert not is_signed_in(accounts, first)
    assert not is_signed_in(accounts, second)
    ((revoked,),) = rows(
        "select revoked_at is not null from shop.sessions where session_id = %s",
        session_of(accounts, first),
    )
    assert revoked is True


def test_concurrent_uses_of_a_refresh_token_get_one_successor(
    accounts: ShopHarness, rows: Rows, email: str, client: str
) -> None:
    first = accounts.log_in(email, client=client)
    token = first.json["refreshToken"]

    answers = run_concurrently(*[lambda: refresh(accounts, token)] * 10)

    assert [answer.status for answer in answers] == [200] * 10
    (successor,) = {answer.json["refreshToken"] for answer in answers}
    assert all(is_signed_in(accounts, answer) for answer in answers)
    kept = rows(
        "select count(*) from shop.refresh_tokens where session_id = %s",
        session_of(accounts, first),
    )
    assert kept == [(2,)]
    assert refresh(accounts, successor).status == 200


def test_refresh_token_repeated_after_its_successor_was_used_ends_the_session(
    accounts: ShopHarness, email: str, client: str
) -> None:
    first = accounts.log_in(email, client=client)
    second = refresh(accounts, first.json["refreshToken"])
    third = refresh(accounts, second.json["refreshToken"])

    assert refresh(accounts, first.json["refreshToken"]).status == 401
    assert not is_signed_in(accounts, third)


def test_stolen_token_that_is_repeated_at_once_ends_the_session_at_the_next_rotation(
    accounts: ShopHarness, rows: Rows, email: str, client: str
) -> None:
    first = accounts.log_in(email, client=client)
    owner, thief = (refresh(accounts, first.json["refreshToken"]) for _ in range(2))
    successor = owner.json["refreshToken"]
    assert thief.json["refreshToken"] == successor

    assert refresh(accounts, successor).status == 200
    let_the_repetition_end(rows, successor)
    assert refresh(accounts, successor).status == 401
    assert not is_signed_in(accounts, owner)
    assert not is_signed_in(accounts, thief)


def test_refresh_token_repeated_after_log_out_gets_401(
    accounts: ShopHarness, email: str, client: str
) -> None:
    first = accounts.log_in(email, client=client)
    second = refresh(accounts, first.json["refreshToken"])
    accounts.call("POST", "/auth/logout", {"refreshToken": second.json["refreshToken"]})

    assert refresh(accounts, first.json["refreshToken"]).status == 401


@pytest.mark.parametrize("kind", ["unknown", "short", "access token", "odd"])
def test_unknown_refresh_token_gets_401_and_changes_nothing(
    accounts: ShopHarness, email: str, client: str, kind: str
) -> None:
    session = accounts.log_in(email, client=client)
    token = {
        "unknown": "A" * 43,
        "short": "x",
        "access token": session.json["accessToken"],
        "odd": "' or 1=1 -- \u0000 한",
    }[kind]

    assert refresh(accounts, token).status == 401
    assert is_signed_in(accounts, session)


@pytest.mark.parametrize(
    "change",
    [
        "update shop.sessions set expires_at = now() where session_id = %s returning session_id",
        "update shop.sessions set revoked_at = now() where session_id = %s returning session_id",
        f"update shop.users set {DISABLED} where user_id = (select user_id from shop.sessions"
        " where session_id = %s) returning user_id",
    ],
    ids=["expired", "ended", "account closed"],
)
def test_ended_session_is_neither_accepted_nor_renewed(
    accounts: ShopHarness, rows: Rows, email: str, client: str, change: str
) -> None:
    session = accounts.log_in(email, client=client)
    rows(change, session_of(accounts, session))

    assert not is_signed_in(accounts, session)
    assert refresh(accounts, session.json["refreshToken"]).status == 401


@pytest.mark.parametrize("body", [{}, {"refreshToken": 1}, {"refreshToken": "x", "userId": 1}])
def test_invalid_refresh_body_gets_422(accounts: ShopHarness, body: Any) -> None:
    assert accounts.call("POST", "/auth/refresh", body).status == 422


# ---------------------------------------------------------------- log out


def test_logout_ends_the_session_and_is_idempotent(
    accounts: ShopHarness, email: str, client: str
) -> None:
    session, other = (accounts.log_in(email, client=client) for _ in range(2))
    assert is_signed_in(accounts, session)
    token = session.json["accessToken"]

    statuses = [accounts.call("POST", "/auth/logout", token=token).status for _ in range(2)]

    assert statuses == [204, 204]
    assert not is_signed_in(accounts, session)
    assert refresh(accounts, session.json["refreshToken"]).status == 401
    assert is_signed_in(accounts, other)


def test_used_refresh_token_ends_the_session_at_logout(
    accounts: ShopHarness, email: str, client: str
) -> None:
    first = accounts.log_in(email, client=client)
    second = refresh(accounts, first.json["refreshToken"])
    body = {"refreshToken": first.json["refreshToken"]}

    answers = [accounts.call("POST", "/auth/logout", body) for _ in range(2)]

    assert [(answer.status, answer.body) for answer in answers] == [(204, b""), (204, b"")]
    assert not is_signed_in(accounts, second)


def test_logout_without_a_token_gets_401(accounts: ShopHarness, email: str, client: str) -> None:
    session = accounts.log_in(email, client=client)

    for body, token in [
        ({}, None),
        (None, None),
        ({"refreshToken": None}, None),
        ({"refreshToken": "A" * 43}, None),
        ({}, session.json["accessToken"][:-4] + "AAAA"),
    ]:
        assert accounts.call("POST", "/auth/logout", body, token=token).status == 401
    assert is_signed_in(accounts, session)


# ---------------------------------------------------------------- tokens over the wire


@pytest.fixture
def factory(accounts: ShopHarness, email: str, client: str) -> TokenFactory:
    answer = accounts.log_in(email, client=client)
    return TokenFactory(
        key=accounts.token_key(),
        issuer=ISSUER,
        audience=AUDIENCE,
        user_id=accounts.call("GET", "/users/me", token=answer.json["accessToken"]).json["id"],
        session_id=session_of(accounts, answer),
        now=int(time.time()),
    )


def ask_with(accounts: ShopHarness, method: str, path: str, header: str | None) -> int:
    headers = {} if header is None else {"authorization": header}
    return accounts.call(method, path, headers=headers).status


@pytest.mark.parametrize(("method", "path"), [("GET", "/users/me"), ("POST", "/auth/logout")])
def test_every_forged_token_gets_401(
    accounts: ShopHarness, factory: TokenFactory, method: str, path: str
) -> None:
    statuses = {name: ask_with(accounts, method, path, make(factory)) for name, make in ATTACKS}

    assert {name: status for name, status in statuses.items() if status != 401} == {}
    assert ask_with(accounts, "GET", "/users/me", f"Bearer {factory.good()}") == 200


def test_valid_tokens_of_sessions_that_are_not_open_get_401(
    accounts: ShopHarness, factory: TokenFactory
) -> None:
    statuses = [
        ask_with(accounts, "GET", "/users/me", make(factory)) for _, make in SESSION_ATTACKS
    ]

    assert statuses == [401] * len(SESSION_ATTACKS)


def test_logout_with_a_token_of_another_session_ends_nothing_else(
    accounts: ShopHarness, factory: TokenFactory
) -> None:
    for _, make in SESSION_ATTACKS:
        assert ask_with(accounts, "POST", "/auth/logout", make(factory)) == 204

    assert ask_with(accounts, "GET", "/users/me", f"Bearer {factory.good()}") == 200


def test_jwks_contains_public_keys_only(accounts: ShopHarness) -> None:
    answer = accounts.call("GET", "/.well-known/jwks.json")

    assert answer.status == 200
    assert answer.headers["cache-control"] == "public, max-age=300"
    (key,) = answer.json["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")


def test_password_bytes_beyond_72_are_compared(samples: Samples) -> None:
    long_one = "가나다라" * 7 + "x"  # 85 bytes: bcrypt would have read 72 of them
    body = {"email": samples.email, "password": long_one, "name": "Kim"}
    assert samples.shop.call("POST", "/users", json_body=body).status == 201

    for password, status in ((long_one[:-1] + "y", 401), (long_one[:-1], 401), (long_one, 200)):
        login = {"email": samples.email, "password": password}
        assert samples.shop.call("POST", "/auth/login", json_body=login).status == status


def test_unknown_email_and_wrong_password_get_identical_responses(samples: Samples) -> None:
    known = samples.account["email"]

    answers = [
        samples.shop.call("POST", "/auth/login", json_body={"email": e, "password": "wrong one"})
        for e in (known, "unknown@test.kr")
    ]

    assert [a.status for a in answers] == [401, 401]
    assert answers[0].body == answers[1].body
    assert dict(answers[0].headers) == dict(answers[1].headers)


def test_access_token_is_short_lived_and_verifiable_with_public_keys_only(samples: Samples) -> None:
    """A token names its issuer, audience and expiry; verifiers have public keys only."""
    pair = samples.shop.call("POST", "/auth/login", json_body=samples.account).json

    claims = jwt.decode(pair["accessToken"], options={"verify_signature": False})
    header = jwt.get_unverified_header(pair["accessToken"])

    assert set(header) == {"alg", "typ", "kid"} and header["alg"] == "EdDSA"
    assert {"iss", "aud", "sub", "jti", "nbf", "iat", "exp"} <= set(claims)
    assert claims["exp"] - claims["iat"] <= 600 and "@" not in json.dumps(claims)
    keys = samples.shop.call("GET", "/.well-known/jwks.json").json["keys"]
    assert all("d" not in key for key in keys)
    assert TokenVerifier(samples.shop.secrets.jwks, ISSUER, AUDIENCE)
    holders = [spec.name for spec in all_specs() if spec.issues_tokens]
    assert holders == ["login"]


def test_empty_registration_gets_422_and_seventh_guess_gets_429(samples: Samples) -> None:
    """Input rules, a slow hash and a limit on guesses protect accounts."""
    empty = {"email": "", "password": "", "name": ""}
    assert samples.shop.call("POST", "/users", json_body=empty).status == 422
    (row,) = samples.shop.sql(
        "select password_hash from shop.users where email = %s", samples.account["email"]
    )
    assert row["password_hash"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")

    wrong = {**samples.account, "password": "wrong one"}
    guesses = [samples.shop.call("POST", "/auth/login", json_body=wrong).status for _ in range(7)]
    right = samples.shop.call("POST", "/auth/login", json_body=samples.account)

    assert guesses == [401] * 5 + [429] * 2
    assert (right.status, "retry-after" in right.headers) == (429, True)


def test_passwords_and_tokens_are_not_logged(
    samples: Samples, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logs contain no credentials (ASVS 16.2.5)."""
    pair = samples.shop.call("POST", "/auth/login", json_body=samples.account)
    samples.shop.call(
        "POST", "/auth/login", json_body={**samples.account, "password": PASSWORD + "x"}
    )
    samples.shop.call("POST", "/users", json_body={"password": PASSWORD, "email": 1, "name": 2})
    sent = sample_request(samples, ROUTES["POST", "/orders"])
    samples.send(ROUTES["POST", "/orders"], sent, token=pair.json["accessToken"])

    logged = capsys.readouterr().out

    assert '"status": 401' in logged
    for secret in (PASSWORD, pair.json["accessToken"], pair.json["refreshToken"], samples.email):
        assert secret not in logged
