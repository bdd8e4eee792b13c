"""Accounts: passwords and sessions of customers, and what administrators do to accounts."""

from __future__ import annotations

import time
from base64 import b32decode

import httpx

from shop.second_factors import STEP_SECONDS, code_at
from tools.e2e.accounts import Account, Credentials, log_in
from tools.e2e.client import Call, new_key
from tools.e2e.context import PASSWORD, ScenarioContext, expect
from tools.e2e.scenario import Scenario

NEW_PASSWORD = f"{PASSWORD} replaced"


def changed_password_ends_the_other_sessions(context: ScenarioContext) -> None:
    """The old password and the other sessions end; the session of the request stays."""
    client, account = context.run.client, context.new_customer()
    here, there = (log_in(client, account.credentials)["accessToken"] for _ in range(2))
    body = {"currentPassword": "a wrong pass phrase", "newPassword": NEW_PASSWORD}
    wrong = context.send_once(Call("POST", "/users/me/password", json=body, token=here))
    context.check.problem("a wrong current password answers 403", wrong, 403)
    body["currentPassword"] = account.credentials.password
    changed = context.send_once(Call("POST", "/users/me/password", json=body, token=here))
    context.check.status("the right one answers 204", changed, 204)
    mine = context.send(Call("GET", "/users/me", token=here))
    context.check.status("the session of the request stays", mine, 200)
    other = context.send(Call("GET", "/users/me", token=there))
    context.check.problem("another session answers 401", other, 401)
    session = log_in(client, Credentials(account.email, NEW_PASSWORD))
    context.check.equal("the new password logs in", session["tokenType"], "Bearer")


def own_sessions_are_listed_and_ended(context: ScenarioContext) -> None:
    """A session that its owner ends is rejected at once; another's answers 404."""
    client, account = context.run.client, context.new_customer()
    here, there = (log_in(client, account.credentials)["accessToken"] for _ in range(2))
    listed = expect(context.send(Call("GET", "/users/me/sessions", token=here)), 200).json()
    current = [session["id"] for session in listed if session["current"]]
    context.check.equal("one of them is the present one", len(current), 1)
    foreign = context.write("DELETE", f"/users/me/sessions/{current[0]}", None, context.customer(1))
    context.check.problem("another account's session answers 404", foreign, 404)
    call = Call("DELETE", "/users/me/sessions", key=new_key(), token=here)
    context.check.status("ending all others answers 204", context.send(call), 204)
    other = context.send(Call("GET", "/users/me", token=there))
    context.check.problem("an ended session answers 401", other, 401)


def saved_address_is_named_by_an_order(context: ScenarioContext) -> None:
    """An order has a copy of the address that it names; another customer's order cannot name it."""
    account, other = context.new_customer(), context.customer(1)
    address = {
        "recipient": "김보람",
        "phone": "010-1234-5678",
        "postcode": "04524",
        "line1": "서울특별시 중구 세종대로 110",
    }
    path = "/users/me/addresses"
    added = context.post(path, {"address": address}, account)
    context.check.status("an address is saved: 201", added, 201)
    saved = f"{path}/{added.json()['id']}"
    context.check.problem("another customer gets 404", context.get(saved, other), 404)
    product = context.create_product(price=1_000, stock=5)
    order = {"productId": product["id"], "quantity": 1, "paymentMethod": "CARD"}
    named = order | {"addressId": added.json()["id"]}
    stolen = context.post("/orders", named, other)
    context.check.equal("and cannot order to it", stolen.json()["error"], "UNKNOWN_ADDRESS")
    placed = context.post("/orders", named, account)
    context.check.status("an order names it: 201", placed, 201)
    removed = context.write("DELETE", saved, None, account)
    context.check.status("it is removed: 204", removed, 204)
    seen = expect(context.get(f"/orders/{placed.json()['id']}", account), 200).json()
    context.check.equal(
        "the order keeps its copy", seen["shippingAddress"]["line1"], address["line1"]
    )


def password_is_reset_only_by_a_valid_link(context: ScenarioContext) -> None:
    """Known and unknown addresses get one answer; a token that was not sent sets no password."""
    account = context.new_customer()
    bodies: list[bytes] = []
    for email in (account.email, f"unknown-{account.email}"):
        call = Call("POST", "/auth/password-reset", json={"email": email})
        requested = context.send_once(call)
        context.check.status("requesting a link answers 202", requested, 202)
        bodies.append(requested.content)
    context.check.equal("both answers are equal", bodies[0], bodies[1])
    body = {"token": "A" * 64, "newPassword": NEW_PASSWORD}
    forged = context.send_once(Call("POST", "/auth/password-reset/confirm", json=body))
    context.check.problem("a forged token answers 403", forged, 403)
    session = log_in(context.run.client, account.credentials)
    context.check.equal("the password is the same", session["tokenType"], "Bearer")


