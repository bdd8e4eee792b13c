"""Every console line of the pages about deploying is run, compared with its program, or listed.

Dumps and restores run on a database, with ``kubectl exec`` and ``docker compose exec`` replaced by
what they execute.  ``kubectl`` itself says whether it has a line's command and options; for helm,
kn and faas-cli ``make deploy-check`` asks the real programs.  A line that nothing covers is in
``NOT_RUN`` with its reason.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.harness import ShopHarness
from tests.manifests.check_with_clients import PACKAGES
from tests.manifests.documented_commands import (
    KUBECTL,
    PAGES,
    ROOT,
    lines_of,
    rejection_of,
    words_of,
)
from tests.manifests.test_deploy_pages import unknown_names
from tools.local_platform.servers import postgres_program

# a beginning of a line, and the test that runs it or compares it with what exists
COVERED = {
    r".* (--|-T postgres) (pg_|psql)": "test_dump_and_restore_of_a_page_keep_every_row",
    r"kubectl (?!kustomize )": "test_kubectl_accepts_the_line",
    r"kubectl kustomize infra/shop ": "tests/manifests/test_deploy_pages.py",
    r"kubectl kustomize infra/openfaas": "tests/manifests/test_openfaas_page.py",
    r"(helm|kn|faas-cli) ": "tests/manifests/check_with_clients.py (make deploy-check)",
    r"git .* && make image && docker compose up": "test_upgrade_of_compose_builds_then_replaces",
    r"docker compose ": "test_services_of_compose_lines_exist",
    r"scripts/kind-up": "tests/manifests/test_infra.py",
    r"scripts/helm-upgrade ": "tests/manifests/test_deploy_pages.py, test_infra.py",
    r"(\w+=\S+ )*(\.venv/bin/)?python -m tools\.make_secrets ": "test_deploy_pages.py",
    r"(\$ )?shop ": "tests/contract/test_documents.py",
    r"make ": "tests/contract/test_documents.py",
    r"SHOP_SECRETS_DIR=\S+ python -m tools\.tick ": "tests/tools/test_tick.py",
    r'curl -fsS "\$SHOP/(categories|orders)" ': "tests/flows/test_first_order.py",
    r"export |for file in |for name in |done$|curl --fail ": "test_openfaas_page.py",
}
# exact beginnings, each with the reason why nothing runs the line
NOT_RUN = {
    "argocd app": "needs Argo CD in a cluster",
    "SHOP=https://": "the first order needs a shop at a public address; README's is the same",
    'curl -s "$SHOP': "the first order needs a shop at a public address",
    "TOKEN=$(curl": "the first order needs a shop at a public address",
    "ORDER=$(curl": "the first order needs a shop at a public address",
    "infra/compose/local/build.sh": "needs Docker",
    # the fault run F-28 backs up and restores to a moment with the same settings
    **dict.fromkeys(
        (
            *("pg_basebackup ", 'cat >> "$PGDATA', "restore_command = ", "recovery_target_"),
            *("END", 'touch "$PGDATA'),
        ),
        "chaos/restore_test.py",
    ),
}


def covered_by(line: str) -> str | None:
    """The test of a line, or the reason why there is none; None when it is in no table."""
    reasons = [reason for beginning, reason in NOT_RUN.items() if line.startswith(beginning)]
    tests = [test for pattern, test in COVERED.items() if re.match(pattern, line)]
    return next(iter(reasons + tests), None)


@pytest.mark.parametrize("page", PAGES)
def test_every_line_of_a_page_has_a_test_or_a_reason(page: str) -> None:
    assert [line for line in lines_of(page) if covered_by(line) is None] == []


def test_every_reason_and_pattern_is_of_a_line_of_today() -> None:
    lines = [line for page in PAGES for line in lines_of(page)]

    assert [b for b in NOT_RUN if not any(line.startswith(b) for line in lines)] == []
    assert [p for p in COVERED if not any(re.match(p, line) for line in lines)] == []


@pytest.mark.parametrize("page", PAGES)
def test_kubectl_accepts_the_line(page: str) -> None:
    found = [words for line in lines_of(page) for words in words_of(line, "kubectl")]
    named = found if "OPENFAAS" not in page else []

    assert {" ".join(words): no for words in found if (no := rejection_of(KUBECTL, words))} == {}
    assert {" ".join(words): no for words in named if (no := unknown_names(words))} == {}


@pytest.mark.parametrize("line", ["kubectl get pods --no-such", "kubectl aply -f x"])
def test_unknown_option_and_command_of_kubectl_are_found(line: str) -> None:
    assert rejection_of(KUBECTL, line.split())


# the words that begin a program of PostgreSQL in a line
POSTGRES = re.compile(r" (?:pg_\w+|psql) ")


def dumps() -> list[tuple[str, ...]]:
    """The line that dumps and the lines that restore, of each page that has them."""
    pages = [[line for line in lines_of(page) if POSTGRES.search(line)] for page in PAGES]
    return [tuple(found) for found in pages if any("pg_restore" in line for line in found)]


class Containers:
    """Runs lines of a page with PostgreSQL's programs, and a test's database instead of "shop"."""

    def __init__(self, folder: Path, shop: ShopHarness) -> None:
        self._folder = folder
        for name in ("pg_dump", "pg_restore", "psql"):
            script = 'words=(); for word; do words+=("${word/#shop/$PGDATABASE}"); done\n'
            _program(folder, name, f'{script}exec {postgres_program(name)} "${{words[@]}}"')
        _program(folder, "kubectl", 'while [ "$1" != "--" ]; do shift; done; shift; exec "$@"')
        _program(folder, "docker", 'shift 4; exec "$@"')
        address = urlsplit(shop.admin_url)
        self._environment = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PGHOST": address.hostname or "",
            "PGPORT": str(address.port),
            "PGDATABASE": address.path.strip("/"),
            "PGPASSWORD": unquote(address.password or ""),
        }

    def execute(self, line: str) -> str:
        """The output of a line, which must succeed without a warning."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def content(self) -> list[str]:
        """Every object, right and row.

        Without the lines that restrict psql, which have a new key each time, and without
        parentheses: PostgreSQL shows those of an expression that was restored in other places.
        """
        lines = self.execute("pg_dump -U postgres shop").splitlines()
        kept = [line for line in lines if not line.startswith(("\\restrict", "\\unr"))]
        return [line.replace("(", "").replace(")", "") for line in kept]


