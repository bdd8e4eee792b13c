"""Privacy: customers export what is held of them, and close their account."""

from __future__ import annotations

from tools.e2e.client import Call, new_key
from tools.e2e.context import PASSWORD, ScenarioContext, expect
from tools.e2e.scenario import Scenario


def export_has_the_account_and_its_orders(context: ScenarioContext) -> None:
    """The document has what the customer left, and no secret."""
    account = context.new_customer()
    product = context.create_product(stock=10)
    order = context.place_paid_order(account, (product["id"], 1))
    exported = context.send(Call("POST", "/users/me/export", repeats=True), account)
    context.check.status("the export answers 200", exported, 200)
    document = exported.json()
    context.check.equal("it has the address", document["users"][0]["email"], account.email)
    orders = [each["orderId"] for each in document["orders"]]
    context.check.equal("it has the order", orders, [order["id"]])
    payments = [each["status"] for each in document["payments"]]
    context.check.equal("it has the payment", payments, ["CAPTURED"])
    context.check.equal("it has no password hash", exported.text.count("argon2"), 0)
    anonymous = context.send(Call("POST", "/users/me/export", repeats=True))
    context.check.problem("without a token it answers 401", anonymous, 401)


def closed_account_is_gone_and_its_address_is_free(context: ScenarioContext) -> None:
    """Sessions end at once, repeating has the same answer, and the address registers again."""
    account = context.new_customer()
    token, old_id = account.token(), account.user_id
    wrong = {"password": "a wrong pass phrase"}
    rejected = context.send_once(Call("DELETE", "/users/me", json=wrong, token=token))
    context.check.problem("a wrong password answers 403", rejected, 403)
    close = Call("DELETE", "/users/me", json={"password": PASSWORD}, token=token, repeats=True)
    context.check.status("the password closes it: 204", context.send(close), 204)
    context.check.status("closing it again answers 204", context.send(close), 204)
    me = context.send(Call("GET", "/users/me", token=token))
    context.check.problem("its session answers 401", me, 401)
    credentials = {"email": account.email, "password": PASSWORD}
    login = context.send_once(Call("POST", "/auth/login", json=credentials))
    context.check.problem("it logs in no more: 401", login, 401)
    again = {**credentials, "name": "Again"}
    registered = context.send(Call("POST", "/users", json=again, key=new_key()))
    context.check.status("the address registers again", registered, 201)
    later = registered.json()["id"] > (old_id or 0)
    context.check.equal("as another account", "another" if later else "the same", "another")


def account_with_an_open_order_is_not_closed(context: ScenarioContext) -> None:
    """409 says what to do; after the cancellation the account is closed."""
    account = context.new_customer()
    product = context.create_product(stock=10)
    order = context.place_order(account, (product["id"], 1), method="CARD_DECLINED")
    context.wait_for_decline(account, order["id"])
    close = Call("DELETE", "/users/me", json={"password": PASSWORD}, repeats=True)
    refused = context.send(close, account)
    context.check.problem("an open order answers 409", refused, 409)
    context.check.equal("it says why", refused.json()["error"], "OPEN_ORDERS")
    expect(context.write("PATCH", f"/orders/{order['id']}/cancel", None, account), 200)
    context.check.status("after the cancellation: 204", context.send(close, account), 204)


def administrator_closes_an_account(context: ScenarioContext) -> None:
    """For a customer who asks for it; customers close no other account."""
    account = context.new_customer()
    path = f"/admin/users/{account.user_id}"
    forbidden = context.write("DELETE", path, None, context.customer(1))
    context.check.problem("a customer closes no other account: 403", forbidden, 403)
    closed = context.write("DELETE", path, None, context.admin())
    context.check.status("an administrator does: 204", closed, 204)
    again = context.write("DELETE", path, None, context.admin())
    context.check.status("again it answers 204", again, 204)
    me = context.send(Call("GET", "/users/me", token=account.token()))
    context.check.problem("its session answers 401", me, 401)


def operators_account_is_not_closed(context: ScenarioContext) -> None:
    """An administrator answers for the accounts of operators."""
    body = {"password": context.staff().credentials.password}
    close = Call("DELETE", "/users/me", json=body, repeats=True)
    refused = context.send(close, context.staff())
    context.check.problem("it answers 409", refused, 409)
    context.check.equal("it says why", refused.json()["error"], "OPERATOR_ACCOUNT")


SCENARIOS = (
    Scenario(export_has_the_account_and_its_orders, needs=("staff",)),
    Scenario(closed_account_is_gone_and_its_address_is_free),
    Scenario(account_with_an_open_order_is_not_closed, needs=("staff",)),
    Scenario(administrator_closes_an_account, needs=("admin",)),
    Scenario(operators_account_is_not_closed, needs=("staff",)),
)
