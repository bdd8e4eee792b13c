"""A function's process imports only what its ``needs`` allow, and compiles no source.

Each function is built in a fresh interpreter as in its container, and its ``sys.modules`` are read.
An additional import would lengthen every cold start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs, spec_of
from tools.local_platform.function_environment import Endpoints
from tools.local_platform.secrets import Secrets

ROOT = Path(__file__).resolve().parents[2]
NAMES = [spec.name for spec in all_specs()]

# No first response needs these; each takes 30 to 300 ms.
NEVER = {
    "alembic",
    "anyio",
    "cloudevents",
    "flask",
    "functions_framework",
    "gunicorn",
    "httpx",
    "opentelemetry",
    "prometheus_client",
    "redis",
    "requests",
    "rich",
    "tools",
    "sqlalchemy",
    "starlette",
    "stripe",
    "swagger_ui_bundle",
    "typer",
    "uvicorn",
    "werkzeug",
    "yaml",
}

# What ``shop.runtime.server`` does in its worker, and the services that a first request opens.
PROGRAM = """
import json, sys
from shop.primitives.spec import WITHOUT_ACCOUNT
from shop.registry import spec_of
from shop.runtime import server
from shop.runtime.bootstrap import make_app
spec = spec_of(sys.argv[1])
app = make_app((spec,))
app.warm()
if spec.database_role:
    app.services.database
if any(route.auth not in WITHOUT_ACCOUNT for route in spec.routes):
    app.services.tokens
app.services.cache
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="session")
def environment_of(secrets: Secrets) -> Callable[[FunctionSpec], dict[str, str]]:
    """A function's settings; nothing is connected to."""
    endpoints = Endpoints(
        admin_url="postgresql://postgres@127.0.0.1:9/shop",
        redis_url="redis://127.0.0.1:9/0",
        broker_url="http://127.0.0.1:9",
        provider_url="http://127.0.0.1:9",
        secrets=secrets,
        has_own_database=True,
    )

    def of(spec: FunctionSpec) -> dict[str, str]:
        values = endpoints.environment_for(spec)
        return {n: t for n, t in values.items() if n != "PYTHONDONTWRITEBYTECODE"}

    return of


@pytest.fixture(scope="session")
def started(
    environment_of: Callable[[FunctionSpec], dict[str, str]],
) -> Callable[..., set[str]]:
    """The modules of a fresh process that is ready to answer."""

    @cache
    def start(name: str) -> set[str]:
        done = _run(PROGRAM, environment_of(spec_of(name)), name)
        return set(json.loads(done))

    return start


def _run(program: str, environment: dict[str, str], name: str) -> str:
    command = [sys.executable, "-c", program, name]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", NAMES)
def test_a_function_imports_no_library_that_a_first_response_does_not_need(
    name: str, started: Any
) -> None:
    modules = started(name)
    assert {module.partition(".")[0] for module in modules} & NEVER == set()
    assert "shop.schema" not in modules


@pytest.mark.parametrize("name", NAMES)
def test_only_functions_with_a_database_have_its_driver(name: str, started: Any) -> None:
    modules = started(name)
    has_driver = "psycopg" in modules
    assert has_driver == ("postgres" in spec_of(name).needs)
    assert has_driver == (spec_of(name).database_role is not None)


@pytest.mark.parametrize("name", NAMES)
def test_pydantic_is_imported_at_start_only_where_every_route_needs_it(
    name: str, started: Any
) -> None:
    modules = started(name)
    routes = spec_of(name).routes
    is_sure_to_need_it = bool(routes) and all(route.body or route.query for route in routes)
    assert ("pydantic" in modules) == is_sure_to_need_it


@pytest.mark.parametrize("name", NAMES)
def test_only_a_function_that_needs_the_provider_imports_its_adapter(
    name: str, started: Any
) -> None:
    modules = started(name)
    if "provider" not in spec_of(name).needs:
        assert modules.isdisjoint(
            {"shop.adapters.payment_provider.simulator", "shop.adapters.payment_provider.stripe"}
        )


@pytest.mark.parametrize("name", NAMES)
def test_only_a_function_that_emits_or_calls_the_provider_imports_an_http_client(
    name: str, started: Any
) -> None:
    spec = spec_of(name)
    modules = started(name)
    if not spec.emits and "provider" not in spec.needs:
        assert "http.client" not in modules


@pytest.mark.parametrize("name", NAMES)
def test_no_function_imports_jwt_or_argon2_at_start(name: str, started: Any) -> None:
    modules = started(name)
    assert "jwt" not in modules
    assert "argon2" not in modules


@pytest.mark.parametrize("name", NAMES)
def test_a_function_imports_no_other_function(name: str, started: Any) -> None:
    modules = started(name)
    others = {m.split(".")[1] for m in modules if m.startswith("functions.")} - {name}
    assert others == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_second_start_compiles_no_source(name: str, started: Any, environment_of: Any) -> None:
    """The image contains all bytecode, like this interpreter after a first start."""
    assert started(name)  # wrote the bytecode
    environment = environment_of(spec_of(name))
    said = _compiled(PROGRAM, {**environment, "PYTHONDONTWRITEBYTECODE": "1"}, name)
    assert said == []


def test_a_compiled_source_is_detected(environment_of: Any, tmp_path: Path) -> None:
    """The test above can fail: a module without bytecode is found."""
    (tmp_path / "fresh_module.py").write_text("value = 1\n")
    environment = environment_of(spec_of("api_docs")) | {"PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join((str(tmp_path), environment["PYTHONPATH"]))
    said = _compiled("import fresh_module", environment, "api_docs")
    assert any("fresh_module" in line for line in said)


def _compiled(program: str, environment: dict[str, str], name: str) -> list[str]:
    """Source files that a fresh interpreter compiled, by its own verbose words."""
    command = [sys.executable, "-v", "-c", program, name]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stderr.splitlines()
    loaded = [line for line in lines if line.startswith("# code object from ")]
    assert loaded
    return [line for line in loaded if not line.endswith(".pyc'")]
