"""The environment variables of function processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from shop.primitives.spec import FunctionSpec
from tests.tools.local_platform.platform_under_test import route
from tools.local_platform.function_environment import Endpoints, inherited
from tools.local_platform.secrets import local_secrets

LOGIN = FunctionSpec(
    name="login",
    summary="s",
    database_role="identity",
    needs=("postgres", "redis"),
    issues_tokens=True,
)
CHARGE = FunctionSpec(
    name="charge", summary="s", database_role="payment", needs=("postgres", "provider")
)
DOCS = FunctionSpec(
    name="api_docs", summary="s", database_role=None, routes=(route("GET", "/api-docs"),)
)


def endpoints(folder: Path, *, has_own_database: bool = True) -> Endpoints:
    return Endpoints(
        admin_url="postgresql://admin:secret@db.test:5433/shop?sslmode=disable",
        redis_url="redis://cache.test:6379/0",
        broker_url="http://broker.test/",
        provider_url="http://provider.test",
        secrets=local_secrets(folder / "secrets", (LOGIN, CHARGE, DOCS)),
        has_own_database=has_own_database,
    )


def test_function_gets_only_its_own_secrets(tmp_path: Path) -> None:
    shared = endpoints(tmp_path)

    login, charge, docs = (shared.environment_for(spec) for spec in (LOGIN, CHARGE, DOCS))

    assert [name for name in login if "PROVIDER" in name or "WEBHOOK" in name] == []
    assert "JWT_PRIVATE_KEY" in login
    assert login["REDIS_URL"] == "redis://cache.test:6379/0"
    assert "JWT_PRIVATE_KEY" not in charge
    assert "REDIS_URL" not in charge
    assert charge["PAYMENT_PROVIDER_URL"] == "http://provider.test"
    assert charge["EVENT_SIGNING_KEY"] != login["EVENT_SIGNING_KEY"]
    assert [name for name in docs if name in ("DATABASE_URL", "EVENT_SIGNING_KEY")] == []
    assert docs["SHOP_PROFILE"] == "local"


def test_local_platform_accepts_common_passwords_unless_the_shell_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = endpoints(tmp_path)
    default = shared.environment_for(LOGIN)["COMMON_PASSWORDS_ALLOWED"]
    monkeypatch.setenv("COMMON_PASSWORDS_ALLOWED", "false")

    assert default == "true"
    assert shared.environment_for(LOGIN)["COMMON_PASSWORDS_ALLOWED"] == "false"


def test_database_url_names_the_role_and_has_the_password_of_its_server(
    tmp_path: Path,
) -> None:
    own = endpoints(tmp_path).database_url("payment")
    external = endpoints(tmp_path, has_own_database=False).database_url("payment")

    assert own == "postgresql://shop_payment:secret@db.test:5433/shop?sslmode=disable"
    assert external.startswith("postgresql://shop_payment:")
    assert "secret" not in external
    assert external.endswith("@db.test:5433/shop?sslmode=disable")


def test_inherited_passes_optional_settings_and_no_secrets() -> None:
    shell = {"PATH": "/bin", "RATE_LIMIT_PER_MINUTE": "0", "AWS_SECRET": "x"}

    passed = inherited({**shell, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"})

    assert set(passed) == {"PATH", "RATE_LIMIT_PER_MINUTE", "PYTHONPATH", "PYTHONUNBUFFERED"}
