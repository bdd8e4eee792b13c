"""account: customers export what the shop holds of them, and close their account."""

# redis-py does not type its keyword arguments.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
import redis
from psycopg.sql import SQL, Identifier

from shop.login_failures import SOURCE_FAILURES_MAX
from shop.one_time_links import requester, token_of
from shop.primitives.statuses import LinkPurpose
from shop.schema.personal_data import exported_name, tables_of_persons
from tests.harness import (
    PASSWORD,
    FlowHarness,
    Person,
    Response,
    ShopHarness,
    assert_invariants,
    run_concurrently,
)
from tests.sample_requests import ADDRESS

CLOSING = {"password": PASSWORD}
TABLES = """
select relname from pg_class
where relnamespace = 'shop'::regnamespace and relkind in ('r', 'm') order by 1
"""
# What is to stay as it is: all columns but those that the closing may change.
RECORDS: dict[str, LiteralString] = {
    "orders": "select to_jsonb(t) from shop.orders t order by 1",
    "order_lines": "select to_jsonb(t) from shop.order_lines t order by 1",
    "order_price_lines": "select to_jsonb(t) from shop.order_price_lines t order by 1",
    "coupon_uses": "select to_jsonb(t) from shop.coupon_uses t order by 1",
    "payments": "select to_jsonb(t) from shop.payments t order by 1",
    "refunds": "select to_jsonb(t) - 'reason' from shop.refunds t order by 1",
    "ledger": "select to_jsonb(t) from shop.ledger t order by 1",
    "transitions": "select to_jsonb(t) from shop.transitions t order by 1",
    "stock_moves": "select to_jsonb(t) from shop.stock_moves t order by 1",
    "audit_log": "select to_jsonb(t) from shop.audit_log t order by 1",
}
# What has rows about the customer that must not name the person.
SEARCHED = (
    "mails",
    "webhook_deliveries",
    "webhook_attempts",
    "audit_log",
    "transitions",
    "outbox",
    "payments",
)
# As if a transaction that began before the closing had committed after it.
STRAGGLERS: tuple[LiteralString, ...] = (
    "insert into shop.sessions (session_id, user_id, expires_at) "
    "values (gen_random_uuid(), %s, now() + interval '1 day')",
    "insert into shop.cart_items (user_id, product_id, qty) "
    "select %s, min(product_id), 1 from shop.products",
    "insert into shop.idempotency (user_id, scope, key, fingerprint, state, status_code, body) "
    "values (%s, 'POST /cart/items', gen_random_uuid(), '', 'DONE', 201, 'personal')",
    "update shop.users set closed_at = now() - interval '2 minutes' where user_id = %s",
)


@dataclass
class Life:
    """A customer whose address, name and every text contain ``mark``, and what they were given."""

    person: Person
    mark: str
    email: str
    secrets: list[str]

    def traces(self) -> list[str]:
        """What would lead from a row, a line or a key to the person: as text, bytes or digest."""
        key = self.person.shop.secrets.link_key
        by = requester(LinkPurpose.SET_PASSWORD, email_key=self.email, network="", key=key)
        texts = [self.mark, *self.secrets]
        digests = [
            hashlib.sha256(f"account:{self.email}".encode()).hexdigest(),
            by.recipient.hex(),
        ]
        return [*texts, *(text.encode().hex() for text in texts), *digests]


def registered(flow: FlowHarness, mark: str) -> tuple[str, list[str]]:
    email = f"kim.{mark}@example.kr"
    body = {"email": email, "password": PASSWORD, "name": f"김 {mark}"}
    key = f"key-of-the-registration-{uuid4().hex[:8]}"
    assert flow.shop.call("POST", "/users", json_body=body, key=key).status == 201
    return email, []


def invited(flow: FlowHarness, mark: str) -> tuple[str, list[str]]:
    """An administrator invites the customer and changes the account; both responses are stored."""
    shop, admin, email = flow.shop, flow.shop.person("admin"), f"kim.{mark}@example.kr"
    body = {"email": email, "name": f"김 {mark}", "role": "customer"}
    made = admin.post("/admin/users", body, key=uuid4().hex)
    (link,) = shop.sql("select link_id from shop.one_time_links order by created_at desc limit 1")
    token = token_of(link["link_id"], shop.secrets.link_key)
    path = f"/admin/users/{made.json['id']}"
    for state in ("DISABLED", "ACTIVE"):
        headers = {"if-match": "*"}
        changed = admin.patch(path, {"state": state}, headers=headers, key=uuid4().hex)
        assert changed.status == 200
    sent = {"token": token, "newPassword": PASSWORD}
    assert shop.call("POST", "/auth/password-reset/confirm", sent).status == 204
    return email, [token]


