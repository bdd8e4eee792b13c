"""Crash windows: how they are asked for, counted and placed, and which pairs of them exist."""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.failpoint_pairs import Pair, pairs
from shop.primitives import failpoints
from shop.primitives.failpoints import CrashPlan, Failpoint
from shop.registry import all_specs, spec_of
from shop.runtime.bootstrap import make_app
from shop.runtime.config import ConfigurationError, load

ROOT = Path(__file__).resolve().parents[2]
LOCAL = {"SHOP_PROFILE": "local"}


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Who was killed, in this order; nobody really is."""
    victims: list[int] = []
    monkeypatch.setattr(os, "kill", lambda process, _: victims.append(process))
    yield victims
    failpoints.arm("")


def test_a_plan_is_a_function_a_window_and_a_number() -> None:
    assert failpoints.parse("place_order:W10:3") == CrashPlan("place_order", Failpoint("W10"), 3)


@pytest.mark.parametrize(
    "text",
    ["charge", "charge:W7", "charge:W11:1", "charge:W7:0", "charge:W7:-1", "charge:w7:1",
     "charge:W7:1:1", " charge:W7:1", ":W7:1", "Charge:W7:1", "charge:W7:x", "charge:W07:1",
     "charge:W7:1\n"],
)  # fmt: skip
def test_what_is_no_plan_is_a_mistake_in_the_settings(text: str) -> None:
    with pytest.raises(ConfigurationError, match="SHOP_CRASH"):
        load(LOCAL | {"SHOP_CRASH": text})


def test_prod_refuses_to_die_on_purpose() -> None:
    assert load(LOCAL | {"SHOP_CRASH": "charge:W7:1"}).crash == "charge:W7:1"
    with pytest.raises(ConfigurationError, match="SHOP_CRASH must not be given in the prod"):
        load({"SHOP_PROFILE": "prod", "SHOP_CRASH": "charge:W7:1"})


@pytest.mark.parametrize("names", [("cart",), ("api_docs", "charge")])
def test_a_process_dies_only_for_the_one_function_it_serves(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {**LOCAL, "SHOP_CRASH": "api_docs:W7:1"}.items():
        monkeypatch.setenv(name, text)
    for name in ("DATABASE_URL", "JWT_JWKS", "EVENT_KEYS", "EVENT_SIGNING_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PAYMENT_PROVIDER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PAYMENT_PROVIDER_API_KEY", "x")

    assert make_app((spec_of("api_docs"),))
    with pytest.raises(ConfigurationError, match="SHOP_CRASH does not name the one function"):
        make_app(tuple(spec_of(name) for name in names))


def test_nobody_dies_unless_told(killed: list[int]) -> None:
    for window in Failpoint:
        failpoints.hit(window)
        assert not failpoints.is_armed(window)

    assert killed == []


def test_the_parent_goes_first_and_the_last_words_are_one_line(
    killed: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    failpoints.arm("charge:W7:2", parent=1234567)

    for failpoint in (Failpoint("W7"), Failpoint("W8"), Failpoint("W0")):
        failpoints.hit(failpoint)
    assert killed == []
    failpoints.hit(Failpoint.BEFORE_PROVIDER_CALL)
    failpoints.hit(Failpoint.BEFORE_PROVIDER_CALL)

    assert killed == [1234567, os.getpid()]
    said = f'{{"event":"crash","function":"charge","failpoint":"W7","nth":2,"pid":{os.getpid()}}}\n'
    assert capfd.readouterr().err == said


def test_passings_of_all_threads_are_counted_together(killed: list[int]) -> None:
    failpoints.arm("charge:W7:4000")
    threads = [
        threading.Thread(
            target=lambda: [failpoints.hit(Failpoint.BEFORE_PROVIDER_CALL) for _ in range(999)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(3):
        failpoints.hit(Failpoint.BEFORE_PROVIDER_CALL)
    assert killed == []

    failpoints.hit(Failpoint.BEFORE_PROVIDER_CALL)

    assert killed == [os.getpid()]


# ---------------------------------------------------------------- where they are


def test_every_failpoint_is_placed() -> None:
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


# ---------------------------------------------------------------- which pairs there are


def windows_of(function: str) -> str:
    found = pairs(all_specs())
    return " ".join(pair.window[1:] for pair in found if pair.function == function)


@pytest.mark.parametrize(
    ("function", "windows"),
    [
        ("cancel_order", "0 1 2 3 4 5 6 10"),
        ("cart", "0 1 2 3 4 6 10"),
        ("charge", "0 1 2 3 4 5 6 7 8 9"),
        ("dead_letter", "0 2 3 4 6"),
        ("list_products", "0 1 2 3 4 6"),
        ("login", "0 2 3 4 6 10"),
        ("manage_products", "0 1 2 3 4 5 6 10"),
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
def test_the_pairs_of_a_function(function: str, windows: str) -> None:
    assert windows_of(function) == windows


def test_a_pair_is_counted_once_and_can_be_asked_for() -> None:
    found = pairs(all_specs())

    assert len(found) == len(set(found)) == 98
    assert failpoints.parse(Pair("charge", "W7").setting(3)) == CrashPlan(
        "charge", Failpoint("W7"), 3
    )
    for pair in found:
        assert failpoints.parse(pair.setting()).failpoint == pair.window


def test_only_what_writes_is_asked_by_a_method_that_may() -> None:
    """W6 and W10 are told from reading by the method alone."""
    for spec in all_specs():
        for route in spec.routes:
            assert route.writes == (route.method != "GET"), (spec.name, route.path)
