"""Local secrets: generated once, readable by their owner only."""

from __future__ import annotations

import json
from pathlib import Path

from shop.primitives.spec import FunctionSpec
from tools.local_platform.secrets import local_secrets

LOGIN = FunctionSpec(name="login", summary="s", database_role="identity")
CHARGE = FunctionSpec(name="charge", summary="s", database_role="payment")


def test_secrets_are_generated_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    first = local_secrets(tmp_path / "secrets", (LOGIN,))
    second = local_secrets(tmp_path / "secrets", (LOGIN,))

    assert first == second
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "secrets").iterdir()} == {0o600}
    assert repr(first) == "Secrets(***)"


def test_event_key_may_sign_for_the_functions_of_its_role(tmp_path: Path) -> None:
    keys = json.loads(local_secrets(tmp_path, (LOGIN, CHARGE)).event_key_set)

    assert {kid: key["sources"] for kid, key in keys.items()} == {
        "identity": ["/shop/login"],
        "payment": ["/shop/charge"],
        "relay": ["/shop/login", "/shop/charge"],
        "clock": ["/shop/clock"],
    }