def lives(flow: FlowHarness, begin: Callable[[FlowHarness, str], tuple[str, list[str]]]) -> Life:
    """A customer who has used everything that leaves something behind."""
    shop, mark = flow.shop, f"mark{uuid4().hex}"
    email, secrets = begin(flow, mark)
    session = shop.log_in(email).json
    secrets += [session["accessToken"], session["refreshToken"]]
    user_id = shop.call("GET", "/users/me", token=session["accessToken"]).json["id"]
    person = Person(shop, user_id, session["accessToken"])
    product = shop.product(stock=50)
    hook = {"url": f"http://127.0.0.1:9/{uuid4().hex}", "eventTypes": ["order.paid"]}
    assert shop.person("admin").post("/admin/webhooks", hook).status == 201
    for number in range(2):
        assert shop.log_in(email, f"a wrong pass phrase {number}").status == 401
    assert shop.call("POST", "/auth/password-reset", {"email": email}).status == 202
    address = ADDRESS | {"recipient": f"김 {mark}", "line1": f"{mark}로 110"}
    saved = person.post("/users/me/addresses", {"address": address}, key=uuid4().hex)
    assert saved.status == 201
    path, changed = saved.headers["location"], {"address": address | {"line2": f"{mark} 3층"}}
    headers = {"if-match": "*"}
    assert person.patch(path, changed, headers=headers, key=uuid4().hex).status == 204
    order = person.order(product, key=f"order-{uuid4().hex}")
    flow.deliver()
    assert shop.tick("manage_webhooks").status == 204
    refund = {"amount": 300, "reason": f"{mark} called"}
    path = f"/orders/{order['id']}/refunds"
    support = shop.person("support")
    refunded = support.post(path, refund, key=uuid4().hex)
    assert refunded.status == 201
    for about in (f"orders/{order['id']}", f"customers/{user_id}"):
        note = {"text": f"{mark} called"}
        noted = support.post(f"/admin/{about}/notes", note, key=uuid4().hex)
        assert noted.status == 201
    unwanted, reason = person.order(product)["id"], {"reason": f"{mark} ordered twice"}
    cancelled = support.patch(f"/admin/orders/{unwanted}/cancel", reason, key=uuid4().hex)
    assert cancelled.status == 200
    declined = person.order(product, method="CARD_DECLINED")
    flow.run_until_idle()
    assert person.patch(f"/orders/{declined['id']}/cancel").status == 200
    flow.run_until_idle()
    item = {"productId": product, "quantity": 3}
    assert person.post("/cart/items", item, key=uuid4().hex).status == 201
    return Life(person, mark, email, secrets)


def close(person: Person, **options: Any) -> Response:
    return person.delete("/users/me", CLOSING, **options)


def close_by_admin(person: Person) -> Response:
    return person.shop.person("admin").delete(f"/admin/users/{person.user_id}")


def closings_of(shop: ShopHarness, user_id: int) -> list[tuple[Any, ...]]:
    """The entries of closings in the audit log."""
    rows = shop.sql(
        "select actor_role, before, after from shop.audit_log "
        "where action = 'user.closed' and object_id = %s",
        str(user_id),
    )
    return [tuple(row.values()) for row in rows]


def tables_with(shop: ShopHarness, traces: list[str]) -> set[str]:
    """Every table and partition that has a row with one of these, in any column."""
    found: set[str] = set()
    with psycopg.connect(shop.admin_url) as connection:
        for (table,) in connection.execute(TABLES).fetchall():
            query = SQL("select 1 from shop.{} t where t::text ilike any(%s) limit 1")
            patterns = [f"%{trace}%" for trace in traces]
            if connection.execute(query.format(Identifier(table)), (patterns,)).fetchone():
                found.add(table)
    return found


def entries_of(url: str) -> str:
    """Every key and value of Redis as one text."""
    client: Any = redis.Redis.from_url(url)
    entries: list[bytes] = []
    for key in client.scan_iter():
        entries.append(key)
        with suppress(redis.ResponseError):  # not a string
            entries.append(client.get(key) or b"")
    client.close()
    return b"\n".join(entries).decode(errors="replace")


