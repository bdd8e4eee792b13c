"""Failpoints: how they are set, counted and placed, and which ones each function has."""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.failpoint_pairs import FailpointPair, failpoint_pairs
from shop.primitives import failpoints
from shop.primitives.failpoints import CrashPlan, Failpoint
from shop.registry import all_specs, spec_of
from shop.runtime.bootstrap import make_app
from shop.runtime.config import ConfigurationError, load
from tools.local_platform.secrets import Secrets

ROOT = Path(__file__).resolve().parents[2]
LOCAL = {"SHOP_PROFILE": "local"}


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The processes that would be killed, in this order."""
    pids: list[int] = []

    def record(pid: int, _signal: int) -> None:
        pids.append(pid)

    monkeypatch.setattr(os, "kill", record)
    yield pids
    failpoints.arm("")


def test_setting_consists_of_function_failpoint_and_pass() -> None:
    assert failpoints.parse("place_order:W10:3") == CrashPlan(
        "place_order", Failpoint.HALF_RESPONSE_SENT, 3
    )


@pytest.mark.parametrize(
    "text",
    ["charge", "charge:W7", "charge:W11:1", "charge:W7:0", "charge:W7:-1", "charge:w7:1",
     "charge:W7:1:1", " charge:W7:1", ":W7:1", "Charge:W7:1", "charge:W7:x", "charge:W07:1",
     "charge:W7:1\n"],
)  # fmt: skip
def test_invalid_setting_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="SHOP_CRASH"):
        load(LOCAL | {"SHOP_CRASH": text})


def test_prod_profile_rejects_the_setting() -> None:
    assert load(LOCAL | {"SHOP_CRASH": "charge:W7:1"}).crash == "charge:W7:1"
    with pytest.raises(ConfigurationError, match="SHOP_CRASH must not be given in the prod"):
        load({"SHOP_PROFILE": "prod", "SHOP_CRASH": "charge:W7:1"})


@pytest.mark.parametrize("names", [("cart",), ("api_docs", "charge")])
def test_setting_for_another_function_is_a_configuration_error(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, secrets: Secrets
) -> None:
    for name, text in {**LOCAL, "SHOP_CRASH": "api_docs:W7:1"}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:9/shop")
    monkeypatch.setenv("JWT_JWKS", secrets.jwks)
    monkeypatch.setenv("EVENT_KEYS", secrets.event_key_set)
    monkeypatch.setenv("EVENT_SIGNING_KEY", secrets.event_keys["payment"])
    monkeypatch.setenv("PAYMENT_PROVIDER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PAYMENT_PROVIDER_API_KEY", "x")

    assert make_app((spec_of("api_docs"),))
    with pytest.raises(ConfigurationError, match="SHOP_CRASH does not name the one function"):
        make_app(tuple(spec_of(name) for name in names))


def test_without_the_setting_no_failpoint_kills(killed: list[int]) -> None:
    for failpoint in Failpoint:
        failpoints.hit(failpoint)
        assert not failpoints.is_armed(failpoint)

    assert killed == []


def test_the_planned_pass_kills_and_logs_one_line(
    killed: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    failpoints.arm("charge:W7:2")

    for failpoint in (
        Failpoint.BEFORE_PROVIDER_CALL,
        Failpoint.AFTER_PROVIDER_CALL,
        Failpoint.MESSAGE_READ,
    ):
        failpoints.hit(failpoint)
    assert killed == []
    failpoints.hit(Failpoint.BEFORE_PROVIDER_CALL)
    failpoints.hit(Failpoint.BEFORE_PROVIDER_CALL)

    assert killed == [os.getpid()]
    fields = f'"function":"charge","failpoint":"W7","nth":2,"pid":{os.getpid()}'
    assert capfd.readouterr().err == f'{{"event":"crash",{fields}}}\n'


def test_passes_of_all_threads_are_counted_together(killed: list[int]) -> None:
    failpoints.arm("charge:W7:4000")

    def pass_often() -> None:
        for _ in range(999):
            failpoints.hit(Failpoint.BEFORE_PROVIDER_CALL)

    threads = [threading.Thread(target=pass_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(3):
        failpoints.hit(Failpoint.BEFORE_PROVIDER_CALL)
    assert killed == []

    failpoints.hit(Failpoint.BEFORE_PROVIDER_CALL)

    assert killed == [os.getpid()]


def test_every_failpoint_is_placed_in_the_code() -> None:
    sources = [*(ROOT / "shop").rglob("*.py"), *(ROOT / "functions").rglob("*.py")]
    placed = {
        node.attr
        for source in sources
        if source != ROOT / "shop" / "primitives" / "failpoints.py"
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Failpoint"
    }

    assert placed == {failpoint.name for failpoint in Failpoint}


# ---------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("account", "0 1 2 3 4 5 6 10"),
        ("cancel_order", "0 1 2 3 4 5 6 10"),
        ("cart", "0 1 2 3 4 6 10"),
        ("charge", "0 1 2 3 4 5 6 7 8 9"),
        ("dead_letter", "0 2 3 4 6"),
        ("fulfil_orders", "0 1 2 3 4 5 6 10"),
        ("list_products", "0 1 2 3 4 6"),
        ("login", "0 2 3 4 5 6 10"),
        ("manage_accounts", "0 1 2 3 4 5 6 10"),
        ("manage_orders", "0 1 2 3 4 6 10"),
        ("manage_products", "0 1 2 3 4 5 6 10"),
        ("manage_webhooks", "0 1 2 3 4 6 10"),
        ("notify", "0 1 2 3 4 6 7 8 9"),
        ("payment_webhook", "0 1 2 3 4 5 6"),
        ("place_order", "0 1 2 3 4 5 6 10"),
        ("refund", "0 1 2 3 4 5 6 7 8 9"),
        ("register", "0 1 2 3 4 5 6 10"),
        ("settle", "0 2 3 4 5 6"),
        ("sweep", "0 2 3 4 5 6 7 8 9"),
        ("api_docs", ""),
        ("read_orders", ""),
        ("read_settlements", ""),
    ],
)
def test_failpoints_of_a_function(function: str, expected: str) -> None:
    pairs = failpoint_pairs((spec_of(function),))

    assert " ".join(pair.failpoint.removeprefix("W") for pair in pairs) == expected


def test_pairs_of_all_functions_are_those_of_each_without_duplicates() -> None:
    pairs = failpoint_pairs(all_specs())

    of_each = [pair for spec in all_specs() for pair in failpoint_pairs((spec,))]
    assert sorted(map(str, pairs)) == sorted(map(str, of_each))
    assert len(pairs) == len(set(pairs)) > 0


def test_setting_of_a_pair_can_be_parsed() -> None:
    pair = FailpointPair("charge", Failpoint.BEFORE_PROVIDER_CALL)

    assert failpoints.parse(pair.setting(3)) == CrashPlan("charge", pair.failpoint, 3)
    assert failpoints.parse(pair.setting()) == CrashPlan("charge", pair.failpoint, 1)


def test_routes_that_write_are_those_with_another_method_than_get() -> None:
    """W6 and W10 are skipped for reads, which are recognized by their method.

    The export reads, but what it returns must not be cached, so it has another method.
    """
    for spec in all_specs():
        for route in spec.routes:
            is_read = route.method == "GET" or route.path == "/users/me/export"
            assert route.writes != is_read, (spec.name, route.path)
