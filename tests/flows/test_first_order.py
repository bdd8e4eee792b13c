"""A fresh shop in production reaches its first product and first order by the chart's README."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from shop.registry import all_specs
from tests.function_process import ROOT, ProcessHarness, running_function
from tests.manifests.test_deploy_pages import unknown_names

README = (ROOT / "helm/msa-shop/README.md").read_text("utf-8")
SECTION = re.compile(
    r"## The first product and the first order\n.*?```console\n(.*?)```", re.DOTALL
)
POD = "kubectl -n shop exec -i deploy/shop-tools -- "
FUNCTIONS = ("login", "manage_products", "place_order")
COMMANDS_MAX = 5
PRODUCTION = {
    "SHOP_PROFILE": "prod",
    "BROKER_URL": "http://127.0.0.1:9/",  # nothing listens there: events stay in the outbox
    "JWT_ISSUER": "https://shop.msashop.kr",
    "COMMON_PASSWORDS_ALLOWED": "false",
    "SETTLEMENTS_AUTH": "finance",
    "RATE_LIMIT_PER_MINUTE": "120",
}
# without the seed's rows, whose triggers forbid to remove them
EMPTY = """
do $$ begin
  set local session_replication_role = replica;
  truncate shop.users, shop.products, shop.categories restart identity cascade;
end $$
"""


def commands() -> list[str]:
    found = SECTION.search(README)
    assert found is not None
    return found[1].splitlines()


def at_functions(line: str, ports: dict[str, int]) -> str:
    """The command with the address of the function that serves a path, as the edge would route."""
    for spec in all_specs():
        for route in spec.routes:
            if spec.name in ports and route.method == "POST":
                address = f'"http://127.0.0.1:{ports[spec.name]}{route.path}"'
                line = line.replace(f'"$SHOP{route.path}"', address)
    return line


def test_pod_of_the_commands_is_deployed() -> None:
    found = [part for line in commands() for part in line.split(" && ") if "kubectl" in part]

    assert {command: m for command in found if (m := unknown_names(command.split()))} == {}


def test_empty_production_database_reaches_its_first_order_in_five_commands(
    processes: ProcessHarness,
) -> None:
    harness, lines = processes, commands()
    harness.sql(EMPTY)
    with ExitStack() as stack:
        ports = {
            name: stack.enter_context(
                running_function("container", name, harness.environment(name, **PRODUCTION))
            ).port
            for name in FUNCTIONS
        }
        script = [at_functions(line, ports) for line in lines if " scale " not in line]
        text = "\n".join(("set -euo pipefail", *script)).replace(POD, "")

        result = run(text, harness)

    assert len(lines) <= COMMANDS_MAX and "$SHOP" not in text
    assert result.returncode == 0, result.stderr
    # curl puts nothing between the bodies of two responses
    order = json.loads(re.split(r"(?<=\})(?=\{)", result.stdout.splitlines()[-1])[-1])
    assert (order["status"], order["items"][0]["productId"]) == ("PENDING", 1)
    entries = harness.sql("select action from shop.audit_log where object_kind <> 'audit_log'")
    assert [action for (action,) in entries][-3:] == [
        "user.created",
        "category.added",
        "product.added",
    ]


def run(script: str, harness: ProcessHarness) -> subprocess.CompletedProcess[str]:
    folder = Path(sys.executable).parent
    environment = {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "HOME": os.environ.get("HOME", "/"),
        "EMAIL": "owner@msashop.kr",
        "PASSWORD": "a long enough pass phrase",
        "ACCOUNTS_DATABASE_URL": harness.endpoints.database_url("accounts"),
    }
    return subprocess.run(
        ["/bin/bash", "-c", script],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
