"""``make bench-cold --check``: the gate fails for a slow import, and each function is in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shop.registry import all_specs
from tools.bench import cold
from tools.bench.cold import Candidate

ROOT = Path(__file__).resolve().parents[3]
# A second of CPU time is many times a cold start on any machine.
SLOW_IMPORT = """
import sys, time
if "shop.runtime" in sys.orig_argv:
    while time.process_time() < 1:
        pass
"""


def candidate(name: str, *cpu_ratios: float) -> Candidate:
    """A measured function."""
    return Candidate(name, lambda: (b"", 200), lambda _port: [], {}, cpu_ratios=list(cpu_ratios))


def run_bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the bench as ``make bench-cold`` does."""
    return subprocess.run(
        [sys.executable, "-m", "tools.bench.cold", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_check_fails_when_a_slow_import_is_added(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT)

    result = run_bench(
        "--check", "--rounds=1", "--function=list_products", PYTHONPATH=str(tmp_path)
    )

    assert result.returncode == 1, result.stderr
    assert "measured again: list_products" in result.stdout
    assert result.stdout.count("MISSED: CPU of list_products / hello") == 2


@pytest.mark.parametrize(("last", "is_above"), [(1.45, False), (1.55, True)])
def test_median_of_the_cpu_ratios_is_compared_with_the_spec(last: float, *, is_above: bool) -> None:
    measured = candidate("place_order", 1.0, 9.0, last)

    assert cold.is_above_budget(measured) is is_above
    (line,) = cold.budget_results([measured])
    assert line.split(":")[0] == ("MISSED" if is_above else "reached")
    assert line.endswith(f"{last:.2f}, target at most 1.50")


def test_function_within_its_budget_is_not_measured_again() -> None:
    hello = candidate("hello")
    measured = candidate("place_order", 1.0)

    assert cold.repeat_above_budget(hello, [measured], rounds=1) is False
    assert (hello.cpu_ms, measured.cpu_ratios) == ([], [1.0])


def test_each_function_has_a_budget_below_the_eager_import_of_everything() -> None:
    assert {spec.name for spec in all_specs() if not 0 < spec.cold_start_budget <= 2} == set()