@pytest.mark.parametrize("lines", dumps(), ids=lambda lines: lines[0][:14])
def test_dump_and_restore_of_a_page_keep_every_row(
    shop: ShopHarness, tmp_path: Path, lines: tuple[str, ...]
) -> None:
    shop.person().order(shop.product())
    containers = Containers(tmp_path, shop)
    dump, *restore = lines
    before = containers.content()

    containers.execute(dump)
    shop.sql("drop table shop.order_lines cascade")
    shop.sql("delete from shop.reservations")
    # what a later version would have created
    shop.sql("create table shop.later ()")
    for line in restore:
        containers.execute(line)

    assert len(restore) == 2
    assert containers.content() == before
    # functions that stayed connected
    assert shop.person().order(shop.product())["status"]


def _program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{script}\n", "utf-8")
    (folder / name).chmod(0o755)


def test_upgrade_of_compose_builds_then_replaces(tmp_path: Path) -> None:
    lines = [line for line in lines_of("docs/how-to/run-with-compose.md") if " && " in line]
    for name in ("git", "make", "docker"):
        _program(tmp_path, name, 'echo "${0##*/} $*" >> calls')

    for line in lines:
        subprocess.run(
            ["bash", "-ec", line], cwd=tmp_path, env={"PATH": f"{tmp_path}:/bin"}, check=True
        )

    then = ["make image", "docker compose up --wait"]
    calls = (tmp_path / "calls").read_text("utf-8").splitlines()
    assert calls == ["git pull", *then, "git checkout TAG", *then]


def test_services_of_compose_lines_exist() -> None:
    files = [ROOT / "compose.yaml", ROOT / "infra/compose/functions.yaml"]
    services = {name for f in files for name in yaml.safe_load(f.read_text("utf-8"))["services"]}
    named: set[str] = set()
    for line in lines_of("docs/how-to/run-with-compose.md"):
        for words in words_of(line, "docker"):
            rest = [word for word in words[3:] if not word.startswith("-")]
            if words[2] in ("exec", "logs", "run") and rest:
                named.add(rest[0])
            elif words[2] == "cp":
                named.add(rest[0].partition(":")[0])

    assert {"edge", "grafana", "postgres", "tools"} <= named
    assert named <= services


def test_words_of_a_line_are_those_of_each_program_in_it() -> None:
    line = "python -m x --key 'a b' | kubectl apply -f -   # comment"

    assert words_of(line, "kubectl") == [["kubectl", "apply", "-f", "-"]]
    assert words_of(line, "helm") == []
    assert shlex.join(words_of("A=1 kn list -n shop", "kn")[0]) == "kn list -n shop"


def test_lines_of_every_client_can_be_read() -> None:
    lines = [line for page in PAGES for line in lines_of(page)]
    found = {client: [w for line in lines for w in words_of(line, client)] for client in PACKAGES}

    assert {client for client, commands in found.items() if commands} == {"faas-cli", "helm", "kn"}