def rows(shop: ShopHarness) -> dict[str, list[dict[str, Any]]]:
    return {table: shop.sql(query) for table, query in RECORDS.items()}


@pytest.mark.parametrize(
    ("begin", "closing", "route"),
    [
        (registered, close, "DELETE /users/me"),
        (invited, close, "DELETE /users/me"),
        (registered, close_by_admin, "DELETE /admin/users/{userId}"),
    ],
)
def test_nothing_of_a_closed_account_is_left_in_any_table_log_or_cache(
    flow: FlowHarness,
    capsys: pytest.CaptureFixture[str],
    begin: Callable[[FlowHarness, str], tuple[str, list[str]]],
    closing: Callable[[Person], Response],
    route: str,
) -> None:
    shop, life = flow.shop, lives(flow, begin)
    traces, before = life.traces(), rows(flow.shop)
    held = tables_with(shop, traces)
    assert {"users", "idempotency", "login_failures", "one_time_links", "refunds", "notes"} <= held
    assert [table for table in SEARCHED if not shop.sql(f"select * from shop.{table}")] == []
    flow.run_until_idle()

    assert closing(life.person).status == 204
    flow.run_until_idle()

    assert tables_with(shop, traces) == set()
    log = capsys.readouterr().out
    assert log.count("\n") > 10 and route in log
    assert [trace for trace in traces if trace in log or trace in entries_of(shop.redis_url)] == []
    entries = closings_of(shop, life.person.user_id)
    assert [entry[0] for entry in entries] == ["admin"] * (closing is close_by_admin)
    after = rows(shop)
    del after["audit_log"][len(before["audit_log"]) :]
    assert after == before
    assert_invariants(flow)


def test_closed_account_has_no_session_and_its_address_registers_as_a_new_account(
    flow: FlowHarness,
) -> None:
    shop, life = flow.shop, lives(flow, registered)
    elsewhere = Person(shop, life.person.user_id, shop.log_in(life.email).json["accessToken"])
    order = life.person.get("/orders/me").json[0]

    assert close(life.person).status == 204

    assert [each.get("/users/me").status for each in (life.person, elsewhere)] == [401, 401]
    refreshed = shop.call("POST", "/auth/refresh", {"refreshToken": life.secrets[1]})
    assert (refreshed.status, shop.log_in(life.email).status) == (401, 401)
    again = shop.register(life.email)
    assert again.status == 201 and again.json["id"] != life.person.user_id
    newcomer = Person(shop, again.json["id"], shop.log_in(life.email).json["accessToken"])
    assert newcomer.get("/orders/me").json == []
    assert newcomer.get(f"/orders/{order['id']}").status == 404
    (event,) = [e for e in shop.outbox(undone=False) if e["type"] == "user.closed"]
    assert event["data"] == {"userId": life.person.user_id}


def test_repeated_closing_has_the_same_answer_and_closes_once(shop: ShopHarness) -> None:
    person = shop.person()
    elsewhere = Person(shop, person.user_id, shop.token(person.user_id))

    answers = [close(person), close(person), close(elsewhere)]

    assert [(each.status, each.body) for each in answers] == [(204, b"")] * 3
    assert [e["type"] for e in shop.outbox(undone=False)] == ["user.closed"]


def test_concurrent_closings_close_once(shop: ShopHarness) -> None:
    person = shop.person()

    answers = run_concurrently(*[lambda: close(person)] * 4)

    assert [answer.status for answer in answers] == [204] * 4
    assert [e["type"] for e in shop.outbox(undone=False)] == ["user.closed"]


def test_ended_session_of_an_open_account_closes_nothing(shop: ShopHarness) -> None:
    person = shop.person()
    elsewhere = Person(shop, person.user_id, shop.token(person.user_id))
    assert person.post("/auth/logout").status == 204

    answer = close(person)

    assert (answer.status, answer.error) == (401, "UNAUTHENTICATED")
    assert elsewhere.get("/users/me").status == 200


def test_wrong_password_closes_nothing_and_is_counted(shop: ShopHarness) -> None:
    person = shop.person()
    wrong = {"password": "a wrong pass phrase"}

    answers = [person.delete("/users/me", wrong) for _ in range(SOURCE_FAILURES_MAX + 1)]

    first, last = answers[0], answers[-1]
    assert (first.status, first.error) == (403, "WRONG_PASSWORD")
    assert (last.status, last.error) == (429, "TOO_MANY_ATTEMPTS")
    assert person.get("/users/me").status == 200


