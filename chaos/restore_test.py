"""F-28: restores a running shop to an earlier point in time and checks that it becomes consistent.

``python -m chaos.restore_test --data DIR`` runs it alone; the full tier runs it after its other
faults, in a separate environment.  The procedure for operators is in
docs/how-to/back-up-and-restore.md.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from random import Random
from typing import LiteralString

from chaos import quiescence
from chaos.environment import Environment
from chaos.kill_plan import KillPlan
from chaos.restore import current_time, restore, take_base_backup
from chaos.startup import RunSettings, open_environment
from chaos.tiers import TIERS
from tools.operations import unmatched_charges

ORDERS, SECONDS = 60, 12.0
ACCOUNTS = 45
EXPIRY_SECONDS = (8, 30)

# Q-11 and Q-12 compare with the clients' log
REASON = "the clients' log contains requests that the restore undid"
SKIPPED = {"Q-11": REASON, "Q-12": REASON}
COUNT_ORDERS: LiteralString = "select count(*) from shop.orders"
COUNT_UNMATCHED_CHARGES: LiteralString = "select count(*) from shop.unmatched_charges"


@dataclass(kw_only=True)
class RestoreResult:
    """The result of a restore test.

    ``rpo_seconds`` is the time between the restored point and the stop of the database,
    ``rto_seconds`` the time until it accepted writes again.
    """

    rpo_seconds: float = 0.0
    rto_seconds: float = 0.0
    orders_before: int = 0
    orders_lost: int = 0
    unmatched_charges: int = 0
    violations: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        """One line for the report."""
        return (
            f"{self.orders_lost} of {self.orders_before} orders lost with the last "
            f"{self.rpo_seconds:.1f} s (RPO), writing again after {self.rto_seconds:.1f} s (RTO), "
            f"{self.unmatched_charges} unmatched charges refunded, "
            f"{len(self.violations)} violations"
        )


def run_restore_test(
    data: Path, seed: int, *, orders: int = ORDERS, seconds: float = SECONDS
) -> RestoreResult:
    """Runs the whole test in ``data``, with ``orders`` in each of its three parts.

    Raises the errors of the servers when they fail.
    """
    shutil.rmtree(data, ignore_errors=True)
    return asyncio.run(_run(data, seed, orders, seconds))


async def _run(data: Path, seed: int, orders: int, seconds: float) -> RestoreResult:
    result = RestoreResult()
    tier = replace(
        TIERS["smoke"], orders=orders, load_seconds=seconds, expiry_seconds=EXPIRY_SECONDS
    )
    settings = RunSettings(
        tier=tier,
        seed=seed,
        data=data,
        kill_plan=KillPlan((), kills_per_pair=0, seconds=1.0, random=Random(seed)),  # noqa: S311
        time_zone="Asia/Seoul",
        has_wal_archive=True,
        accounts=ACCOUNTS,
    )
    async with open_environment(settings, lambda _line: None) as environment:
        await environment.workload.call("load", orders=orders, seconds=seconds)
        base = await asyncio.to_thread(take_base_backup, environment.postgres)
        await environment.workload.call("load", orders=orders, seconds=seconds)
        target = await asyncio.to_thread(current_time, environment.admin_url)
        await environment.workload.call("load", orders=orders, seconds=seconds)
        result.violations += await quiescence.wait_for_quiescence(environment)
        await _restore(environment, result, base, target)
        await _check_before_restart(environment, result)
        await _recover(environment, result, target)
    return result


async def _restore(
    environment: Environment, result: RestoreResult, base: Path, target: datetime
) -> None:
    """Stops the functions before the database that they write to is replaced."""
    result.orders_before = await quiescence.value(environment, COUNT_ORDERS)
    for pool in environment.pools():
        pool.is_disabled = True
        for process in list(pool.processes):
            pool.retire(process)
    restored = await asyncio.to_thread(
        restore, environment.postgres, environment.admin_url, base, target
    )
    result.rpo_seconds, result.rto_seconds = restored.rpo_seconds, restored.rto_seconds
    result.orders_lost = result.orders_before - int(
        await quiescence.value(environment, COUNT_ORDERS)
    )


async def _check_before_restart(environment: Environment, result: RestoreResult) -> None:
    """The restored state is that of one point in time, so every invariant holds except I-11.

    I-11 is violated by the charges whose payment rows were lost.
    """
    broken = await quiescence.broken_invariants(
        environment, at_rest=False, skipped=SKIPPED, excluded="I-11"
    )
    result.violations += [f"after the restore: {text}" for text in broken]


async def _recover(environment: Environment, result: RestoreResult, target: datetime) -> None:
    """Reconciles, refunds the unmatched charges and checks every invariant."""
    for pool in environment.pools():
        pool.is_disabled = False
    result.violations += await quiescence.reconcile(environment)
    result.violations += await quiescence.wait_for_quiescence(environment)
    for _ in range(2):  # the second time there must be nothing left to refund
        await asyncio.to_thread(
            unmatched_charges.run_return,
            environment.admin_url,
            quiescence.access(environment),
            since=target,
            as_json=False,
        )
    result.unmatched_charges = await quiescence.value(environment, COUNT_UNMATCHED_CHARGES)
    result.violations += await quiescence.reconcile(environment)
    result.violations += await quiescence.wait_for_quiescence(environment)
    result.violations += await quiescence.broken_invariants(
        environment, at_rest=True, skipped=SKIPPED
    )


def main() -> int:
    """Runs the test and prints its result; 1 after a violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(".shop/restore"))
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    result = run_restore_test(chosen.data, chosen.seed)
    print(result.text)
    for violation in result.violations:
        print(f"VIOLATION {violation}")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
