"""manage_accounts: service accounts call the shop with API keys, each for some groups of routes."""

# The memory of a process is emptied, as an hour later.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from shop.adapters.db import Database
from shop.primitives.spec import KEY_GROUPS, SCOPES
from shop.registry import all_specs
from shop.runtime import key_callers
from shop.service_accounts import OPEN_KEYS_MAX
from tests.harness import PASSWORD, MakeShop, Person, Response, ShopHarness, run_concurrently

NEVER = {"auth", "docs", "pages", "payments", "shipments", "users"}  # the groups that no key is for


def service(admin: Person, role: str = "staff") -> int:
    """A new service account."""
    body = {"name": f"import-{uuid4().hex[:16]}", "role": role}
    created = admin.post("/admin/service-accounts", body)
    assert created.status == 201, created.body
    return int(created.json["id"])


def create_key(admin: Person, user_id: int, *scopes: str, **body: Any) -> Response:
    return admin.post(f"/admin/users/{user_id}/api-keys", {"scopes": list(scopes), **body})


def new_key(admin: Person, *scopes: str, role: str = "staff") -> tuple[int, str]:
    """A service account and a key of it."""
    user_id = service(admin, role)
    created = create_key(admin, user_id, *scopes)
    assert created.status == 201, created.body
    return user_id, created.json["key"]


def product_body(shop: ShopHarness) -> dict[str, object]:
    shop.product()
    return {"name": "물건", "category": "시험", "price": 100, "stockQuantity": 5}


def test_every_group_of_routes_is_for_keys_or_never(shop: ShopHarness) -> None:
    groups = {route.group for spec in all_specs() for route in spec.routes}

    assert groups == {*KEY_GROUPS} | NEVER


def test_key_acts_as_its_account_and_the_audit_log_names_a_service(shop: ShopHarness) -> None:
    admin = shop.person("admin")
    user_id, key = new_key(admin, "catalog:write")

    added = shop.call("POST", "/products", product_body(shop), token=key)

    assert added.status == 201
    (entry,) = admin.get(f"/admin/audit-log?actorId={user_id}").json
    assert entry["actor"] == {"kind": "SERVICE", "id": user_id, "role": "staff"}
    assert entry["action"] == "product.added"


@pytest.mark.parametrize(
    ("role", "scopes", "method", "path", "status"),
    [
        ("staff", ["catalog:read"], "POST", "/products", 403),
        ("staff", ["orders:write"], "POST", "/products", 403),
        ("support", ["catalog:write"], "POST", "/products", 403),
        ("finance", ["settlements:read"], "GET", "/settlements/monthly", 200),
        ("finance", ["settlements:write"], "GET", "/settlements/monthly", 403),
        ("staff", ["orders:read"], "GET", "/orders/me", 200),
        ("staff", list(SCOPES), "GET", "/users/me", 403),
        ("staff", list(SCOPES), "GET", "/users/me/sessions", 403),
        ("staff", list(SCOPES), "GET", "/admin/users", 403),
        ("support", ["admin:read"], "GET", "/admin/orders", 200),
    ],
)
def test_key_may_what_its_role_and_a_scope_allow(
    shop: ShopHarness, role: str, scopes: list[str], method: str, path: str, status: int
) -> None:
    _, key = new_key(shop.person("admin"), *scopes, role=role)
    body = product_body(shop) if method == "POST" else None

    assert shop.call(method, path, body, token=key).status == status


def test_missing_scope_is_named_in_the_challenge(shop: ShopHarness) -> None:
    _, key = new_key(shop.person("admin"), "catalog:read")

    answer = shop.call("GET", "/orders/me", token=key)

    assert (answer.status, answer.error) == (403, "INSUFFICIENT_SCOPE")
    challenge = 'Bearer error="insufficient_scope", scope="orders:read"'
    assert answer.headers["www-authenticate"] == challenge


def test_unknown_malformed_and_ended_keys_get_the_401_of_every_token(shop: ShopHarness) -> None:
    admin = shop.person("admin")
    user_id, key = new_key(admin, "orders:read")
    (listed,) = admin.get(f"/admin/users/{user_id}/api-keys").json
    assert shop.call("GET", "/orders/me", token=key).status == 200

    ended = [admin.delete(f"/admin/users/{user_id}/api-keys/{listed['id']}") for _ in range(2)]

    assert [answer.status for answer in ended] == [204, 404]
    tokens = [key, "msk_" + "A" * 43, key[:-1], key + "A", "msk_", key.upper(), key.encode().hex()]
    answers = [shop.call("GET", "/orders/me", token=token) for token in tokens]
    assert [(a.status, a.error) for a in answers] == [(401, "UNAUTHENTICATED")] * len(tokens)
    assert all(a.headers["www-authenticate"].startswith("Bearer") for a in answers)


