"""manage_accounts: administrators invite, find and change accounts, and read the audit log."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from shop.one_time_links import token_of
from tests.harness import (
    PASSWORD,
    MakeShop,
    Person,
    Response,
    ShopHarness,
    run_concurrently,
)

ANY = {"if-match": "*"}


@pytest.fixture
def email() -> str:
    """An address without an account."""
    return f"kim.{uuid4().hex[:12]}@example.kr"


def account(admin: Person, user_id: int) -> Response:
    return admin.get(f"/admin/users/{user_id}")


def change(admin: Person, user_id: int, body: dict[str, str], **options: Any) -> Response:
    options.setdefault("headers", ANY)
    return admin.patch(f"/admin/users/{user_id}", body, **options)


def entries_of(shop: ShopHarness, user_id: int) -> list[tuple[Any, ...]]:
    rows = shop.sql(
        "select actor_id, actor_role, action, before, after from shop.audit_log "
        "where object_kind = 'user' and object_id = %s and actor_kind = 'PERSON' order by seq",
        str(user_id),
    )
    return [tuple(row.values()) for row in rows]


def next_page(response: Response) -> str:
    return response.headers["link"].partition("<")[2].partition(">")[0]


def test_accounts_are_listed_by_email_role_and_state(shop: ShopHarness) -> None:
    admin, staff, customer = shop.person("admin"), shop.person("staff"), shop.person()
    change(admin, customer.user_id, {"state": "DISABLED"})
    (row,) = shop.sql("select email from shop.users where user_id = %s", staff.user_id)

    def ids(query: str) -> list[int]:
        return [one["id"] for one in admin.get(f"/admin/users?{query}").json]

    assert ids(f"email={row['email'].upper()}") == [staff.user_id]
    assert staff.user_id in ids("role=staff") and customer.user_id not in ids("role=staff")
    assert ids("state=DISABLED") == [customer.user_id]
    assert ids("state=DISABLED&role=staff") == []


def test_pages_of_accounts_have_each_account_once_newest_first(shop: ShopHarness) -> None:
    admin = shop.person("admin")
    made = [shop.person("finance").user_id for _ in range(5)]
    first = admin.get("/admin/users?role=finance&limit=2")

    second = admin.get(next_page(first))

    assert [one["id"] for one in (*first.json, *second.json)] == sorted(made, reverse=True)[:4]
    assert "password" not in first.body.decode().lower()


def invite(admin: Person, email: str, role: str = "staff", **options: Any) -> Response:
    body = {"email": email, "name": "박초대", "role": role}
    return admin.post("/admin/users", body, **options)


@pytest.mark.parametrize(
    ("accept_language", "body", "language"),
    [
        ("en-US,en;q=0.9,ko;q=0.5", {}, "en"),
        ("en", {"language": "ko"}, "ko"),
        ("fr", {"language": "en"}, "en"),
        ("fr", {}, "ko"),
        ("", {}, "ko"),
    ],
)
def test_language_of_an_invitation_is_given_else_preferred_else_the_shops(
    shop: ShopHarness, email: str, accept_language: str, body: dict[str, str], language: str
) -> None:
    invitation = {"email": email, "name": "Lee", "role": "staff", **body}
    headers = {"accept-language": accept_language} if accept_language else {}

    answer = shop.person("admin").post("/admin/users", invitation, headers=headers)

    assert (answer.status, answer.json["language"]) == (201, language)


def test_language_that_no_request_prefers_is_the_shops_setting(
    make_shop: MakeShop, email: str
) -> None:
    shop = make_shop(shop_language="en")

    invited = invite(shop.person("admin"), email)
    registered = shop.register(f"another.{email}")

    assert (invited.json["language"], registered.json["language"]) == ("en", "en")


@pytest.mark.parametrize("language", ["fr", "KO", "", None])
def test_unknown_language_of_an_invitation_is_422(
    shop: ShopHarness, email: str, language: str | None
) -> None:
    body = {"email": email, "name": "Lee", "role": "staff", "language": language}

    answer = shop.person("admin").post("/admin/users", body)

    assert (answer.status, answer.error) == (422, "INVALID")


def set_password(shop: ShopHarness, link_id: str) -> int:
    token = token_of(UUID(link_id), shop.secrets.link_key)
    body = {"token": token, "newPassword": PASSWORD}
    return shop.call("POST", "/auth/password-reset/confirm", body).status


@pytest.mark.parametrize("role", ["customer", "staff", "admin"])
def test_invited_account_logs_in_with_its_role_after_its_owner_has_set_the_password(
    shop: ShopHarness, email: str, role: str
) -> None:
    admin = shop.person("admin")

    answer = invite(admin, email, role)

    assert (answer.status, answer.json["role"], answer.json["email"]) == (201, role, email)
    read = admin.get(answer.headers["location"])
    assert (read.json, read.headers["etag"]) == (answer.json, answer.headers["etag"])
    assert shop.log_in(email).status == 401
    event = shop.outbox(undone=False)[-1]
    assert (event["type"], event["data"].keys()) == ("user.invited", {"linkId"})
    assert set_password(shop, event["data"]["linkId"]) == 204
    assert shop.log_in(email).status == 200
    actor = (admin.user_id, "admin")
    assert entries_of(shop, answer.json["id"]) == [
        (*actor, "user.created", None, {"role": role, "state": "ACTIVE"}),
        (*actor, "user.link_made", None, {"minutes": 4320}),
    ]


def test_invitation_of_an_address_with_an_account_is_409_and_writes_nothing(
    shop: ShopHarness, email: str
) -> None:
    admin = shop.person("admin")
    assert invite(admin, email).status == 201
    before = shop.sql("select count(*) from shop.one_time_links")

    answer = invite(admin, email.upper(), "admin")

    assert (answer.status, answer.error) == (409, "EMAIL_TAKEN")
    assert shop.sql("select count(*) from shop.one_time_links") == before


def test_repeated_invitation_with_one_key_makes_one_account(shop: ShopHarness, email: str) -> None:
    admin, key = shop.person("admin"), uuid4().hex

    first, second = (invite(admin, email, key=key) for _ in range(2))

    assert (first.status, second.status, second.body) == (201, 201, first.body)
    assert len(entries_of(shop, first.json["id"])) == 2


@pytest.mark.parametrize(
    "wrong", [{"role": "root"}, {"email": "no address"}, {"name": ""}, {"password": "x"}]
)
def test_invitation_with_a_wrong_property_is_422(
    shop: ShopHarness, email: str, wrong: dict[str, str]
) -> None:
    body = {"email": email, "name": "Park", "role": "staff"} | wrong

    assert shop.person("admin").post("/admin/users", body).status == 422


@pytest.mark.parametrize("user_id", ["0", "01", "x", "999999", str(2**63)])
def test_missing_account_is_404(shop: ShopHarness, user_id: str) -> None:
    admin = shop.person("admin")

    answers = [
        admin.get(f"/admin/users/{user_id}").status,
        admin.patch(f"/admin/users/{user_id}", {"role": "staff"}, headers=ANY).status,
    ]

    assert answers == [404, 404]


def test_changed_role_takes_effect_at_once_and_has_an_entry(shop: ShopHarness) -> None:
    admin, person = shop.person("admin"), shop.person()

    answer = change(admin, person.user_id, {"role": "staff"})

    assert (answer.status, answer.json["role"]) == (200, "staff")
    assert person.get("/users/me").status == 401
    before, after = ({"role": role, "state": "ACTIVE"} for role in ("customer", "staff"))
    entry = (admin.user_id, "admin", "user.changed", before, after)
    assert entries_of(shop, person.user_id) == [entry]


def test_disabled_account_loses_every_session_and_enabling_returns_none(
    accounts: ShopHarness, email: str
) -> None:
    registered = accounts.register(email).json
    session = accounts.log_in(email).json
    admin, user_id = accounts.person("admin"), registered["id"]

    def statuses() -> list[int]:
        renewal = {"refreshToken": session["refreshToken"]}
        return [
            accounts.call("GET", "/users/me", token=session["accessToken"]).status,
            accounts.call("POST", "/auth/refresh", renewal).status,
        ]

    disabled = change(admin, user_id, {"state": "DISABLED"})
    while_disabled = [*statuses(), accounts.log_in(email).status]
    enabled = change(admin, user_id, {"state": "ACTIVE"})

    assert (disabled.status, disabled.json["state"]) == (200, "DISABLED")
    assert while_disabled == [401, 401, 401]
    assert (enabled.status, statuses(), accounts.log_in(email).status) == (200, [401, 401], 200)


def test_change_needs_the_etag_of_the_present_account(shop: ShopHarness) -> None:
    admin, person = shop.person("admin"), shop.person()
    etag = account(admin, person.user_id).headers["etag"]
    body = {"role": "support"}

    answers = [
        change(admin, person.user_id, body, headers={}),
        change(admin, person.user_id, body, headers={"if-match": '"other"'}),
        change(admin, person.user_id, body, headers={"if-match": etag}),
        change(admin, person.user_id, {"role": "staff"}, headers={"if-match": etag}),
    ]

    assert [answer.status for answer in answers] == [428, 412, 200, 412]
    assert answers[2].headers["etag"] == account(admin, person.user_id).headers["etag"] != etag
    assert len(entries_of(shop, person.user_id)) == 1


@pytest.mark.parametrize(
    "body", [{}, {"state": "CLOSED"}, {"role": "root"}, {"state": None}, {"email": "a@b.kr"}]
)
def test_invalid_change_is_422_and_changes_nothing(shop: ShopHarness, body: Any) -> None:
    admin, person = shop.person("admin"), shop.person()

    answer = change(admin, person.user_id, body)

    assert answer.status == 422
    assert entries_of(shop, person.user_id) == []


def test_change_to_the_present_values_is_200_without_an_entry(shop: ShopHarness) -> None:
    admin, person = shop.person("admin"), shop.person()

    answer = change(admin, person.user_id, {"role": "customer", "state": "ACTIVE"})

    assert (answer.status, entries_of(shop, person.user_id)) == (200, [])


def test_closed_account_is_not_changed(shop: ShopHarness) -> None:
    admin, person = shop.person("admin"), shop.person()
    shop.sql(
        "update shop.users set state = 'CLOSED', active = false where user_id = %s", person.user_id
    )

    answer = change(admin, person.user_id, {"state": "ACTIVE"})

    assert (answer.status, answer.error) == (409, "ACCOUNT_CLOSED")


def only_admin(shop: ShopHarness) -> Person:
    """An administrator, after all others have become customers."""
    shop.sql("update shop.users set role = 'customer' where role = 'admin'")
    return shop.person("admin")


@pytest.mark.parametrize("body", [{"role": "staff"}, {"state": "DISABLED"}])
def test_last_active_administrator_is_kept(shop: ShopHarness, body: dict[str, str]) -> None:
    admin = only_admin(shop)
    disabled = shop.person("admin")
    change(admin, disabled.user_id, {"state": "DISABLED"})

    answer = change(admin, admin.user_id, body)

    assert (answer.status, answer.error) == (409, "LAST_ADMIN")
    assert admin.get("/admin/users").status == 200


def test_of_two_administrators_who_demote_each_other_at_once_one_remains(
    shop: ShopHarness,
) -> None:
    first = only_admin(shop)
    second = shop.person("admin")

    answers = run_concurrently(
        lambda: change(first, second.user_id, {"role": "staff"}),
        lambda: change(second, first.user_id, {"role": "staff"}),
    )

    assert min(answer.status for answer in answers) == 200
    left = shop.sql("select user_id from shop.users where role = 'admin' and active")
    assert len(left) == 1


def test_audit_log_is_read_by_actor_action_and_object(shop: ShopHarness) -> None:
    admin, staff, product = shop.person("admin"), shop.person("staff"), shop.product()
    staff.post(f"/products/{product}/stock", {"quantity": 3})
    staff.post("/categories", {"name": "새"})

    def actions(query: str) -> list[str]:
        return [entry["action"] for entry in admin.get(f"/admin/audit-log?{query}").json]

    assert actions(f"actorId={staff.user_id}") == ["category.added", "product.restocked"]
    assert actions(f"actorId={staff.user_id}&action=category.added") == ["category.added"]
    assert actions(f"objectKind=product&objectId={product}") == ["product.restocked"]
    (entry,) = admin.get("/admin/audit-log?action=product.restocked").json
    assert entry["actor"] == {"kind": "PERSON", "id": staff.user_id, "role": "staff"}
    assert (entry["before"], entry["after"]) == (None, {"quantity": 3})


def test_pages_of_the_audit_log_have_each_entry_once(shop: ShopHarness) -> None:
    admin, staff, product = shop.person("admin"), shop.person("staff"), shop.product()
    for quantity in range(1, 5):
        staff.post(f"/products/{product}/stock", {"quantity": quantity})
    first = admin.get(f"/admin/audit-log?objectKind=product&objectId={product}&limit=3")

    second = admin.get(next_page(first))

    quantities = [entry["after"]["quantity"] for entry in (*first.json, *second.json)]
    assert quantities == [4, 3, 2, 1]
    assert "link" not in second.headers
