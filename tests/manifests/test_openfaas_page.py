"""docs/OPENFAAS.md: its commands run in their order, with recorders for programs of a cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shop.registry import all_specs
from tools.manifest_rules.__main__ import ROOT
from tools.render.openfaas import grouped, secret_names

PAGE = (ROOT / "docs/OPENFAAS.md").read_text("utf-8")
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
TICK = re.compile(
    r"^\| `(?P<schedule>[a-z-]+)` \| .* \| `/function/shop-(?P<group>[a-z-]+)/events` \|$"
)
# programs that need a cluster, a gateway or a network; the recorder writes one line for each call
RECORDED = ("curl", "docker", "faas-cli", "helm", "kubectl", "shop")
RECORDER = """#!/bin/sh
echo "${0##*/} $* [$IMAGE $PAYMENT_PROVIDER $TRUSTED_HOPS]" >> "$CALLS"
"""
# a tick needs a function that answers: tests/tools/test_tick.py
NOT_RUN = "tools.tick"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all commands of the page were run; ``calls`` has those of other programs."""
    folder = tmp_path_factory.mktemp("page")
    programs = folder / "programs"
    programs.mkdir()
    for name in RECORDED:
        (programs / name).write_text(RECORDER, "utf-8")
        (programs / name).chmod(0o755)
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', "utf-8")
    (programs / "python").chmod(0o755)
    for name in ("infra", "stack.yml"):
        (folder / name).symlink_to(ROOT / name)
    blocks = [block for block in CONSOLE.findall(PAGE) if NOT_RUN not in block]
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CALLS": str(folder / "calls"),
        "IMAGE": "",
        "PAYMENT_PROVIDER": "",
        "TRUSTED_HOPS": "",
    }
    done = subprocess.run(
        ["bash", "-c", "set -eu\n" + "".join(blocks) + "wait\n"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def calls(folder: Path, beginning: str) -> list[str]:
    """The calls of other programs that begin with this text, in their order."""
    lines = (folder / "calls").read_text("utf-8").splitlines()
    return [line for line in lines if line.startswith(beginning)]


def test_every_secret_of_the_stack_is_created_once(folder: Path) -> None:
    created = [line.split()[3] for line in calls(folder, "faas-cli secret create")]

    assert created == secret_names(all_specs())


def test_values_of_others_are_in_the_files_that_are_read(folder: Path) -> None:
    functions, migrate = folder / "secrets/functions", folder / "secrets/migrate"

    assert (migrate / "database-url").read_text() in PAGE
    assert (functions / "redis-url").read_text() in PAGE
    assert (functions / "jwt-issuer").read_text() == "https://shop.co.kr"
    ordering = (functions / "shop-ordering-database-url").read_text()
    assert ordering.startswith("postgresql://shop_ordering:")
    assert ordering.endswith("@db.co.kr:5432/shop?sslmode=verify-full&sslrootcert=system")


def test_functions_are_deployed_with_their_settings_after_secrets_and_migration(
    folder: Path,
) -> None:
    lines = calls(folder, "")
    deployed = lines.index(calls(folder, "faas-cli deploy")[0])
    migrated = lines.index(calls(folder, "kubectl --namespace openfaas-fn wait")[0])
    last_secret = lines.index(calls(folder, "faas-cli secret create")[-1])

    assert last_secret < migrated < deployed
    assert lines[deployed].startswith("faas-cli deploy -f stack.yml [ghcr.io/")
    assert lines[deployed].endswith(" stripe 1]")


def test_named_files_and_folders_exist(folder: Path) -> None:
    named = re.compile(r"(?:--from-file|--file|kustomize|deploy -f) ([\w./-]+)")
    paths = [path for line in calls(folder, "") for path in named.findall(line)]

    assert len(paths) > 30
    assert [path for path in paths if not (folder / path).exists()] == []


def test_tick_paths_are_those_of_the_groups() -> None:
    found = [TICK.match(line) for line in PAGE.splitlines()]
    documented = {match["schedule"]: match["group"] for match in found if match}

    assert documented == {
        schedule.name: group
        for group, members in grouped(all_specs()).items()
        for spec in members
        for schedule in spec.schedules
    }


def test_shared_processes_are_named_with_their_members() -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| functions | ")]
    named = [set(re.findall("`([a-z_]+)`", group)) for group in re.split(r", (?:and )?(?=`)", row)]
    shared = [members for members in grouped(all_specs()).values() if len(members) > 1]

    assert named == [{member.name for member in members} for members in shared]