@pytest.mark.parametrize("body", [None, {}, {"password": ""}, {"password": PASSWORD, "x": 1}])
def test_closing_without_exactly_a_password_is_rejected(shop: ShopHarness, body: Any) -> None:
    answer = shop.person().delete("/users/me", body)

    assert answer.status in (400, 415, 422)
    assert shop.sql("select 1 from shop.users where state = 'CLOSED'") == []


def test_account_with_an_open_order_is_closed_after_its_cancellation(flow: FlowHarness) -> None:
    person, product = flow.shop.person(), flow.shop.product()
    order = person.order(product, method="CARD_DECLINED")

    refused = close(person)

    assert (refused.status, refused.error) == (409, "OPEN_ORDERS")
    assert refused.json["detail"].startswith("1 orders are not finished")
    assert person.get("/users/me").status == 200
    assert [e["type"] for e in flow.shop.outbox(undone=False)] == ["order.placed"]
    assert person.patch(f"/orders/{order['id']}/cancel").status == 200
    flow.run_until_idle()
    assert close(person).status == 204


@pytest.mark.parametrize("role", ["staff", "support", "finance", "admin"])
def test_operators_account_is_not_closed_by_its_owner(shop: ShopHarness, role: str) -> None:
    person = shop.person(role)

    answer = close(person)

    assert (answer.status, answer.error) == (409, "OPERATOR_ACCOUNT")
    assert person.get("/users/me").status == 200


def test_administrator_closes_an_account_once_with_an_entry(shop: ShopHarness) -> None:
    person, admin = shop.person(), shop.person("admin")
    path, key = f"/admin/users/{person.user_id}", uuid4().hex

    answers = [admin.delete(path, key=key), admin.delete(path, key=key), admin.delete(path)]

    assert [(each.status, each.body) for each in answers] == [(204, b"")] * 3
    assert person.get("/users/me").status == 401
    assert [e["type"] for e in shop.outbox(undone=False)] == ["user.closed"]
    entry = ("admin", {"state": "ACTIVE"}, {"state": "CLOSED"})
    assert closings_of(shop, person.user_id) == [entry]
    assert shop.sql("select * from shop.personal_data_left()") == []


def test_administrator_closes_a_disabled_account(shop: ShopHarness) -> None:
    person, admin = shop.person(), shop.person("admin")
    path = f"/admin/users/{person.user_id}"
    assert admin.patch(path, {"state": "DISABLED"}, headers={"if-match": "*"}).status == 200

    assert admin.delete(path).status == 204

    assert admin.get(path).json["state"] == "CLOSED"


def test_account_with_an_open_order_is_not_closed_by_an_administrator(flow: FlowHarness) -> None:
    person, product = flow.shop.person(), flow.shop.product()
    order = person.order(product, method="CARD_DECLINED")

    refused = close_by_admin(person)

    assert (refused.status, refused.error) == (409, "OPEN_ORDERS")
    assert person.get("/users/me").status == 200
    assert closings_of(flow.shop, person.user_id) == []
    assert [e["type"] for e in flow.shop.outbox(undone=False)] == ["order.placed"]
    assert person.patch(f"/orders/{order['id']}/cancel").status == 200
    flow.run_until_idle()
    assert close_by_admin(person).status == 204


@pytest.mark.parametrize("role", ["staff", "support", "finance", "admin"])
def test_account_of_an_operator_is_closed_only_as_a_customers(shop: ShopHarness, role: str) -> None:
    person, admin = shop.person(role), shop.person("admin")
    path = f"/admin/users/{person.user_id}"

    refused = admin.delete(path)
    headers = {"if-match": "*"}
    changed = admin.patch(path, {"role": "customer"}, headers=headers)

    assert (refused.status, refused.error) == (409, "OPERATOR_ACCOUNT")
    assert (changed.status, admin.delete(path).status) == (200, 204)


@pytest.mark.parametrize("user_id", ["0", "x", "999999", str(2**63)])
def test_closing_of_a_missing_account_is_404(shop: ShopHarness, user_id: str) -> None:
    assert shop.person("admin").delete(f"/admin/users/{user_id}").status == 404


def test_owner_and_administrator_close_at_the_same_time_once(shop: ShopHarness) -> None:
    person, admin = shop.person(), shop.person("admin")
    path = f"/admin/users/{person.user_id}"

    by_admin = [lambda: admin.delete(path)] * 2
    answers = run_concurrently(lambda: close(person), *by_admin)

    assert [answer.status for answer in answers] == [204] * 3
    assert [e["type"] for e in shop.outbox(undone=False)] == ["user.closed"]


