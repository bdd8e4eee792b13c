"""Our own rules for manifests: what we deploy breaks none, and each finds its planted fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.manifest_rules.__main__ import ROOT, RULES, findings, main, own_worlds
from tools.manifest_rules.manifests import Rule, read

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("name", own_worlds())
def test_what_we_deploy_breaks_no_rule(name: str) -> None:
    world = own_worlds()[name]

    assert findings(world) == []
    assert len(world.objects) > 60 or world.stack is not None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_finds_its_planted_fault_once(rule: Rule) -> None:
    world = read((FIXTURES / f"{rule.__name__}.yaml",))

    assert len(list(rule(world))) == 1, list(rule(world))


def test_every_fixture_belongs_to_a_rule_and_every_rule_says_why() -> None:
    names = [rule.__name__ for rule in RULES]

    assert sorted(path.stem for path in FIXTURES.glob("*.yaml")) == sorted(names)
    assert len(set(names)) == len(names)
    assert all(rule.__doc__ for rule in RULES)


def test_a_fault_is_printed_and_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    path = FIXTURES / "most_pods_are_known.yaml"

    status = main([str(path)])

    assert status == 1
    assert "most_pods_are_known: Service/shop-charge: has no max-scale" in capsys.readouterr().err


def test_what_a_renderer_prints_is_read_from_standard_input() -> None:
    text = (FIXTURES / "ticks_are_signed.yaml").read_text()

    result = subprocess.run(
        [sys.executable, "-m", "tools.manifest_rules", "-"],
        input=text,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert result.returncode == 1
    assert "ticks_are_signed: PingSource/sweep" in result.stderr
