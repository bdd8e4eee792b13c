"""Accounts, sessions and access tokens."""

from __future__ import annotations

import base64
import json

import httpx

from tools.e2e.accounts import Account, log_in
from tools.e2e.client import Call, JsonObject, new_key
from tools.e2e.context import PASSWORD, ScenarioContext, expect, unique
from tools.e2e.scenario import Scenario


def registration_creates_one_customer_per_address(context: ScenarioContext) -> None:
    """One account per address, case-insensitively, always with the role customer."""
    email = f"E2E-{unique()}@Example.com"
    body = {"email": email, "password": PASSWORD, "name": "김하나"}
    made = context.send_once(Call("POST", "/users", json=body, key=new_key()))
    context.check.status("registration answers 201", made, 201)
    context.check.equal("registration returns the name as given", made.json()["name"], "김하나")
    context.check.that("registration returns no password", "assword" not in made.text, made.text)
    again = context.send_once(Call("POST", "/users", json=body, key=new_key()))
    context.check.problem("a registered address answers 409", again, 409)
    lower = {**body, "email": email.lower()}
    same = context.send_once(Call("POST", "/users", json=lower, key=new_key()))
    context.check.problem("the same address in lower case answers 409", same, 409)
    with_role = {**body, "email": f"e2e-{unique()}@example.com", "role": "staff"}
    rejected = context.post("/users", with_role)
    context.check.problem("registration with a role answers 422", rejected, 422)


def own_account_is_read_by_token_only(context: ScenarioContext) -> None:
    """``GET /users/me`` returns the account of the token; headers that name another are ignored."""
    account, other = context.customer(1), context.customer(2)
    me = context.get("/users/me", account)
    context.check.status("users/me answers 200", me, 200)
    shown = (me.json()["id"], me.json()["email"], me.json()["name"])
    expected = (account.user_id, account.email, account.name)
    context.check.equal("users/me returns id, e-mail and name", shown, expected)
    headers = {"X-User-Id": str(other.user_id), "X-Role": "staff", "X-Forwarded-User": other.email}
    forged = context.send(Call("GET", "/users/me", headers=headers), account)
    context.check.equal(
        "X-User-Id sent with a token is ignored", forged.json()["id"], account.user_id
    )
    anonymous = context.send(Call("GET", "/users/me", headers=headers))
    context.check.problem("X-User-Id without a token answers 401", anonymous, 401)
    cart = context.send(Call("GET", "/cart", headers=headers))
    context.check.problem("X-User-Id without a token reads no cart", cart, 401)
    body = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
    order = context.send(Call("POST", "/orders", json=body, headers=headers, key=new_key()))
    context.check.problem("X-User-Id without a token places no order", order, 401)


def login_requires_the_right_password(context: ScenarioContext) -> None:
    """A wrong password and an unknown address get identical responses."""
    account = context.customer(1)
    session = log_in(context.run.client, account.credentials)
    context.check.equal("login returns a bearer token", session["tokenType"], "Bearer")
    context.check.that(
        "login returns the token's lifetime in seconds", 0 < session["expiresIn"] <= 3600, session
    )
    wrong = _log_in(context, account.email, "wrong password")
    context.check.problem("a wrong password answers 401", wrong, 401)
    unknown = _log_in(context, f"e2e-{unique()}@example.com", "wrong password")
    context.check.equal(
        "an unknown address gets the same status and body",
        (unknown.status_code, unknown.content),
        (wrong.status_code, wrong.content),
    )


def refresh_token_works_once(context: ScenarioContext) -> None:
    """A refresh token has one successor; its use after that of the successor ends the session."""
    first = log_in(context.run.client, context.customer(1).credentials)
    response = _refresh(context, first["refreshToken"])
    context.check.status("refresh answers 200", response, 200)
    second = response.json()
    context.check.that(
        "refresh returns a new refresh token", second["refreshToken"] != first["refreshToken"]
    )
    context.check.status(
        "the new access token is accepted", _me(context, second["accessToken"]), 200
    )
    repeated = _refresh(context, first["refreshToken"])
    context.check.status("a repetition at once answers 200", repeated, 200)
    context.check.equal(
        "a repetition at once returns the same refresh token",
        repeated.json()["refreshToken"],
        second["refreshToken"],
    )
    newest = _refresh(context, second["refreshToken"])
    context.check.status("the new refresh token is accepted", newest, 200)
    reused = _refresh(context, first["refreshToken"])
    context.check.problem("a reused refresh token answers 401", reused, 401)
    newer = _refresh(context, newest.json()["refreshToken"])
    context.check.problem("after reuse the newest refresh token answers 401", newer, 401)
    context.check.problem(
        "after reuse the access token answers 401", _me(context, second["accessToken"]), 401
    )
    unknown = _refresh(context, "nonsense")
    context.check.problem("an unknown refresh token answers 401", unknown, 401)


