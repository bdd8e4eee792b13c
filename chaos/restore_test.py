"""F-28 on a running shop: base backup, crash, restore to a moment, and everybody is made whole.

``python -m chaos.restore_test --data DIR`` runs it alone; the full tier runs it after its faults,
on a shop of its own.  By hand: docs/how-to/back-up-and-restore.md.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, LiteralString

import psycopg

from chaos.crash_plan import CrashPlan
from chaos.environment import Environment
from chaos.restore import moment, restore, take_base_backup
from chaos.startup import Opening, open_scene
from chaos.tiers import TIERS
from tools.checker import provider_transactions
from tools.checker.evaluate import ExternalRecords, InvariantResult, evaluate_invariants
from tools.checker.provider_transactions import ProviderAccess
from tools.operations import unmatched_charges

ORDERS, SECONDS = 60, 12.0
ACCOUNTS = 45
EXPIRY_SECONDS = (8, 30)
REST_SECONDS_MAX = 180.0
ASK_SECONDS = 0.2
QUIET_SECONDS = 1.0

OPEN_WORK: LiteralString = """
select (select count(*) from shop.orders where status in ('PENDING', 'CANCELLING'))
  + (select count(*) from shop.payments where status in ('INTENT', 'UNKNOWN'))
  + (select count(*) from shop.refunds where status in ('INTENT', 'UNKNOWN'))
  + (select count(*) from shop.outbox where done_at is null)
"""
COUNT_ORDERS: LiteralString = "select count(*) from shop.orders"
COUNT_GHOSTS: LiteralString = "select count(*) from shop.ghosts"
RECONCILE_NOW: LiteralString = "update shop.reconciliation set next_run_at = now()"
# While the books are being read the next turn is two minutes away, afterwards an hour or more.
RECONCILED: LiteralString = """
select bool_and(next_run_at > now() + interval '10 minutes') from shop.reconciliation
"""


@dataclass(kw_only=True)
class RestoreTest:
    """What a restore came to.

    ``rpo_seconds`` is how far before the crash the moment lies that was restored, ``rto_seconds``
    the time from the crash until the database took writes again.  ``broken`` names what did not
    hold, at once or at rest.
    """

    rpo_seconds: float = 0.0
    rto_seconds: float = 0.0
    orders_before: int = 0
    orders_lost: int = 0
    ghosts: int = 0
    broken: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """One line for the report."""
        return (
            f"{self.orders_lost} of {self.orders_before} orders lost with the last "
            f"{self.rpo_seconds:.1f} s (RPO), writing again after {self.rto_seconds:.1f} s (RTO), "
            f"{self.ghosts} ghosts returned, {len(self.broken)} broken"
        )


def run_drill(
    data: Path, seed: int, *, orders: int = ORDERS, seconds: float = SECONDS
) -> RestoreTest:
    """The whole drill in ``data``, with ``orders`` in each of its three parts.

    Raises what the servers raise when it cannot be made.
    """
    shutil.rmtree(data, ignore_errors=True)
    return asyncio.run(_drill(data, seed, orders, seconds))


async def _drill(data: Path, seed: int, orders: int, seconds: float) -> RestoreTest:
    drill = RestoreTest()
    tier = replace(
        TIERS["smoke"], orders=orders, load_seconds=seconds, expiry_seconds=EXPIRY_SECONDS
    )
    opening = Opening(
        tier=tier,
        seed=seed,
        data=data,
        crashes=CrashPlan((), per_pair=0, seconds=1.0, dice=Random(seed)),  # noqa: S311
        time_zone="Asia/Seoul",
        on_load_line=lambda _line: None,
        archives=True,
        accounts=ACCOUNTS,
    )
    async with open_scene(opening) as scene:
        await scene.load.ask("load", orders=orders, seconds=seconds)
        base = await asyncio.to_thread(take_base_backup, scene.postgres)
        await scene.load.ask("load", orders=orders, seconds=seconds)
        target = await asyncio.to_thread(moment, scene.admin_url)
        await scene.load.ask("load", orders=orders, seconds=seconds)
        await _rest(scene, drill)
        await _restore(scene, drill, base, target)
        await _ask_at_once(scene, drill)
        await _mend(scene, drill, target)
    return drill


async def _restore(scene: Environment, drill: RestoreTest, base: Path, target: datetime) -> None:
    """Functions first: nobody writes to what is about to be replaced."""
    drill.orders_before = await _one(scene, COUNT_ORDERS)
    for pool in scene.pools():
        pool.is_disabled = True
        for process in list(pool.processes):
            pool.retire(process)
    done = await asyncio.to_thread(restore, scene.postgres, scene.admin_url, base, target)
    drill.rpo_seconds, drill.rto_seconds = done.rpo_seconds, done.rto_seconds
    drill.orders_lost = drill.orders_before - int(await _one(scene, COUNT_ORDERS))


async def _ask_at_once(scene: Environment, drill: RestoreTest) -> None:
    """Before any function runs: the books are those of one moment, so all I-queries hold.

    All but one: the provider knows charges that the restored books have forgotten (I-11).
    """
    verdicts = await asyncio.to_thread(_results, scene, at_rest=False)
    drill.broken += [f"at once: {name}" for name in _broken(verdicts, "I-11")]


async def _mend(scene: Environment, drill: RestoreTest, target: datetime) -> None:
    """Reconciliation finds what was forgotten; a person gives the ghosts back; all holds again."""
    for pool in scene.pools():
        pool.is_disabled = False
    await _reconcile(scene)
    await _rest(scene, drill)
    access = _access(scene)
    for _ in range(2):  # the second time there is nothing to give back
        await asyncio.to_thread(
            unmatched_charges.run_return, scene.admin_url, access, since=target, as_json=False
        )
    drill.ghosts = await _one(scene, COUNT_GHOSTS)
    await _reconcile(scene)
    await _rest(scene, drill)
    drill.broken += _broken(await asyncio.to_thread(_results, scene, at_rest=True))


async def _reconcile(scene: Environment) -> None:
    """Has the provider's books read now, to their end."""
    async with scene.database() as database:
        await database.execute(RECONCILE_NOW)
    async with asyncio.timeout(REST_SECONDS_MAX):
        while not await _one(scene, RECONCILED):
            await asyncio.sleep(ASK_SECONDS)