def address_is_verified_and_changed_only_by_valid_links(context: ScenarioContext) -> None:
    """Links are sent on request; a taken address gets the same answer as a free one."""
    account = context.new_customer()
    token = account.token()
    me = expect(context.send(Call("GET", "/users/me", token=token)), 200).json()
    context.check.that("a new address is not verified", me["emailVerified"] is False)
    call = Call("POST", "/users/me/email-verification", token=token)
    context.check.status("requesting a link answers 202", context.send_once(call), 202)
    bodies: list[bytes] = []
    for email in (f"next-{account.email}", context.customer(1).email):
        body = {"email": email, "password": account.credentials.password}
        requested = context.send_once(Call("POST", "/users/me/email", json=body, token=token))
        context.check.status("requesting another address answers 202", requested, 202)
        bodies.append(requested.content)
    context.check.equal("free and taken addresses get one answer", bodies[0], bodies[1])
    body = {"email": f"next-{account.email}", "password": "a wrong pass phrase"}
    wrong = context.send_once(Call("POST", "/users/me/email", json=body, token=token))
    context.check.problem("a wrong password answers 403", wrong, 403)
    confirm = Call("POST", "/auth/email-verification/confirm", json={"token": "A" * 64})
    context.check.problem("a forged token answers 403", context.send_once(confirm), 403)
    after = expect(context.send(Call("GET", "/users/me", token=token)), 200).json()
    context.check.equal("the account is the same", after, me)


def own_profile_is_changed_with_its_etag(context: ScenarioContext) -> None:
    """Name and language change with the ETag that was read, and not with an old one."""
    account = context.new_customer()
    etag = expect(context.get("/users/me", account), 200).headers["ETag"]
    changed = context.write("PATCH", "/users/me", {"language": "en"}, account, if_match=etag)
    context.check.status("changing the language answers 200", changed, 200)
    context.check.equal("mails are in English", changed.json()["language"], "en")
    stale = context.write("PATCH", "/users/me", {"name": "Kim"}, account, if_match=etag)
    context.check.problem("an old ETag answers 412", stale, 412)


def administrator_disables_and_enables_an_account(context: ScenarioContext) -> None:
    """A disabled account loses its sessions and cannot log in until it is enabled."""
    admin, account = context.admin(), context.new_customer()
    token = account.token()
    path = f"/admin/users/{account.user_id}"
    found = context.get(f"/admin/users?email={account.email}", admin)
    context.check.equal("it is found by its address", found.json()[0]["id"], account.user_id)
    customer = context.get(path, context.customer(1))
    context.check.problem("a customer reads no account: 403", customer, 403)
    etag = expect(context.get(path, admin), 200).headers["ETag"]
    stale = context.write("PATCH", path, {"state": "DISABLED"}, admin, if_match='"stale"')
    context.check.problem("a stale If-Match answers 412", stale, 412)
    disabled = context.write("PATCH", path, {"state": "DISABLED"}, admin, if_match=etag)
    context.check.status("disabling answers 200", disabled, 200)
    ended = context.send(Call("GET", "/users/me", token=token))
    context.check.problem("its access token answers 401", ended, 401)
    enabled = context.write(
        "PATCH", path, {"state": "ACTIVE"}, admin, if_match=disabled.headers["ETag"]
    )
    context.check.status("enabling answers 200", enabled, 200)
    session = log_in(context.run.client, account.credentials)
    context.check.equal("it logs in again", session["tokenType"], "Bearer")
    entries = context.get(f"/admin/audit-log?objectKind=user&objectId={account.user_id}", admin)
    states = [entry["after"]["state"] for entry in entries.json()]
    context.check.equal("the audit log has both changes", states, ["ACTIVE", "DISABLED"])


