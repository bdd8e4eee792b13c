"""``python -m chaos.mutation_tests``: does the smoke tier find every hole that is put back?

Ends with 1 unless every chosen mutant is caught, and with 2 when an edit no longer applies.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chaos.mutation_tests.catalogue import MUTANTS
from chaos.mutation_tests.mutant import DoesNotApply, Mutant, mutated_files
from chaos.mutation_tests.report import line_of, sum_of, write_results
from chaos.mutation_tests.run import LIMIT_SECONDS, Settings, Verdict, run

ROOT = Path(__file__).resolve().parents[2]
ALL_CAUGHT, NOT_ALL_CAUGHT, CATALOGUE_ROTTEN = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Lists, checks or runs the chosen mutants; the exit status."""
    options = _parser().parse_args(arguments)
    chosen = _chosen(options.only)
    if options.list:
        for mutant in chosen:
            print(f"{mutant.id}  {mutant.hole:6}  {mutant.what}  [{', '.join(mutant.caught_by)}]")
        return ALL_CAUGHT
    if faults := _check(chosen):
        print("\n".join(faults))
        return CATALOGUE_ROTTEN
    if options.check:
        print(f"{len(chosen)} mutants apply")
        return ALL_CAUGHT
    settings = Settings(ROOT, options.seed, options.orders, options.limit_seconds)
    verdicts = _run_all(chosen, settings, options.jobs)
    print(sum_of(verdicts))
    if options.results:
        write_results(verdicts, options.results, seed=options.seed)
    is_proof = all(verdict.state == "caught" for verdict in verdicts)
    return ALL_CAUGHT if is_proof else NOT_ALL_CAUGHT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos.mutation_tests", description=__doc__)
    parser.add_argument("--only", default="", help="ids, separated by commas")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--check", action="store_true", help="only see whether all edits apply")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--orders", type=int, help="orders of each run; the tier's own number else")
    parser.add_argument("--jobs", type=int, default=1, help="how many mutants run at once")
    parser.add_argument("--limit-seconds", type=float, default=LIMIT_SECONDS)
    parser.add_argument("--results", type=Path, help="write the table here (.md or .json)")
    return parser


def _chosen(only: str) -> tuple[Mutant, ...]:
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    if unknown := wanted - {mutant.id for mutant in MUTANTS}:
        raise SystemExit(f"there is no mutant {', '.join(sorted(unknown))}")
    return tuple(mutant for mutant in MUTANTS if not wanted or mutant.id in wanted)


def _check(chosen: Sequence[Mutant]) -> list[str]:
    faults = []
    for mutant in chosen:
        try:
            mutated_files(mutant, ROOT)
        except DoesNotApply as error:
            faults.append(str(error))
    return faults


def _run_all(chosen: Sequence[Mutant], settings: Settings, jobs: int) -> list[Verdict]:
    def judged(mutant: Mutant) -> Verdict:
        verdict = run(mutant, settings)
        print(line_of(verdict), flush=True)
        return verdict

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        return list(pool.map(judged, chosen))


if __name__ == "__main__":
    sys.exit(main())
