"""The rendered Envoy configuration in front of OpenFaaS's gateway: what reaches the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from shop.api_keys import new_key
from shop.registry import all_specs
from tests.flows.envoy_process import Edge, echo, edge
from tools.local_platform.secrets import Secrets
from tools.render.envoy import openfaas_edge

PLACE = openfaas_edge(all_specs())
JWKS = "/function/shop-login/.well-known/jwks.json"


@pytest.fixture(scope="module")
def gateway(
    secrets: Secrets, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Edge, list[str]]]:
    """Envoy in front of a gateway that echoes requests, and the paths that reached it."""

    with echo({JWKS: secrets.jwks}) as (port, seen):
        addresses = {spec.name: port for spec in all_specs()}
        changes = {"path_of": PLACE.path_of, "is_first_hop": PLACE.is_first_hop}
        with edge(tmp_path_factory.mktemp("edge"), addresses, **changes) as front:
            yield front, seen


def arrived(front: Edge, path: str, **headers: str) -> dict[str, Any]:
    """Path and headers of a request at the gateway."""
    status, _, body = front.request("GET", path, headers=headers)
    assert status == 200, body
    document: dict[str, Any] = json.loads(body)
    return document


@pytest.mark.parametrize(
    ("path", "forwarded"),
    [
        ("/products?size=2", "/function/shop-list-products/products?size=2"),
        ("/api-docs", "/function/shop-pages/api-docs"),
        ("/settlements/daily", "/function/shop-settlements/settlements/daily"),
    ],
)
def test_path_is_forwarded_to_the_function_that_serves_it(
    gateway: tuple[Edge, list[str]], path: str, forwarded: str
) -> None:
    front, _ = gateway

    assert arrived(front, path)["path"] == forwarded


@pytest.mark.parametrize("claimed", ["203.0.113.9", "203.0.113.9, 198.51.100.7", "unknown"])
def test_address_that_a_client_claims_is_replaced(
    gateway: tuple[Edge, list[str]], claimed: str
) -> None:
    front, _ = gateway

    headers = arrived(front, "/api-docs", **{"x-forwarded-for": claimed})["headers"]

    assert headers["x-forwarded-for"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/events"),
        ("POST", "/function/shop-dead-letter/events"),
        ("POST", "/async-function/shop-charge/events"),
        ("GET", "/function/shop-list-products/products"),
        ("GET", "/system/functions"),
        ("POST", "/system/functions"),
        ("GET", "/ui/"),
    ],
)
def test_gateway_itself_and_events_are_not_reachable(
    gateway: tuple[Edge, list[str]], method: str, path: str
) -> None:
    front, seen = gateway
    before = len(seen)

    status, _, _ = front.request(method, path)

    assert (status, seen[before:]) == (404, [])


def test_only_api_keys_and_valid_tokens_reach_a_protected_route(
    gateway: tuple[Edge, list[str]],
) -> None:
    front, seen = gateway
    key = f"Bearer {new_key()}"

    assert arrived(front, "/cart", authorization=key)["headers"]["authorization"] == key
    before = len(seen)
    for credential in (f"{key}x", f"Basic {new_key()}", "Bearer a.b.c"):
        sent = {"authorization": credential}
        assert front.request("GET", "/cart", headers=sent)[0] == 401
    assert seen[before:] == []


def test_gateway_is_the_one_of_the_chart() -> None:
    addresses = {PLACE.address_of(spec) for spec in all_specs()}

    assert addresses == {("gateway.openfaas.svc.cluster.local", 8080)}
