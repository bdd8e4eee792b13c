"""``python -m chaos.mutation_tests``: checks that the smoke tier detects every known defect.

Each mutant is the shop with one defect.  The exit status is 0 when every selected mutant is caught,
1 when one is not, and 2 when an edit of the catalogue no longer applies.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chaos.mutation_tests.catalogue import MUTANTS
from chaos.mutation_tests.mutant import DoesNotApply, Mutant, mutated_files
from chaos.mutation_tests.report import line_of, totals_of, write_results
from chaos.mutation_tests.run import LIMIT_SECONDS, Settings, Verdict, run

ROOT = Path(__file__).resolve().parents[2]
ALL_CAUGHT, NOT_ALL_CAUGHT, CATALOGUE_OUTDATED = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Lists, checks or runs the selected mutants; returns the exit status."""
    options = _parser().parse_args(arguments)
    selected = _selected(options.only)
    if options.list:
        for mutant in selected:
            checks = ", ".join(mutant.caught_by)
            print(f"{mutant.id}  {mutant.defect:6}  {mutant.description}  [{checks}]")
        return ALL_CAUGHT
    if errors := _check(selected):
        print("\n".join(errors))
        return CATALOGUE_OUTDATED
    if options.check:
        print(f"{len(selected)} mutants apply")
        return ALL_CAUGHT
    settings = Settings(ROOT, options.seed, options.orders, options.limit_seconds)
    verdicts = _run_all(selected, settings, options.jobs)
    print(totals_of(verdicts))
    if options.results:
        write_results(verdicts, options.results, seed=options.seed)
    are_caught = all(verdict.state == "caught" for verdict in verdicts)
    return ALL_CAUGHT if are_caught else NOT_ALL_CAUGHT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos.mutation_tests", description=__doc__)
    parser.add_argument("--only", default="", help="ids, separated by commas")
    parser.add_argument("--list", action="store_true", help="only list the mutants")
    parser.add_argument("--check", action="store_true", help="only check that all edits apply")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--orders", type=int, help="orders of each run (default: those of the tier)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="mutants that run concurrently")
    parser.add_argument("--limit-seconds", type=float, default=LIMIT_SECONDS)
    parser.add_argument("--results", type=Path, help="file for the table (.md or .json)")
    return parser


def _selected(only: str) -> tuple[Mutant, ...]:
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    if unknown := wanted - {mutant.id for mutant in MUTANTS}:
        raise SystemExit(f"unknown mutant: {', '.join(sorted(unknown))}")
    return tuple(mutant for mutant in MUTANTS if not wanted or mutant.id in wanted)


def _check(selected: Sequence[Mutant]) -> list[str]:
    errors: list[str] = []
    for mutant in selected:
        try:
            mutated_files(mutant, ROOT)
        except DoesNotApply as error:
            errors.append(str(error))
    return errors


def _run_all(selected: Sequence[Mutant], settings: Settings, jobs: int) -> list[Verdict]:
    def run_and_print(mutant: Mutant) -> Verdict:
        verdict = run(mutant, settings)
        print(line_of(verdict), flush=True)
        return verdict

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        return list(pool.map(run_and_print, selected))


if __name__ == "__main__":
    sys.exit(main())
