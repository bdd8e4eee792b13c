"""Accounts, sessions and tokens: what lets a caller in, and what no longer does."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx

from tools.e2e.accounts import Account, log_in
from tools.e2e.client import Call, new_key
from tools.e2e.harness import PASSWORD, Stage, expect, unique
from tools.e2e.scenario import Scenario


def register_an_account(stage: Stage) -> None:
    """One account per address, whatever the case it is written in; no role may be chosen."""
    email = f"E2E-{unique()}@Example.com"
    body = {"email": email, "password": PASSWORD, "name": "김하나"}
    made = stage.once(Call("POST", "/users", json=body, key=new_key()))
    stage.check.status("register answers 201", made, 201)
    stage.check.equal("register answers the name as given", made.json()["name"], "김하나")
    stage.check.that("register never shows a password", "assword" not in made.text, made.text)
    again = stage.once(Call("POST", "/users", json=body, key=new_key()))
    stage.check.problem("a taken address is refused with 409", again, 409)
    lower = {**body, "email": email.lower()}
    twin = stage.once(Call("POST", "/users", json=lower, key=new_key()))
    stage.check.problem("the same address in lower case is taken too", twin, 409)
    greedy = {**body, "email": f"e2e-{unique()}@example.com", "role": "staff"}
    refused = stage.post("/users", greedy)
    stage.check.problem("nobody registers with a role of their choice", refused, 422)


def know_oneself(stage: Stage) -> None:
    """``GET /users/me`` is the token's account and nobody else's."""
    account, other = stage.customer(1), stage.customer(2)
    me = stage.get("/users/me", account)
    stage.check.status("users/me answers 200", me, 200)
    shown = (me.json()["id"], me.json()["email"], me.json()["name"])
    wanted = (account.user_id, account.email, account.name)
    stage.check.equal("users/me shows id, e-mail and name", shown, wanted)
    headers = {"X-User-Id": str(other.user_id), "X-Role": "staff", "X-Forwarded-User": other.email}
    forged = stage.send(Call("GET", "/users/me", headers=headers), account)
    stage.check.equal(
        "X-User-Id beside a token changes nothing", forged.json()["id"], account.user_id
    )
    nobody = stage.send(Call("GET", "/users/me", headers=headers))
    stage.check.problem("X-User-Id without a token is refused with 401", nobody, 401)
    cart = stage.send(Call("GET", "/cart", headers=headers))
    stage.check.problem("X-User-Id opens no cart", cart, 401)
    body = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
    order = stage.send(Call("POST", "/orders", json=body, headers=headers, key=new_key()))
    stage.check.problem("X-User-Id places no order", order, 401)


def log_in_with_the_right_password_only(stage: Stage) -> None:
    """A wrong password and an unknown address cannot be told apart."""
    account = stage.customer(1)
    entered = log_in(stage.cast.client, account.credentials)
    stage.check.equal("log in answers a bearer token", entered["tokenType"], "Bearer")
    stage.check.that(
        "the token's life is told in seconds", 0 < entered["expiresIn"] <= 3600, entered
    )
    wrong = _log_in(stage, account.email, "not the password of anyone")
    stage.check.problem("a wrong password is refused with 401", wrong, 401)
    unknown = _log_in(stage, f"e2e-{unique()}@example.com", "not the password of anyone")
    stage.check.equal(
        "an unknown address gets the same status and bytes",
        (unknown.status_code, unknown.content),
        (wrong.status_code, wrong.content),
    )


def rotate_refresh_tokens(stage: Stage) -> None:
    """Each refresh token works once; using one twice ends the whole session."""
    first = log_in(stage.cast.client, stage.customer(1).credentials)
    answer = _refresh(stage, first["refreshToken"])
    stage.check.status("refresh answers 200", answer, 200)
    second = answer.json()
    stage.check.that(
        "refresh answers a new refresh token", second["refreshToken"] != first["refreshToken"]
    )
    stage.check.status(
        "the new access token opens users/me", _me(stage, second["accessToken"]), 200
    )
    reused = _refresh(stage, first["refreshToken"])
    stage.check.problem("a refresh token used twice is refused with 401", reused, 401)
    heir = _refresh(stage, second["refreshToken"])
    stage.check.problem("and its whole family is dead", heir, 401)
    stage.check.problem(
        "and the family's access token is refused", _me(stage, second["accessToken"]), 401
    )
    nonsense = _refresh(stage, "nonsense")
    stage.check.problem("a refresh token that never was is refused with 401", nonsense, 401)


def log_out(stage: Stage) -> None:
    """After logging out neither token opens anything, at once."""
    entered = log_in(stage.cast.client, stage.customer(1).credentials)
    token = entered["accessToken"]
    expect(_me(stage, token), 200)
    body = {"refreshToken": entered["refreshToken"]}
    left = stage.once(Call("POST", "/auth/logout", json=body, token=token))
    stage.check.status("log out answers 204", left, 204)
    stage.check.problem("the access token is refused at once", _me(stage, token), 401)
    dead = _refresh(stage, entered["refreshToken"])
    stage.check.problem("the refresh token is refused", dead, 401)
    other = stage.get("/users/me", stage.customer(1))
    stage.check.status("the account's other sessions live on", other, 200)


def refuse_tampered_tokens(stage: Stage) -> None:
    """Only a token as the shop signed it is a token."""
    account, other = stage.customer(1), stage.customer(2)
    for name, authorization in _tampered(account, other).items():
        call = Call("GET", "/users/me", headers={"Authorization": authorization})
        answer = stage.send(call)
        stage.check.problem(f"{name} is refused with 401", answer, 401)
    bare = stage.get("/users/me")
    stage.check.problem("no token is refused with 401", bare, 401)
    stage.check.that(
        "401 says how to authenticate",
        bare.headers.get("WWW-Authenticate", "").startswith("Bearer"),
        dict(bare.headers),
    )
    in_query = stage.get(f"/users/me?access_token={account.token()}")
    stage.check.that(
        "a token in the query opens nothing", in_query.status_code in (400, 401), in_query.text
    )


def publish_the_keys(stage: Stage) -> None:
    """Anyone can check a token with the published keys, and only with those."""
    answer = stage.get("/.well-known/jwks.json", stage.customer(1))
    stage.check.status("the key set answers 200", answer, 200)
    keys = answer.json()["keys"]
    kinds = {(key["kty"], key["crv"]) for key in keys}
    stage.check.equal("every key is an Ed25519 public key", kinds, {("OKP", "Ed25519")})
    stage.check.that("no key is a private one", all("d" not in key for key in keys), keys)
    header = _decoded(stage.customer(1).token().split(".")[0])
    stage.check.equal(
        "tokens are signed EdDSA, as access tokens",
        (header["alg"], header["typ"]),
        ("EdDSA", "at+jwt"),
    )
    stage.check.that(
        "a token names one of the keys", header["kid"] in [key["kid"] for key in keys], header
    )


def keep_roles_apart(stage: Stage) -> None:
    """A customer is refused what staff, support and finance may do: 403, not 401 or 404."""
    customer = stage.customer(1)
    product = {"name": "x", "category": "전자", "price": 1, "stockQuantity": 1}
    refused = stage.post("/products", product, customer)
    stage.check.problem("a customer makes no product: 403", refused, 403)
    refused = stage.post("/products/1/stock", {"quantity": 1}, customer)
    stage.check.problem("a customer adds no stock: 403", refused, 403)
    refused = stage.write("PATCH", "/products/1", {"price": 1}, customer, if_match='"1"')
    stage.check.problem("a customer changes no price: 403", refused, 403)
    refused = stage.post("/categories", {"name": "x"}, customer)
    stage.check.problem("a customer makes no category: 403", refused, 403)


def _log_in(stage: Stage, email: str, password: str) -> httpx.Response:
    body = {"email": email, "password": password}
    return stage.send(Call("POST", "/auth/login", json=body, repeats=True))


def _refresh(stage: Stage, token: str) -> httpx.Response:
    return stage.once(Call("POST", "/auth/refresh", json={"refreshToken": token}))


def _me(stage: Stage, token: str) -> httpx.Response:
    return stage.send(Call("GET", "/users/me", token=token))


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
        "a word as token": "Bearer nonsense",
        "another scheme": "Basic ZTJlOmUyZQ==",
    }


def _decoded(segment: str) -> dict[str, Any]:
    padded = segment + "=" * (-len(segment) % 4)
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(padded))
    return decoded


def _encoded(value: dict[str, Any]) -> str:
    text = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


SCENARIOS = (
    Scenario(register_an_account),
    Scenario(know_oneself),
    Scenario(log_in_with_the_right_password_only),
    Scenario(rotate_refresh_tokens),
    Scenario(log_out),
    Scenario(refuse_tampered_tokens),
    Scenario(publish_the_keys),
    Scenario(keep_roles_apart),
)
