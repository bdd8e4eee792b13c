"""Local keys: made once, private, and given only to those who need them."""

from __future__ import annotations

import json
from pathlib import Path

from shop.primitives.spec import FunctionSpec
from tests.tools.local_platform.bench import route
from tools.local_platform.function_environment import Endpoints, inherited
from tools.local_platform.secrets import local_secrets

LOGIN = FunctionSpec(
    name="login", summary="s", database_role="identity", needs=("postgres", "redis")
)
CHARGE = FunctionSpec(
    name="charge", summary="s", database_role="payment", needs=("postgres", "provider")
)
DOCS = FunctionSpec(
    name="api_docs", summary="s", database_role=None, routes=(route("GET", "/api-docs"),)
)


def endpoints(folder: Path, *, has_own_database: bool = True) -> Endpoints:
    return Endpoints(
        admin_url="postgresql://boss:secret@db.test:5433/shop?sslmode=disable",
        redis_url="redis://cache.test:6379/0",
        broker_url="http://broker.test/",
        provider_url="http://provider.test",
        secrets=local_secrets(folder / "secrets", (LOGIN, CHARGE, DOCS)),
        has_own_database=has_own_database,
    )


def test_secrets_are_kept_and_readable_by_us_alone(tmp_path: Path) -> None:
    first = local_secrets(tmp_path / "secrets", (LOGIN,))
    second = local_secrets(tmp_path / "secrets", (LOGIN,))

    assert first == second
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "secrets").iterdir()} == {0o600}
    assert repr(first) == "Secrets(***)"


def test_each_key_speaks_for_the_functions_of_its_role(tmp_path: Path) -> None:
    keys = json.loads(local_secrets(tmp_path, (LOGIN, CHARGE)).event_key_set)

    assert {kid: key["sources"] for kid, key in keys.items()} == {
        "identity": ["/shop/login"],
        "payment": ["/shop/charge"],
        "relay": ["/shop/*"],
        "clock": ["/shop/clock"],
    }


def test_a_function_gets_only_its_own_secrets(tmp_path: Path) -> None:
    world = endpoints(tmp_path)

    login, charge, docs = (world.environment_for(spec) for spec in (LOGIN, CHARGE, DOCS))

    assert [name for name in login if "PROVIDER" in name or "WEBHOOK" in name] == []
    assert "JWT_PRIVATE_KEY" in login
    assert login["REDIS_URL"] == "redis://cache.test:6379/0"
    assert "JWT_PRIVATE_KEY" not in charge
    assert "REDIS_URL" not in charge
    assert charge["PAYMENT_PROVIDER_URL"] == "http://provider.test"
    assert charge["EVENT_SIGNING_KEY"] != login["EVENT_SIGNING_KEY"]
    assert [name for name in docs if name in ("DATABASE_URL", "EVENT_SIGNING_KEY")] == []
    assert docs["SHOP_PROFILE"] == "local"


def test_each_role_has_its_own_login(tmp_path: Path) -> None:
    own = endpoints(tmp_path).database_url("payment")
    given = endpoints(tmp_path, has_own_database=False).database_url("payment")

    assert own == "postgresql://shop_payment@db.test:5433/shop?sslmode=disable"
    assert given.startswith("postgresql://shop_payment:")
    assert "secret" not in given
    assert given.endswith("@db.test:5433/shop?sslmode=disable")


def test_the_shell_passes_choices_and_no_secrets() -> None:
    shell = {"PATH": "/bin", "RATE_LIMIT_PER_MINUTE": "0", "AWS_SECRET": "x"}

    passed = inherited({**shell, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"})

    assert set(passed) == {"PATH", "RATE_LIMIT_PER_MINUTE", "PYTHONPATH", "PYTHONUNBUFFERED"}