def test_disabled_account_loses_its_keys_for_good(shop: ShopHarness) -> None:
    admin = shop.person("admin")
    user_id, key = new_key(admin, "orders:read")
    assert shop.call("GET", "/orders/me", token=key).status == 200

    for state in ("DISABLED", "ACTIVE"):
        headers = {"if-match": "*"}
        changed = admin.patch(f"/admin/users/{user_id}", {"state": state}, headers=headers)
        assert changed.status == 200
        assert shop.call("GET", "/orders/me", token=key).status == 401


def test_expired_key_is_401(shop: ShopHarness) -> None:
    user_id, key = new_key(shop.person("admin"), "orders:read")
    assert shop.call("GET", "/orders/me", token=key).status == 200

    shop.sql("update shop.sessions set expires_at = now() where user_id = %s", user_id)

    assert shop.call("GET", "/orders/me", token=key).status == 401


def test_rotated_key_is_valid_beside_the_next_one_for_the_overlap(shop: ShopHarness) -> None:
    admin = shop.person("admin")
    user_id = service(admin)
    created = create_key(admin, user_id, "orders:read", "orders:write").json
    path = f"/admin/users/{user_id}/api-keys"

    rotated = admin.post(f"{path}/{created['id']}/rotate", {"overlapHours": 2})

    assert rotated.status == 201
    assert rotated.json["scopes"] == ["orders:read", "orders:write"]
    keys = [created["key"], rotated.json["key"]]
    assert [shop.call("GET", "/orders/me", token=key).status for key in keys] == [200, 200]
    (left,) = shop.sql(
        "select expires_at - now() between interval '119 minutes' and interval '2 hours' as is_so "
        "from shop.sessions where session_id = %s",
        UUID(created["id"]),
    )
    assert left["is_so"]
    # without an overlap at once, and an ended key is rotated no more
    again = [
        admin.post(f"{path}/{rotated.json['id']}/rotate", {"overlapHours": 0}).status
        for _ in range(2)
    ]
    assert again == [201, 404]
    assert shop.call("GET", "/orders/me", token=rotated.json["key"]).status == 401
    actions = [entry["action"] for entry in admin.get("/admin/audit-log?objectKind=api_key").json]
    assert actions == ["api_key.rotated", "api_key.rotated", "api_key.created"]


def test_listed_key_has_prefix_scopes_and_last_use_but_no_secret(shop: ShopHarness) -> None:
    admin = shop.person("admin")
    user_id, key = new_key(admin, "orders:read")
    path = f"/admin/users/{user_id}/api-keys"
    (before,) = admin.get(path).json

    shop.call("GET", "/orders/me", token=key)
    listed = admin.get(path)

    assert before["lastUsedAt"] is None and listed.json[0]["lastUsedAt"] is not None
    assert (before["prefix"], before["scopes"]) == (key[:12], ["orders:read"])
    assert key not in listed.body.decode()
    rows = shop.sql(
        "select k::text as row from shop.api_keys k where session_id = %s", UUID(before["id"])
    )
    assert len(rows) == 1 and key[12:] not in rows[0]["row"]
    entries = shop.sql(
        "select a::text as row from shop.audit_log a where object_id = %s", before["id"]
    )
    assert len(entries) == 1 and key[12:] not in entries[0]["row"]


