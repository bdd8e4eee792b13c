"""The deployed manifests have no findings, and each rule finds the fault of its fixture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.manifest_rules.__main__ import ROOT, RULES, deployed_manifests, findings, main
from tools.manifest_rules.manifests import Rule, read

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("name", deployed_manifests())
def test_deployed_manifests_have_no_findings(name: str) -> None:
    manifests = deployed_manifests()[name]

    assert findings(manifests) == []
    assert len(manifests.objects) > 60 or manifests.stack is not None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_finds_the_fault_of_its_fixture_once(rule: Rule) -> None:
    manifests = read((FIXTURES / f"{rule.__name__}.yaml",))

    assert len(list(rule(manifests))) == 1, list(rule(manifests))


def test_each_rule_has_one_fixture_and_a_docstring() -> None:
    names = [rule.__name__ for rule in RULES]

    assert sorted(path.stem for path in FIXTURES.glob("*.yaml")) == sorted(names)
    assert len(set(names)) == len(names)
    assert all(rule.__doc__ for rule in RULES)


def test_finding_is_printed_and_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    path = FIXTURES / "max_scale_is_set.yaml"

    status = main([str(path)])

    assert status == 1
    assert "max_scale_is_set: Service/shop-charge: has no max-scale" in capsys.readouterr().err


def test_dash_reads_manifests_from_standard_input() -> None:
    text = (FIXTURES / "ping_sources_are_not_used.yaml").read_text()

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
    assert "ping_sources_are_not_used: PingSource/sweep" in result.stderr