def logout_revokes_both_tokens(context: ScenarioContext) -> None:
    """Logout revokes the access token and the refresh token immediately."""
    session = log_in(context.run.client, context.customer(1).credentials)
    token = session["accessToken"]
    expect(_me(context, token), 200)
    body = {"refreshToken": session["refreshToken"]}
    logged_out = context.send_once(Call("POST", "/auth/logout", json=body, token=token))
    context.check.status("logout answers 204", logged_out, 204)
    context.check.problem("the access token answers 401 immediately", _me(context, token), 401)
    revoked = _refresh(context, session["refreshToken"])
    context.check.problem("the refresh token answers 401", revoked, 401)
    other = context.get("/users/me", context.customer(1))
    context.check.status("the account's other sessions stay valid", other, 200)


def tampered_tokens_answer_401(context: ScenarioContext) -> None:
    """A token that the shop did not sign in exactly this form answers 401."""
    account, other = context.customer(1), context.customer(2)
    for name, authorization in _tampered(account, other).items():
        call = Call("GET", "/users/me", headers={"Authorization": authorization})
        response = context.send(call)
        context.check.problem(f"{name} answers 401", response, 401)
    without_token = context.get("/users/me")
    context.check.problem("no token answers 401", without_token, 401)
    context.check.that(
        "401 has WWW-Authenticate: Bearer",
        without_token.headers.get("WWW-Authenticate", "").startswith("Bearer"),
        dict(without_token.headers),
    )
    in_query = context.get(f"/users/me?access_token={account.token()}")
    context.check.that(
        "a token in the query is rejected", in_query.status_code in (400, 401), in_query.text
    )


def published_keys_verify_tokens(context: ScenarioContext) -> None:
    """The key set contains the public keys that verify access tokens, and no private key."""
    response = context.get("/.well-known/jwks.json", context.customer(1))
    context.check.status("the key set answers 200", response, 200)
    keys = response.json()["keys"]
    types = {(key["kty"], key["crv"]) for key in keys}
    context.check.equal("every key is an Ed25519 public key", types, {("OKP", "Ed25519")})
    context.check.that("no key is private", all("d" not in key for key in keys), keys)
    header = _decoded(context.customer(1).token().split(".")[0])
    context.check.equal(
        "tokens have the type at+jwt and are signed with EdDSA",
        (header["alg"], header["typ"]),
        ("EdDSA", "at+jwt"),
    )
    context.check.that(
        "a token has the id of a published key",
        header["kid"] in [key["kid"] for key in keys],
        header,
    )


def customer_using_staff_routes_gets_403(context: ScenarioContext) -> None:
    """Staff routes answer 403 to a customer, not 401 or 404."""
    customer = context.customer(1)
    product = {"name": "x", "category": "전자", "price": 1, "stockQuantity": 1}
    response = context.post("/products", product, customer)
    context.check.problem("a customer creates a product: 403", response, 403)
    response = context.post("/products/1/stock", {"quantity": 1}, customer)
    context.check.problem("a customer adds stock: 403", response, 403)
    response = context.write("PATCH", "/products/1", {"price": 1}, customer, if_match='"1"')
    context.check.problem("a customer changes a price: 403", response, 403)
    response = context.post("/categories", {"name": "x"}, customer)
    context.check.problem("a customer creates a category: 403", response, 403)


def _log_in(context: ScenarioContext, email: str, password: str) -> httpx.Response:
    body = {"email": email, "password": password}
    return context.send(Call("POST", "/auth/login", json=body, repeats=True))


def _refresh(context: ScenarioContext, token: str) -> httpx.Response:
    return context.send_once(Call("POST", "/auth/refresh", json={"refreshToken": token}))


def _me(context: ScenarioContext, token: str) -> httpx.Response:
    return context.send(Call("GET", "/users/me", token=token))


def _tampered(account: Account, other: Account) -> dict[str, str]:
    head, body, signature = account.token().split(".")
    claims = _decoded(body)
    foreign = _encoded({**claims, "sub": str(other.user_id)})
    unsigned = _encoded({"alg": "none", "typ": "at+jwt"})
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    return {
        "a token with another signature": f"Bearer {head}.{body}.{flipped}",
        "a token without its signature": f"Bearer {head}.{body}.",
        "a token of algorithm none": f"Bearer {unsigned}.{body}.",
        "a token with another subject": f"Bearer {head}.{foreign}.{signature}",
        "a token with another's signature": f"Bearer {head}.{body}.{other.token().split('.')[2]}",
        "a token that is not a JWT": "Bearer nonsense",
        "another authentication scheme": "Basic ZTJlOmUyZQ==",
    }


def _decoded(segment: str) -> JsonObject:
    padded = segment + "=" * (-len(segment) % 4)
    decoded: JsonObject = json.loads(base64.urlsafe_b64decode(padded))
    return decoded


def _encoded(value: JsonObject) -> str:
    text = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


SCENARIOS = (
    Scenario(registration_creates_one_customer_per_address),
    Scenario(own_account_is_read_by_token_only),
    Scenario(login_requires_the_right_password),
    Scenario(refresh_token_works_once),
    Scenario(logout_revokes_both_tokens),
    Scenario(tampered_tokens_answer_401),
    Scenario(published_keys_verify_tokens),
    Scenario(customer_using_staff_routes_gets_403),
)