def test_use_is_written_once_an_hour_and_looked_up_once_in_a_process(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id, key = new_key(shop.person("admin"), "orders:read")
    lookups: list[object] = []
    really = Database.run_now

    def counted(database: Database, *statements: Any) -> Any:
        lookups.append(statements)
        return really(database, *statements)

    monkeypatch.setattr(Database, "run_now", counted)
    last_used = (
        "select last_used_at from shop.api_keys join shop.sessions using (session_id) "
        "where user_id = %s"
    )
    shop.call("GET", "/orders/me", token=key)
    first = shop.sql(last_used, user_id)
    shop.call("GET", "/orders/me", token=key)

    assert len(lookups) == 1
    monkeypatch.setattr(key_callers, "CACHED_SECONDS", -1)
    shop.apps["read_orders"].services.key_callers._known.clear()
    shop.call("GET", "/orders/me", token=key)
    assert len(lookups) == 2
    assert shop.sql(last_used, user_id) == first
    shop.sql("update shop.api_keys set last_used_at = now() - interval '61 minutes'")
    shop.call("GET", "/orders/me", token=key)
    (again,) = shop.sql(last_used, user_id)
    assert again["last_used_at"] >= first[0]["last_used_at"]


def test_access_token_is_looked_up_as_no_key(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_database: Database, *_: Any) -> Any:
        raise AssertionError("an access token takes no query of its own")

    person = shop.person()
    monkeypatch.setattr(Database, "run_now", never)

    assert person.get("/orders/me").status == 200


def test_service_account_has_no_password_and_no_reset(shop: ShopHarness) -> None:
    admin = shop.person("admin")
    user_id = service(admin)
    (account,) = shop.sql("select email from shop.users where user_id = %s", user_id)
    assert account["email"].endswith("@service.invalid")
    shop.sql(
        "update shop.users set password_hash = (select password_hash from shop.users "
        "where user_id = %s) where user_id = %s returning 1",
        admin.user_id,
        user_id,
    )

    assert shop.log_in(account["email"]).status == 401
    shop.call("POST", "/auth/password-reset", {"email": account["email"]})
    links = shop.sql("select user_id from shop.one_time_links")
    assert links == [{"user_id": None}]
    assert admin.get(f"/admin/users/{user_id}").json["service"] is True


def test_person_gets_no_key_and_an_unknown_account_is_404(shop: ShopHarness) -> None:
    admin, staff = shop.person("admin"), shop.person("staff")

    assert create_key(admin, staff.user_id, "orders:read").error == "NOT_A_SERVICE"
    assert create_key(admin, 10**15, "orders:read").status == 404
    assert admin.get(f"/admin/users/{10**15}/api-keys").status == 404


def test_taken_name_is_409(shop: ShopHarness) -> None:
    admin = shop.person("admin")
    body = {"name": f"n{uuid4().hex[:16]}", "role": "finance"}

    answers = [admin.post("/admin/service-accounts", body).status for _ in range(2)]

    assert answers == [201, 409]


def test_account_has_at_most_ten_open_keys(shop: ShopHarness) -> None:
    admin = shop.person("admin")
    user_id = service(admin)

    answers = run_concurrently(
        *[lambda: create_key(admin, user_id, "orders:read")] * (OPEN_KEYS_MAX + 2)
    )

    statuses = [answer.status for answer in answers]
    assert statuses.count(201) == OPEN_KEYS_MAX
    assert [a.error for a in answers if a.status != 201] == ["TOO_MANY_KEYS"] * 2


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": []},
        {"scopes": ["users:read"]},
        {"scopes": ["orders:admin"]},
        {"scopes": ["orders:read"], "days": 0},
        {"scopes": ["orders:read"], "days": 366},
        {"scopes": "orders:read"},
    ],
)
def test_invalid_request_for_a_key_is_422(shop: ShopHarness, body: dict[str, object]) -> None:
    admin = shop.person("admin")

    assert admin.post(f"/admin/users/{service(admin)}/api-keys", body).status == 422


@pytest.mark.parametrize("name", ["", "a", "A-b", "-ab", "a b", "a" * 41, "é-1"])
@pytest.mark.parametrize("role", ["staff"])
def test_invalid_name_of_a_service_is_422(shop: ShopHarness, name: str, role: str) -> None:
    body = {"name": name, "role": role}

    assert shop.person("admin").post("/admin/service-accounts", body).status == 422


@pytest.mark.parametrize("role", ["admin", "customer"])
def test_service_has_the_role_of_an_operator(shop: ShopHarness, role: str) -> None:
    body = {"name": "some-service", "role": role}

    assert shop.person("admin").post("/admin/service-accounts", body).status == 422


def test_keys_are_counted_by_account(make_shop: MakeShop) -> None:
    shop = make_shop(rate_limit_per_minute=5)
    admin = shop.person("admin")
    _, key = new_key(admin, "orders:read")

    answers = [shop.call("GET", "/orders/me", token=key).status for _ in range(6)]

    assert answers == [200] * 5 + [429]
    assert PASSWORD not in repr(shop.call("GET", "/orders/me", token=key).headers)
