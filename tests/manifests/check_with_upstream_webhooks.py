"""Validates the manifests with the code of upstream's webhooks, without a cluster.

    python -m tests.manifests.check_with_upstream_webhooks

Builds the Go program in ``upstream/`` (needs Go 1.23 or newer), then gives it every object that
kustomize and the chart deploy, and the fixtures that it must reject.  Exits 1 if upstream rejects a
deployed object or accepts such a fixture; 2 without Go.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import yaml

from tests.manifests.check_with_clients import PROGRAMS, build
from tests.manifests.test_chart import CONFIGURATIONS, chart_manifests
from tests.manifests.test_rules import FIXTURES
from tools.manifest_rules.__main__ import deployed_manifests
from tools.manifest_rules.manifests import ManifestSet

PROGRAM = Path(__file__).parent / "upstream"
# no webhook rejects the other fixtures, which is why the rules exist
REJECTED = {
    "concurrency_equals_threads",
    "delivery_durations_are_iso_8601",
    "volumes_are_mounted",
    "pod_fields_are_supported",
    "filters_have_one_dialect_each",
    "names_are_short_enough",
    "reserved_names_are_not_used",
    "scaling_values_are_valid",
    "scaling_annotations_are_on_the_template",
    "traffic_adds_up_to_100_percent",
}
FAULTS = 1


def main() -> int:
    """Prints a line for each deployment and each unexpected result; returns the exit status."""
    if shutil.which("go") is None:
        print("go is missing", file=sys.stderr)
        return 2
    program = build(PROGRAM, ".", PROGRAMS / "webhooks")
    deployments = all_deployments()
    failed = sum(not _is_accepted(program, name, each) for name, each in deployments.items())
    rejected = {
        path.stem for path in FIXTURES.glob("*.yaml") if _rejects(program, path.read_text())
    }
    for name in sorted(rejected ^ REJECTED):
        print(f"{name}: {'rejected' if name in rejected else 'accepted'} unexpectedly")
    print(f"{len(deployments)} deployments, {failed} rejected; {len(rejected)} fixtures rejected")
    return 1 if failed or rejected != REJECTED else 0


@cache
def all_deployments() -> dict[str, ManifestSet]:
    """The objects of kustomize, and of the chart in each configuration, by display name."""
    deployments = {name: each for name, each in deployed_manifests().items() if each.objects}
    return deployments | {f"chart, {name}": chart_manifests(name) for name in CONFIGURATIONS}


def _is_accepted(program: Path, name: str, manifests: ManifestSet) -> bool:
    text = yaml.safe_dump_all(manifests.objects, allow_unicode=True)
    result = _validate(program, text)
    print(f"{name}: {'accepted' if result.returncode == 0 else 'rejected'}")
    print(result.stderr, end="")
    return result.returncode == 0


def _rejects(program: Path, text: str) -> bool:
    """True when upstream reports a fault; kinds without a type upstream have none."""
    result = _validate(program, text)
    return result.returncode == FAULTS and "0 faults" not in result.stderr


def _validate(program: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program)], input=text, capture_output=True, text=True, check=False, timeout=60
    )


if __name__ == "__main__":
    sys.exit(main())