async def _rest(scene: Environment, drill: RestoreTest) -> None:
    """Nothing is open, and a moment later neither is anybody's transaction."""
    deadline = time.monotonic() + REST_SECONDS_MAX
    left = -1
    while time.monotonic() < deadline:
        with suppress(psycopg.OperationalError):
            left = await _one(scene, OPEN_WORK)
        if left == 0 and not scene.platform.broker.pending:
            await asyncio.sleep(QUIET_SECONDS)
            return
        await asyncio.sleep(ASK_SECONDS)
    drill.broken.append(f"rest: {left} open after {REST_SECONDS_MAX:g} s")


def _results(scene: Environment, *, at_rest: bool) -> list[InvariantResult]:
    known = provider_transactions.external_records(_access(scene))
    unknown = dict.fromkeys(("Q-11", "Q-12"), "the clients remember what was lost")
    outside = ExternalRecords(known.charges, known.refunds)
    return evaluate_invariants(scene.admin_url, outside, at_rest=at_rest, skipped=unknown)


def _broken(verdicts: Iterable[InvariantResult], *but: str) -> list[str]:
    return [
        f"{each.invariant.id} {each.invariant.what}: {each.rows}"
        for each in verdicts
        if each.state == "broken" and each.invariant.id not in but
    ]


def _access(scene: Environment) -> ProviderAccess:
    return ProviderAccess("sandbox", scene.provider_url, scene.secrets.provider_api_key)


async def _one(scene: Environment, query: LiteralString) -> Any:
    async with scene.database() as database:
        row = await (await database.execute(query)).fetchone()
    assert row is not None, "each of these answers one row"
    return row[0]


def main() -> int:
    """Runs the drill and prints what it came to: 1 when something is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(".shop/restore"))
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    drill = run_drill(chosen.data, chosen.seed)
    print(drill.text)
    for name in drill.broken:
        print(f"BROKEN {name}")
    return 1 if drill.broken else 0


if __name__ == "__main__":
    sys.exit(main())
