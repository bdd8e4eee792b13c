"""account: passwords are reset by links; every address gets the same answer."""

from __future__ import annotations

import base64
from uuid import UUID, uuid4

import pytest

from shop.one_time_links import ADDRESS_LINKS_MAX, NETWORK_LINKS_MAX, link_of, token_of
from shop.primitives.ids import new_uuid
from tests.harness import PASSWORD, Response, ShopHarness, run_concurrently

NEW_PASSWORD = "another long pass phrase"
CONFIRM = "/auth/password-reset/confirm"


def registered(shop: ShopHarness) -> str:
    """The address of a new account."""
    email = f"lee.{uuid4().hex[:12]}@example.kr"
    assert shop.register(email).status == 201
    return email


def request_reset(shop: ShopHarness, email: str, *, client: str | None = None) -> Response:
    """Requests a link; every test has a network of its own, unless it names one."""
    number = uuid4().int
    own = f"10.{number % 256}.{number >> 8 & 255}.{number >> 16 & 255}"
    return shop.call("POST", "/auth/password-reset", {"email": email}, client=client or own)


def links(shop: ShopHarness) -> list[UUID]:
    """The links that are announced, oldest first."""
    name = "user.password-reset-requested"
    return [UUID(e["data"]["linkId"]) for e in shop.outbox(undone=False) if e["type"] == name]


def token_for(shop: ShopHarness, email: str) -> str:
    """The token of a newly requested link, as its sender computes it."""
    assert request_reset(shop, email).status == 202
    return token_of(links(shop)[-1], shop.secrets.link_key)


def confirm(shop: ShopHarness, token: str, password: str = NEW_PASSWORD) -> Response:
    return shop.call("POST", CONFIRM, {"token": token, "newPassword": password})


def test_used_link_replaces_the_password_ends_all_sessions_and_is_announced(
    shop: ShopHarness,
) -> None:
    email = registered(shop)
    tokens = [shop.log_in(email).json["accessToken"] for _ in range(2)]
    token = token_for(shop, email)

    answer = confirm(shop, token)

    assert (answer.status, answer.body) == (204, b"")
    assert [shop.call("GET", "/users/me", token=each).status for each in tokens] == [401, 401]
    assert shop.log_in(email).status == 401
    assert shop.log_in(email, NEW_PASSWORD).status == 200
    assert shop.outbox(undone=False)[-1]["type"] == "user.password-changed"


def test_used_expired_and_unknown_links_get_the_same_403_and_change_nothing(
    shop: ShopHarness,
) -> None:
    email = registered(shop)
    used, expired = token_for(shop, email), token_for(shop, email)
    assert confirm(shop, used).status == 204
    expired = token_for(shop, email)
    shop.sql(
        "update shop.one_time_links set expires_at = now() where link_id = %s", links(shop)[-1]
    )
    before = len(shop.outbox(undone=False))

    unknown = token_of(new_uuid(), shop.secrets.link_key)
    answers = [confirm(shop, token, PASSWORD) for token in (used, expired, unknown)]

    assert [(answer.status, answer.error) for answer in answers] == [(403, "INVALID_LINK")] * 3
    assert len({answer.json["detail"] for answer in answers}) == 1
    assert shop.log_in(email, NEW_PASSWORD).status == 200
    assert len(shop.outbox(undone=False)) == before


def test_token_without_the_key_gets_403(shop: ShopHarness) -> None:
    email = registered(shop)
    right = token_for(shop, email)
    link_id = links(shop)[-1]
    forged = [
        token_of(link_id, "k" * 43),
        base64.urlsafe_b64encode(link_id.bytes + bytes(32)).decode(),
        right[:-1] + ("A" if right[-1] != "A" else "B"),
        "=" * 64,
        "é" * 64,
    ]

    assert [confirm(shop, token).status for token in forged] == [403] * len(forged)
    assert confirm(shop, right[:-1]).status == 422
    assert confirm(shop, right).status == 204


def test_weak_password_is_422_and_the_link_is_still_valid(shop: ShopHarness) -> None:
    token = token_for(shop, registered(shop))

    answers = [confirm(shop, token, weak) for weak in ("password1", "short")]

    assert [answer.status for answer in answers] == [422, 422]
    assert confirm(shop, token).status == 204


def test_of_concurrent_uses_one_succeeds(shop: ShopHarness) -> None:
    token = token_for(shop, registered(shop))

    answers = run_concurrently(*[lambda: confirm(shop, token)] * 4)

    assert sorted(answer.status for answer in answers) == [204, 403, 403, 403]


