"""Passwords: hashes of the declared strength, and rejection of guessable passwords."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from argon2 import extract_parameters

from shop.adapters import passwords
from shop.adapters.passwords import (
    DUMMY_HASH,
    check_not_common,
    common_passwords,
    hash_password,
    matching_form,
    prepare_new,
    stem_of,
)
from shop.primitives.errors import ClientError, Unavailable
from tools.common_passwords import entries_of

EMAIL = "kim.chulsoo@example.com"


def test_hash_has_the_declared_parameters_and_its_own_salt() -> None:
    first, second = hash_password("correct horse"), hash_password("correct horse")

    parameters = extract_parameters(first)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19_456, 2, 1)
    assert (parameters.salt_len, parameters.hash_len) == (16, 32)
    assert first != second


@pytest.mark.parametrize(
    "password",
    ["correct horse", "비밀번호는길어야합니다", "🔐" * 8, "x" * 127, "with\ttab and ' quote"],
)
def test_only_the_same_password_matches(password: str) -> None:
    stored = hash_password(password)

    assert matching_form(password, stored) == password
    assert matching_form(password + " ", stored) is None
    assert matching_form(password[:-1], stored) is None


def test_password_that_differs_in_byte_73_does_not_match() -> None:
    stored = hash_password("a" * 72 + "b")

    assert matching_form("a" * 72 + "c", stored) is None


def test_composed_form_is_compared_first_and_the_typed_one_after_it() -> None:
    composed, decomposed = "caf\u00e9 caf\u00e9", "cafe\u0301\u3000cafe\u0301"

    assert matching_form(decomposed, hash_password(composed)) == composed
    assert matching_form(decomposed, hash_password(decomposed)) == decomposed
    assert matching_form(composed, hash_password(decomposed)) is None


@pytest.mark.parametrize("password", ["a\tpassword", "a password\x00", "seven 7", "x" * 129])
def test_new_password_with_control_character_or_of_wrong_length_is_a_value_error(
    password: str,
) -> None:
    with pytest.raises(ValueError):
        prepare_new(password)


def test_length_is_that_of_the_composed_password() -> None:
    assert prepare_new("e\u0301" * 128) == "\u00e9" * 128
    with pytest.raises(ValueError):
        prepare_new("e\u0301" * 7)


def test_dummy_hash_costs_a_full_hash_and_matches_no_password() -> None:
    parameters = extract_parameters(DUMMY_HASH)

    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19_456, 2, 1)
    assert (parameters.salt_len, parameters.hash_len) == (16, 32)
    assert matching_form("", DUMMY_HASH) is None


def test_hash_with_former_parameters_needs_rehash() -> None:
    assert passwords.needs_rehash(hash_password("correct horse")) is False
    assert passwords.needs_rehash("$argon2id$v=19$m=9216,t=4,p=1$c2FsdHNhbHQ$aGFzaA") is True


def check(password: str) -> None:
    check_not_common(password, email=EMAIL, shop_names=("msa-shop", "https://bookstore.kr"))


@pytest.mark.parametrize(
    "password",
    [
        "password",
        "PassWord123",
        "qwer1234",
        "Welcome1!",
        "iloveyou!!",
        "12345678!",
        "dragon2031#",
        "test1234",
        "비밀번호1234",
        "eeeeeeeeeeee",
        EMAIL,
        EMAIL.upper(),
        "kim.chulsoo",
        "Chulsoo2026!",
        "chulsoo-chulsoo",
        "1msa-shop1",
        "Bookstore!99",
        "bookstore.kr1",
    ],
)
def test_guessable_password_is_rejected(password: str) -> None:
    with pytest.raises(ClientError) as caught:
        check(password)

    assert (caught.value.status, caught.value.code) == (422, "WEAK_PASSWORD")
    assert caught.value.extra == {}


@pytest.mark.parametrize(
    "password",
    ["vrklo-77", "xy" * 64, "우리집강아지일곱", "        1", "a long enough password",
     "chulsoo buys a bookstore", "48213577"],
)  # fmt: skip
def test_other_password_is_accepted(password: str) -> None:
    check(password)


def test_list_has_ten_thousand_stems_and_is_as_its_tool_writes_it() -> None:
    entries = common_passwords().decode().split("\n")[1:-1]

    assert sum(entry == stem_of(entry) for entry in entries) >= 10_000
    assert entries_of(entries) == entries


def test_list_is_not_read_before_the_first_registration() -> None:
    program = (
        "import functions.register.handler, shop.adapters.passwords as passwords\n"
        "print(passwords.common_passwords.cache_info().currsize)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "0\n"


def test_at_most_four_hashes_run_at_once_and_none_waits_indefinitely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running: list[str] = []
    all_in, leave = threading.Barrier(passwords.HASHES_AT_ONCE + 1), threading.Event()

    def hold(password: str) -> str:
        running.append(password)
        all_in.wait(timeout=10)
        leave.wait(timeout=10)
        return password

    def call(password: str) -> None:
        # a caller whose thread is slow to wait may read the shortened time, too
        with suppress(Unavailable):
            hash_password(password)

    with monkeypatch.context() as patch:
        patch.setattr(passwords, "_hash", hold)
        callers = [threading.Thread(target=call, args=(f"held {n}",)) for n in range(4)]
        for caller in callers:
            caller.start()
        all_in.wait(timeout=10)
        patch.setattr(passwords, "WAIT_SECONDS", 0.01)
        with pytest.raises(Unavailable):
            hash_password("the fifth")
        leave.set()
        for caller in callers:
            caller.join()

    assert sorted(running) == ["held 0", "held 1", "held 2", "held 3"]
    assert matching_form("correct horse", hash_password("correct horse"))
