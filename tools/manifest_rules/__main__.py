"""Checks manifests for errors that no schema or webhook detects.

    python -m tools.manifest_rules [PATH ...]

Without paths it checks ``infra/knative`` with each broker, and ``stack.yml``.  ``-`` reads standard
input (``helm template … | python -m tools.manifest_rules -``).  Exits 1 on findings.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from tools.manifest_rules import cluster, eventing, openfaas, serving
from tools.manifest_rules.manifests import ManifestSet, Rule, parse, read
from tools.render import gateway

ROOT = Path(__file__).parent.parent.parent
RULES: tuple[Rule, ...] = (*serving.RULES, *eventing.RULES, *cluster.RULES, *openfaas.RULES)
BROKERS = ("imc", "kafka", "rabbitmq")
OWN_HOST = "shop.co.kr"


def findings(manifests: ManifestSet) -> list[str]:
    """The findings of every rule, in the order of ``RULES``."""
    return [f"{rule.__name__}: {fault}" for rule in RULES for fault in rule(manifests)]


def deployed_manifests() -> dict[str, ManifestSet]:
    """Everything that this repository deploys without Helm, by display name, with a host."""
    folder = ROOT / "infra" / "knative"
    components = folder / "components"
    parts = (folder / "base", components / "gateway")
    manifest_sets = {
        f"infra/knative/{broker}": _with_host(read((*parts, folder / broker))) for broker in BROKERS
    }
    others = (
        components / name
        for name in ("keda", "migration", "monitoring", "tools", "audits", "warm-hours")
    )
    everything = _with_host(read((*parts, folder / "imc", *others)))
    deleted = read(components.rglob("patch-*.yaml"))
    return {
        **manifest_sets,
        "infra/knative/imc with every component": everything.without(deleted),
        "infra/edge with the base": read((folder / "base", ROOT / "infra/edge/deployment.yaml")),
        "stack.yml": read((ROOT / "stack.yml",)),
    }


def _with_host(manifests: ManifestSet) -> ManifestSet:
    """The manifests with the placeholder replaced, as by the kustomization of a user."""
    text = json.dumps(manifests.objects).replace(gateway.HOST, OWN_HOST)
    return replace(manifests, objects=tuple(json.loads(text)))


def main(arguments: list[str]) -> int:
    """Prints the findings; the exit status is 1 when there are any."""
    if arguments == ["-"]:
        manifest_sets = {"standard input": parse(sys.stdin.read())}
    elif arguments:
        manifest_sets = {" ".join(arguments): read(Path(argument) for argument in arguments)}
    else:
        manifest_sets = deployed_manifests()
    found = [
        f"{name}: {fault}"
        for name, manifests in manifest_sets.items()
        for fault in findings(manifests)
    ]
    for line in found:
        print(line, file=sys.stderr)
    objects = sum(len(manifests.objects) for manifests in manifest_sets.values())
    print(f"{len(RULES)} rules, {objects} objects, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
