"""Looks for what no schema and no webhook catches: ``python -m tools.manifest_rules [PATH ...]``.

Without paths: ``infra/knative`` with one broker after the other, and ``stack.yml``.  ``-`` reads
what a renderer printed (``helm template … | python -m tools.manifest_rules -``).
Exits 1 on findings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.manifest_rules import cluster, eventing, openfaas, serving
from tools.manifest_rules.manifests import Rule, World, of_text, read

ROOT = Path(__file__).parent.parent.parent
RULES: tuple[Rule, ...] = (*serving.RULES, *eventing.RULES, *cluster.RULES, *openfaas.RULES)
BROKERS = ("imc", "kafka", "rabbitmq")


def findings(world: World) -> list[str]:
    """Every fault of every rule, in the rules' order."""
    return [f"{rule.__name__}: {fault}" for rule in RULES for fault in rule(world)]


def own_worlds() -> dict[str, World]:
    """What this repository deploys without Helm, by a name to show."""
    folder = ROOT / "infra" / "knative"
    components = folder / "components"
    parts = (folder / "base", components / "gateway")
    worlds = {f"infra/knative/{broker}": read((*parts, folder / broker)) for broker in BROKERS}
    everything = read((*parts, folder / "imc", components / "keda", components / "monitoring"))
    gone = read(components.rglob("patch-*.yaml"))
    return {
        **worlds,
        "infra/knative/imc with every component": everything.without(gone),
        "stack.yml": read((ROOT / "stack.yml",)),
    }


def main(arguments: list[str]) -> int:
    """1 when there are findings, which are printed."""
    if arguments == ["-"]:
        worlds = {"standard input": of_text(sys.stdin.read())}
    elif arguments:
        worlds = {" ".join(arguments): read(Path(argument) for argument in arguments)}
    else:
        worlds = own_worlds()
    found = [f"{name}: {fault}" for name, world in worlds.items() for fault in findings(world)]
    for line in found:
        print(line, file=sys.stderr)
    objects = sum(len(world.objects) for world in worlds.values())
    print(f"{len(RULES)} rules, {objects} objects, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