def test_order_placed_at_the_same_time_is_finished_before_the_rest_is_erased(
    flow: FlowHarness,
) -> None:
    """The order's transaction began before the closing, whose lock it did not see."""
    shop, person, product = flow.shop, flow.shop.person(), flow.shop.product()
    order = person.order(product)
    shop.sql("update shop.orders set status = 'PAID' where order_id = %s", order["id"])
    assert close(person).status == 204
    shop.sql("update shop.orders set status = 'PENDING' where order_id = %s", order["id"])
    for statement in STRAGGLERS:
        shop.sql(statement, person.user_id)

    shop.tick("sweep")
    waiting = shop.sql("select 1 from shop.due_work where kind = 'erase'")
    flow.run_until_idle()
    shop.tick("sweep")

    assert waiting == []
    assert flow.outcome(order)[0] == "PAID"
    assert shop.sql("select 1 from shop.cart_items") == []
    (account,) = shop.sql(
        "select erased_at is not null as done from shop.users where state = 'CLOSED'"
    )
    assert account["done"]


def test_due_job_erases_what_was_committed_after_the_closing(shop: ShopHarness) -> None:
    person = shop.person()
    shop.product()
    assert close(person).status == 204
    assert shop.sql("select 1 from shop.due_work where kind = 'erase' and due_at < now()") == []
    for statement in STRAGGLERS:
        shop.sql(statement, person.user_id)
    shop.sql("update shop.users set name = 'Kim' where user_id = %s", person.user_id)

    assert shop.tick("sweep").status == 204

    left = "sessions", "cart_items", "idempotency"
    assert [shop.sql(f"select 1 from shop.{table}") for table in left] == [[], [], []]
    assert shop.sql("select name from shop.users where state = 'CLOSED'") == [{"name": ""}]
    assert shop.sql("select 1 from shop.due_work where kind = 'erase'") == []


def test_erasure_that_fails_is_continued_by_the_next_tick(shop: ShopHarness) -> None:
    person = shop.person()
    shop.product()
    assert close(person).status == 204
    for statement in STRAGGLERS:
        shop.sql(statement, person.user_id)

    with psycopg.connect(shop.admin_url) as blocking:
        blocking.execute("select from shop.cart_items for update")
        shop.tick("sweep")
        meanwhile = shop.sql("select kind from shop.due_work where kind = 'erase'")
    assert shop.sql("select 1 from shop.sessions") != [], "it is one transaction"
    shop.tick("sweep")

    assert meanwhile == [{"kind": "erase"}]
    assert shop.sql("select 1 from shop.cart_items") == []
    assert shop.sql("select 1 from shop.due_work where kind = 'erase'") == []


def test_open_account_is_never_erased(shop: ShopHarness) -> None:
    person = shop.person()

    with psycopg.connect(shop.role_url("relay")) as connection:
        connection.execute("select shop.erase_account(%s)", (person.user_id,))

    assert person.get("/users/me").json["name"] == "Test"


def test_export_has_every_declared_table_and_no_secret(flow: FlowHarness) -> None:
    life = lives(flow, invited)
    other = flow.shop.person()

    answer = life.person.post("/users/me/export")

    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    document = answer.json
    assert set(document) == {exported_name(table.name) for table, _ in tables_of_persons()}
    assert [name for name, found in document.items() if not found] == [
        "secondFactors",
        "couponUses",
        "orderAddresses",
        "priceSchedules",
        "returns",
        "shipments",
        "disputes",
        "priceChanges",
        "returnLines",
        "shipmentLines",
    ]
    (account,) = document["users"]
    assert (account["email"], account["name"]) == (life.email, f"김 {life.mark}")
    assert {row["status"] for row in document["orders"]} == {"PAID", "CANCELLED"}
    assert [row["amountMinor"] for row in document["refunds"]] == [300]
    assert {row["action"] for row in document["auditLog"]} == {
        "user.created", "user.changed", "user.link_made", "user.noted", "order.refunded",
        "order.noted", "order.cancelled",
    }  # fmt: skip
    text = answer.body.decode()
    for secret in (*life.secrets, "argon2", f'"userId" : {other.user_id}', "actorId"):
        assert secret not in text
    assert other.post("/users/me/export").json["orders"] == []
