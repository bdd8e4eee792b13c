"""account: account holders change their password, and list and end their sessions."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from shop.login_failures import SOURCE_FAILURES_MAX
from tests.harness import PASSWORD, Person, Response, ShopHarness, run_concurrently

NEW_PASSWORD = "another long pass phrase"


def registered(shop: ShopHarness) -> str:
    """The address of a new account."""
    email = f"lee.{uuid4().hex[:12]}@example.kr"
    assert shop.register(email).status == 201
    return email


def signed_in(shop: ShopHarness, email: str, password: str = PASSWORD) -> Person:
    """A new session of the account."""
    token = shop.log_in(email, password).json["accessToken"]
    return Person(shop, shop.call("GET", "/users/me", token=token).json["id"], token)


def change(person: Person, current: str = PASSWORD, new: str = NEW_PASSWORD) -> Response:
    body = {"currentPassword": current, "newPassword": new}
    return person.post("/users/me/password", body)


def sessions(person: Person, query: str = "") -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = person.get(f"/users/me/sessions{query}").json
    return listed


def test_changed_password_replaces_the_old_one_ends_other_sessions_and_is_announced(
    shop: ShopHarness,
) -> None:
    email = registered(shop)
    person, elsewhere = signed_in(shop, email), signed_in(shop, email)
    shop.sql("update shop.outbox set done_at = now()")

    answer = change(person)

    assert (answer.status, answer.body) == (204, b"")
    assert person.get("/users/me").status == 200
    assert elsewhere.get("/users/me").status == 401
    assert shop.log_in(email).status == 401
    assert shop.log_in(email, NEW_PASSWORD).status == 200
    (event,) = shop.outbox()
    assert (event["type"], event["data"]) == ("user.password-changed", {"userId": person.user_id})


def test_wrong_current_password_is_403_and_changes_nothing(shop: ShopHarness) -> None:
    person = shop.person()

    answer = change(person, current="a wrong pass phrase")

    assert (answer.status, answer.error) == (403, "WRONG_PASSWORD")
    assert shop.outbox() == []
    assert change(person).status == 204


def test_guesses_in_one_session_are_limited_and_lock_no_other_session_out(
    shop: ShopHarness,
) -> None:
    email = registered(shop)
    stolen, owner = signed_in(shop, email), signed_in(shop, email)

    guesses = [change(stolen, current=f"guess number {n}") for n in range(SOURCE_FAILURES_MAX + 1)]
    right = change(stolen)

    assert [guess.status for guess in guesses] == [403] * SOURCE_FAILURES_MAX + [429]
    assert (right.status, right.error) == (429, "TOO_MANY_ATTEMPTS")
    assert change(owner).status == 204


@pytest.mark.parametrize("new", ["short", "password1", "x" * 129, "tab\tis no character"])
def test_new_password_that_registration_rejects_is_422(shop: ShopHarness, new: str) -> None:
    person = shop.person()

    answer = change(person, new=new)

    assert answer.status == 422
    assert change(person).status == 204


def test_of_two_concurrent_changes_one_succeeds(shop: ShopHarness) -> None:
    person = shop.person()

    answers = run_concurrently(
        lambda: change(person, new="the first new pass phrase"),
        lambda: change(person, new="the second new pass phrase"),
    )

    assert sorted(answer.status for answer in answers) in ([204, 403], [204, 409])
    assert len(shop.outbox()) == 1


def test_open_sessions_are_listed_newest_first_with_the_present_one_marked(
    shop: ShopHarness,
) -> None:
    email = registered(shop)
    first, second = signed_in(shop, email), signed_in(shop, email)

    listed = sessions(first)

    assert [session["current"] for session in listed] == [False, True]
    assert [session["current"] for session in sessions(second)] == [True, False]
    assert sessions(shop.person())[0]["id"] not in {session["id"] for session in listed}


def test_pages_of_sessions_have_each_once(shop: ShopHarness) -> None:
    email = registered(shop)
    person, *_ = [signed_in(shop, email) for _ in range(3)]
    first = person.get("/users/me/sessions?limit=2")
    path = first.headers["link"].partition("<")[2].partition(">")[0]

    second = person.get(path)

    assert len({session["id"] for session in (*first.json, *second.json)}) == 3
    assert "link" not in second.headers
    assert person.get("/users/me/sessions?cursor=x").status == 400


def test_ended_session_is_rejected_at_once_and_ending_it_again_is_404(shop: ShopHarness) -> None:
    email = registered(shop)
    person, elsewhere = signed_in(shop, email), signed_in(shop, email)
    (other,) = [session["id"] for session in sessions(person) if not session["current"]]

    answers = [person.delete(f"/users/me/sessions/{other}").status for _ in range(2)]

    assert answers == [204, 404]
    assert elsewhere.get("/users/me").status == 401
    assert person.get("/users/me").status == 200


def test_session_of_another_account_gets_the_404_of_a_missing_one(shop: ShopHarness) -> None:
    person, stranger = shop.person(), shop.person()
    (session,) = sessions(person)
    missing = str(uuid4())

    theirs = stranger.delete(f"/users/me/sessions/{session['id']}")
    none = stranger.delete(f"/users/me/sessions/{missing}")

    assert theirs.status == none.status == 404
    assert theirs.body.replace(session["id"].encode(), b"") == none.body.replace(
        missing.encode(), b""
    )
    assert person.get("/users/me").status == 200


def test_every_other_session_ends_and_the_present_one_stays(shop: ShopHarness) -> None:
    email = registered(shop)
    person, others = signed_in(shop, email), [signed_in(shop, email) for _ in range(2)]

    answer = person.delete("/users/me/sessions")

    assert answer.status == 204
    assert [other.get("/users/me").status for other in others] == [401, 401]
    assert [session["current"] for session in sessions(person)] == [True]
