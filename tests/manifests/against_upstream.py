"""Asks upstream's own webhooks, without a cluster: ``python -m tests.manifests.against_upstream``.

Builds the Go program in ``upstream/`` (needs Go 1.23 or newer), then shows it
every object that kustomize and the chart deploy, and the fixtures that it must refuse.  Exits 1 if
upstream refuses what we deploy, or takes what it should refuse; 2 without Go.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.manifests.test_chart import WAYS, world_of
from tests.manifests.test_rules import FIXTURES
from tools.manifest_rules.__main__ import own_worlds
from tools.manifest_rules.manifests import World

PROGRAM = Path(__file__).parent / "upstream"
# the other fixtures are what no webhook catches: why we have rules of our own
REFUSED = {
    "concurrency_is_the_number_of_threads",
    "delivery_has_iso_durations",
    "every_volume_is_mounted",
    "fields_are_those_knative_takes",
    "filters_have_one_dialect_each",
    "names_are_short_enough",
    "nothing_reserved_is_taken",
    "scaling_has_values_knative_takes",
    "scaling_is_said_on_the_template",
    "traffic_is_whole",
}
FAULTS = 1


def main() -> int:
    """The exit status; prints a line for each deployment and each wrong answer."""
    go = shutil.which("go")
    if go is None:
        print("go is missing", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "admission"
        subprocess.run([go, "build", "-o", str(program), "."], cwd=PROGRAM, check=True)
        worlds = {name: world for name, world in own_worlds().items() if world.objects}
        worlds |= {f"chart, {way}": world_of(way) for way in WAYS}
        wrong = sum(not _is_taken(program, name, world) for name, world in worlds.items())
        refused = {
            path.stem for path in FIXTURES.glob("*.yaml") if _refuses(program, path.read_text())
        }
    for name in sorted(refused ^ REFUSED):
        print(f"{name}: {'refused' if name in refused else 'taken'} against expectation")
    print(f"{len(worlds)} deployments, {wrong} refused; {len(refused)} fixtures refused")
    return 1 if wrong or refused != REFUSED else 0


def _is_taken(program: Path, name: str, world: World) -> bool:
    text = yaml.safe_dump_all(world.objects, allow_unicode=True)
    result = _ask(program, text)
    print(f"{name}: {'taken' if result.returncode == 0 else 'refused'}")
    print(result.stderr, end="")
    return result.returncode == 0


def _refuses(program: Path, text: str) -> bool:
    """True for a fault; a fixture of kinds that upstream has no type for is none."""
    result = _ask(program, text)
    return result.returncode == FAULTS and "0 faults" not in result.stderr


def _ask(program: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program)], input=text, capture_output=True, text=True, check=False, timeout=60
    )


if __name__ == "__main__":
    sys.exit(main())