def administrator_invites_an_account(context: ScenarioContext) -> None:
    """An invited account exists once, and cannot log in before it has a password."""
    admin, email = context.admin(), f"invited-{context.new_customer().email}"
    body = {"email": email, "name": "Invited", "role": "staff", "language": "en"}
    customer = context.write("POST", "/admin/users", body, context.customer(1))
    context.check.problem("a customer invites no account: 403", customer, 403)
    invited = context.write("POST", "/admin/users", body, admin)
    context.check.status("inviting answers 201", invited, 201)
    context.check.equal("its mails are in English", invited.json()["language"], "en")
    again = context.write("POST", "/admin/users", body, admin)
    context.check.problem("inviting the address again answers 409", again, 409)
    call = Call("POST", "/auth/login", json={"email": email, "password": NEW_PASSWORD})
    context.check.problem("it cannot log in", context.send_once(call), 401)


def machine_acts_with_an_api_key(context: ScenarioContext) -> None:
    """A key acts within its scope until it is ended; a customer makes none."""
    admin = context.admin()
    body = {"name": new_key(), "role": "support"}
    created = expect(context.write("POST", "/admin/service-accounts", body, admin), 201).json()
    path = f"/admin/users/{created['id']}/api-keys"
    scopes = {"scopes": ["admin:read"]}
    foreign = Call("POST", path, json=scopes, token=context.customer(1).token())
    context.check.problem("a customer makes no key: 403", context.send_once(foreign), 403)
    call = Call("POST", path, json=scopes, token=admin.token())
    key = expect(context.send_once(call), 201).json()
    found = context.send(Call("GET", "/admin/orders?limit=1", token=key["key"]))
    context.check.status("the key finds orders", found, 200)
    mine = context.send(Call("GET", "/orders/me", token=key["key"]))
    context.check.problem("without the scope it answers 403", mine, 403)
    ended = context.write("DELETE", f"{path}/{key['id']}", None, admin)
    context.check.status("ending it answers 204", ended, 204)
    after = context.send(Call("GET", "/admin/orders?limit=1", token=key["key"]))
    context.check.problem("an ended key answers 401", after, 401)


def operator_logs_in_with_a_second_factor(context: ScenarioContext) -> None:
    """Once its first code is confirmed, log-in needs a code, and takes each one once."""
    account = context.new_customer()
    give_role(context, account, "staff")
    body = {"email": account.email, "password": account.credentials.password}

    def send(path: str, code: str | None = None) -> httpx.Response:
        sent = body if code is None else {**body, "code": code}
        return context.send_once(Call("POST", path, json=sent))

    begun = expect(send("/auth/second-factor"), 201).json()
    code = present_code(begun["secret"])
    confirmed = send("/auth/second-factor/confirm", code)
    context.check.status("confirming its first code answers 200", confirmed, 200)
    context.check.problem("log-in without a code answers 401", send("/auth/login"), 401)
    context.check.problem("the code is accepted once", send("/auth/login", code), 401)
    recovery = confirmed.json()["recoveryCodes"]
    context.check.status("a recovery code logs in", send("/auth/login", recovery[0]), 200)
    context.check.problem("it does so once", send("/auth/login", recovery[0]), 401)
    renewed = send("/auth/second-factor/recovery-codes", recovery[1])
    context.check.status("making new recovery codes answers 200", renewed, 200)
    context.check.problem("those before end", send("/auth/login", recovery[2]), 401)
    fresh = renewed.json()["recoveryCodes"]
    removed = send("/auth/second-factor/remove", fresh[0])
    context.check.status("removing it answers 204", removed, 204)
    context.check.status("the password logs in alone", send("/auth/login"), 200)


def give_role(context: ScenarioContext, account: Account, role: str) -> None:
    """Makes a customer an operator, as an administrator."""
    admin, path = context.admin(), f"/admin/users/{account.user_id}"
    etag = expect(context.get(path, admin), 200).headers["ETag"]
    expect(context.write("PATCH", path, {"role": role}, admin, if_match=etag), 200)


def present_code(secret: str) -> str:
    """The code that an application with this secret shows now."""
    return code_at(int(time.time()) // STEP_SECONDS, b32decode(secret))


SCENARIOS = (
    Scenario(changed_password_ends_the_other_sessions),
    Scenario(own_sessions_are_listed_and_ended),
    Scenario(password_is_reset_only_by_a_valid_link),
    Scenario(address_is_verified_and_changed_only_by_valid_links),
    Scenario(saved_address_is_named_by_an_order, needs=("staff",)),
    Scenario(own_profile_is_changed_with_its_etag),
    Scenario(administrator_disables_and_enables_an_account, needs=("admin",)),
    Scenario(administrator_invites_an_account, needs=("admin",)),
    Scenario(machine_acts_with_an_api_key, needs=("admin",)),
    Scenario(operator_logs_in_with_a_second_factor, needs=("admin",)),
)