def test_log_in_beside_a_reset_leaves_no_session_of_the_old_password(shop: ShopHarness) -> None:
    email = registered(shop)
    token = token_for(shop, email)

    reset, *opened = run_concurrently(
        lambda: confirm(shop, token), *[lambda: shop.log_in(email)] * 3
    )

    assert reset.status == 204
    tokens = [answer.json["accessToken"] for answer in opened if answer.status == 200]
    assert [shop.call("GET", "/users/me", token=each).status for each in tokens] == [401] * len(
        tokens
    )


def test_use_of_one_link_ends_the_others_of_the_account_and_none_of_another(
    shop: ShopHarness,
) -> None:
    email, other = registered(shop), registered(shop)
    first, second, others = token_for(shop, email), token_for(shop, email), token_for(shop, other)

    assert confirm(shop, second).status == 204

    assert confirm(shop, first).status == 403
    assert confirm(shop, others).status == 204


def test_unknown_address_gets_the_same_answer_after_the_same_writes(shop: ShopHarness) -> None:
    email, unknown = registered(shop), f"{uuid4().hex}@example.kr"

    answers = [request_reset(shop, each) for each in (email, unknown)]

    assert [(answer.status, answer.body) for answer in answers] == [(202, b"")] * 2
    assert answers[0].headers.keys() == answers[1].headers.keys()
    rows = shop.sql(
        "select user_id is null as is_unknown, purpose, recipient is null as has_none "
        "from shop.one_time_links where link_id = any(%s) order by link_id",
        links(shop)[-2:],
    )
    assert rows == [
        {"is_unknown": False, "purpose": "SET_PASSWORD", "has_none": False},
        {"is_unknown": True, "purpose": "SET_PASSWORD", "has_none": False},
    ]
    assert confirm(shop, token_of(links(shop)[-1], shop.secrets.link_key)).status == 403


def test_disabled_account_gets_no_link(shop: ShopHarness) -> None:
    email = registered(shop)
    shop.sql(
        "update shop.users set active = false, state = 'DISABLED' where email = %s returning 1",
        email,
    )

    token = token_for(shop, email)

    assert confirm(shop, token).status == 403


@pytest.mark.parametrize("has_account", [True, False])
def test_address_gets_three_links_an_hour_and_the_same_answer_for_more(
    shop: ShopHarness, *, has_account: bool
) -> None:
    email = registered(shop) if has_account else f"{uuid4().hex}@example.kr"
    before = len(links(shop))

    answers = run_concurrently(*[lambda: request_reset(shop, email)] * (ADDRESS_LINKS_MAX + 2))

    assert {answer.status for answer in answers} == {202}
    assert len(links(shop)) - before == ADDRESS_LINKS_MAX


def test_network_with_too_many_requests_gets_429_and_others_do_not(shop: ShopHarness) -> None:
    email = registered(shop)
    assert request_reset(shop, email, client="10.255.255.1").status == 202
    shop.sql(
        "insert into shop.one_time_links (link_id, purpose, recipient, network, expires_at) "
        "select gen_random_uuid(), 'SET_PASSWORD', sha256(n::text::bytea), network, now() "
        "from shop.one_time_links, generate_series(2, %s) n where link_id = %s returning 1",
        NETWORK_LINKS_MAX,
        links(shop)[-1],
    )

    limited = request_reset(shop, email, client="10.255.255.1")

    assert (limited.status, limited.error) == (429, "TOO_MANY_ATTEMPTS")
    assert 3500 < int(limited.headers["retry-after"]) <= 3600
    assert request_reset(shop, email, client="10.255.255.2").status == 202


def test_no_row_holds_token_address_or_network(shop: ShopHarness) -> None:
    email = registered(shop)
    token = token_for(shop, email)

    (row,) = shop.sql(
        "select l::text as row, link_id, purpose from shop.one_time_links l where link_id = %s",
        links(shop)[-1],
    )

    assert link_of(token, shop.secrets.link_key) == row["link_id"]
    assert token not in row["row"] and email not in row["row"]


def test_reset_ends_the_limit_on_failed_log_ins(shop: ShopHarness) -> None:
    email = registered(shop)
    for number in range(5):
        shop.log_in(email, f"guess number {number}")
    assert shop.log_in(email).status == 429

    assert confirm(shop, token_for(shop, email)).status == 204

    assert shop.log_in(email, NEW_PASSWORD).status == 200
