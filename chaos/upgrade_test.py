"""F-21: deploys today's version over a released one while customers order, with faults.

1. The release before runs alone on its schema, with orders.
2. Under this load the database is migrated (expand), and today's code joins it: half of the
   processes of each function are of either release.  No response may be a 5xx until here.
3. The workload's customers order from both, while processes are killed and replaced, and messages,
   commits and the provider fail.
4. Today's code runs alone, first with faults.
5. What only the release before needs is dropped (contract), and customers order again.

Then the shop must come to rest, and every invariant holds.  ``python -m chaos.upgrade_test --data
DIR`` runs it alone, ``--release`` chooses the release; the full tier runs it after its faults.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import LiteralString
from uuid import uuid4

import httpx
from sqlalchemy.exc import OperationalError

from chaos import quiescence
from chaos.environment import Environment
from chaos.faults.continuous import PROVIDER_PROBABILITIES, start_continuous_faults
from chaos.kill_plan import KillPlan
from chaos.release_before import ReleaseBefore
from chaos.report.unexpected_errors import bug_lines
from chaos.startup import RunSettings, open_environment, prepare_database
from chaos.tiers import TIERS
from tools.releases import COMMITS, extract

# the newest one
RELEASE = list(COMMITS)[-1]
ORDERS, SECONDS = 300, 30.0
ACCOUNTS = 45
EXPIRY_SECONDS = (30, 60)
# What clients of the release before know.  Operators wait until the roll-out is over: what they
# change with 0.1.0 has no entry in the audit log, which that release does not have (I-26).
ACTIONS = ("browse", "cart", "place", "cancel", "session")
CUSTOMERS = 4
# Of the release before alone, and twice as many while both run without faults.
ORDERS_FIRST = 20
ORDERS_WITHIN_SECONDS = 120.0
CUSTOMER_PAUSE_SECONDS = 0.2
REPLACED_EVERY_SECONDS = 1.0
MIGRATIONS_MAX = 5
# On a machine that is busier, a lock of milliseconds is held for longer than the second for which
# functions wait: their 503 would say nothing about the migrations.
MIGRATION_SECONDS_MAX = 15.0
UNAVAILABLE = 503
# Faults that no release has to know: other kinds of transactions came with later ones.
PROVIDER_FAULTS_LATER = ("provider_refund", "dispute", "other_shop")
FAULTS = frozenset(("F-05", "F-06", "F-07", "F-10", "F-15"))
# What only releases need that today's may be rolled back to: contract.
CONTRACT: tuple[LiteralString, ...] = (
    "drop index if exists shop.products_by_name_trigram",
    "drop trigger if exists equals_its_batches on shop.settlements",
    "drop function if exists shop.settlement_equals_its_batches",
)
COUNT_ORDERS: LiteralString = "select count(*) from shop.orders"


@dataclass(kw_only=True)
class UpgradeResult:
    """The result of an upgrade test.

    ``orders_before`` are those of the release before alone, ``orders`` all of them;
    ``processes_before`` the processes of it that were started beside today's, of ``processes``.
    ``is_judged`` is false when 503 does not count, because the machine was too busy.
    """

    release: str
    migration_seconds: float = 0.0
    migrations_repeated: int = 0
    is_judged: bool = True
    orders_before: int = 0
    orders: int = 0
    processes_before: int = 0
    processes: int = 0
    statuses: Counter[int] = field(default_factory=Counter[int])
    violations: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        """One line for the report."""
        return (
            f"from {self.release}: {self.orders} orders, {self.orders_before} before the migration "
            f"({self.migration_seconds:.1f} s under load, {self.migrations_repeated} repeated"
            f"{'' if self.is_judged else '; too busy a machine to judge 503'}), "
            f"{self.processes_before} of {self.processes} processes beside today's were of it, "
            f"{len(self.violations)} violations"
        )


def run_upgrade_test(
    data: Path,
    seed: int,
    *,
    release: str = RELEASE,
    orders: int = ORDERS,
    seconds: float = SECONDS,
) -> UpgradeResult:
    """Runs the whole test in ``data``, with ``orders`` in ``seconds`` in each part with faults.

    Raises ReleaseMissing where the history does not have the release, and the servers' errors.
    """
    shutil.rmtree(data, ignore_errors=True)
    before = ReleaseBefore(extract(release, (data / "release").resolve()))
    before.install()
    return asyncio.run(_Upgrade(data, seed, before, release).run(orders, seconds))


class _Upgrade:
    def __init__(self, data: Path, seed: int, before: ReleaseBefore, release: str) -> None:
        self._data = data
        self._seed = seed
        self._before = before
        self.result = UpgradeResult(release=release)

    async def run(self, orders: int, seconds: float) -> UpgradeResult:
        tier = replace(
            TIERS["smoke"], orders=orders, load_seconds=seconds, expiry_seconds=EXPIRY_SECONDS
        )
        random = Random(self._seed)  # noqa: S311 (repeatable, not secret)
        settings = RunSettings(
            tier=tier,
            seed=self._seed,
            data=self._data,
            kill_plan=KillPlan((), kills_per_pair=0, seconds=1.0, random=random),
            time_zone="Asia/Seoul",
            accounts=ACCOUNTS,
            release_before=self._before,
        )
        async with open_environment(settings, _ignore, self._deploy) as environment:
            await self._load_with_faults(environment, orders, seconds)
            await self._finish(environment, orders, seconds)
        self._check_logs()
        return self.result

    async def _deploy(self, environment: Environment) -> None:
        """Orders from the release before; migrates, and starts today's code beside it."""
        for pool in environment.pools():
            pool.is_disabled = not self._before.has(pool.spec.name)
        async with _customers(environment.edge_url, self.result.statuses):
            await self._wait_for_orders(environment, ORDERS_FIRST)
            self.result.orders_before = await quiescence.value(environment, COUNT_ORDERS)
            await self._migrate(environment)
            self._before.share = 0.5
            self._before.started.clear()
            self._before.chosen.clear()
            for pool in environment.pools():
                pool.is_disabled = False
            _replace_all(environment)
            await self._wait_for_orders(environment, self.result.orders_before + 2 * ORDERS_FIRST)
        self.result.is_judged = self.result.migration_seconds <= MIGRATION_SECONDS_MAX
        excused = set[int]() if self.result.is_judged else {UNAVAILABLE}
        failed = {
            status: count
            for status, count in self.result.statuses.items()
            if status >= 500 and status not in excused
        }
        if failed:
            self.result.violations.append(f"deployment without faults: responses {failed}")

    async def _wait_for_orders(self, environment: Environment, orders: int) -> None:
        """Waits until there are so many orders."""
        async with asyncio.timeout(ORDERS_WITHIN_SECONDS):
            while await quiescence.value(environment, COUNT_ORDERS) < orders:
                await asyncio.sleep(quiescence.POLL_SECONDS)

    async def _migrate(self, environment: Environment) -> None:
        """As the migration's Job does: again, when a lock was not to be had in time."""
        began = time.monotonic()
        for left in reversed(range(MIGRATIONS_MAX)):
            try:
                await asyncio.to_thread(prepare_database, environment.admin_url)
                break
            except OperationalError:
                if not left:
                    raise
                self.result.migrations_repeated += 1
        self.result.migration_seconds = time.monotonic() - began

    async def _load_with_faults(
        self, environment: Environment, orders: int, seconds: float
    ) -> None:
        """Customers of both releases, then of today's alone, while both have faults."""
        await start_continuous_faults(environment, FAULTS)
        rest = {k: v for k, v in PROVIDER_PROBABILITIES.items() if k not in PROVIDER_FAULTS_LATER}
        await environment.provider_faults.set_continuous(
            rest,
            slow_seconds=1.0,
            late_seconds=3.0,
            reorder_seconds=1.5,
            unrequested_seconds=3.0,
            hang_seconds=3.0,
        )
        replacing = asyncio.create_task(_replace_processes(environment))
        try:
            await self._load(environment, orders, seconds, actions=ACTIONS)
            self.result.processes_before = sum(self._before.started.values())
            self.result.processes = sum(self._before.chosen.values())
            self._before.share = 0.0
            _replace_all(environment)
            await self._load(environment, orders, seconds)
        finally:
            replacing.cancel()
        await environment.remove_all_faults()

    async def _finish(self, environment: Environment, orders: int, seconds: float) -> None:
        """Drops what only the release before needs; orders once more, then checks everything."""
        async with environment.database() as database:
            for statement in CONTRACT:
                await database.execute(statement)
        await self._load(environment, max(1, orders // 4), seconds / 3)
        self.result.violations += await quiescence.wait_for_quiescence(environment)
        self.result.violations += await quiescence.reconcile(environment)
        self.result.violations += await quiescence.wait_for_quiescence(environment)
        reason = "the clients of the release before have no log"
        skipped = {"Q-11": reason, "Q-12": reason}
        self.result.violations += await quiescence.broken_invariants(
            environment, at_rest=True, skipped=skipped
        )
        self.result.orders = await quiescence.value(environment, COUNT_ORDERS)

    async def _load(
        self,
        environment: Environment,
        orders: int,
        seconds: float,
        actions: tuple[str, ...] | None = None,
    ) -> None:
        chosen = {} if actions is None else {"actions": list(actions)}
        done = await environment.workload.call("load", orders=orders, seconds=seconds, **chosen)
        unexpected = done["totals"]["unexpected_responses"]
        self.result.violations += [
            text
            for each, count in unexpected.items()
            if (text := f"unexpected response: {each} ({count} x)") not in self.result.violations
        ]

    def _check_logs(self) -> None:
        """No function of either release logged an error that it does not expect."""
        errors: Counter[str] = Counter()
        for path in sorted((self._data / "log").glob("*.log")):
            for line in bug_lines(path):
                errors[f"{path.stem}: {json.loads(line).get('error')}"] += 1
        self.result.violations += [f"bug: {error} ({n} x)" for error, n in errors.items()]


@asynccontextmanager
async def _customers(url: str, statuses: Counter[int]) -> AsyncGenerator[None, None]:
    """Customers who order, as clients of any release do, until the block ends."""
    async with httpx.AsyncClient(base_url=url, timeout=30.0) as client:
        is_over = asyncio.Event()
        tasks = [asyncio.create_task(_order(client, statuses, is_over)) for _ in range(CUSTOMERS)]
        try:
            yield
        finally:
            is_over.set()
            await asyncio.gather(*tasks)


async def _order(client: httpx.AsyncClient, statuses: Counter[int], is_over: asyncio.Event) -> None:
    """One customer: an account, then orders, some of which are cancelled."""

    async def call(method: str, path: str, body: object = None) -> httpx.Response:
        key = {"idempotency-key": uuid4().hex, **authorization}
        response = await client.request(method, path, json=body, headers=key)
        statuses[response.status_code] += 1
        return response

    authorization = await _new_account(client)
    number = 0
    while not is_over.is_set():
        number += 1
        body = {"productId": 1 + number % 3, "quantity": 1, "paymentMethod": "CARD"}
        placed = await call("POST", "/orders", body)
        if placed.status_code == 201:
            path = f"/orders/{placed.json()['id']}"
            await call("GET", path)
            if number % 4 == 0:
                await call("PATCH", f"{path}/cancel")
        await call("GET", "/products?limit=5")
        with suppress(TimeoutError):
            await asyncio.wait_for(is_over.wait(), CUSTOMER_PAUSE_SECONDS)


async def _new_account(client: httpx.AsyncClient) -> dict[str, str]:
    """The authorization header of a new account, made before anything is deployed.

    Repeated: a busy machine hashes no password within the time of a request.
    """
    account = {"email": f"{uuid4().hex}@upgrade.example", "password": "a password of the upgrade"}
    async with asyncio.timeout(ORDERS_WITHIN_SECONDS):
        while True:
            await client.post("/users", json={**account, "name": "Upgrade"})
            session = await client.post("/auth/login", json=account)
            if session.status_code == 200:
                return {"authorization": f"Bearer {session.json()['accessToken']}"}
            await asyncio.sleep(CUSTOMER_PAUSE_SECONDS)


def _replace_all(environment: Environment) -> None:
    """Ends every process after its requests; others start with the next ones."""
    for pool in environment.pools():
        for process in list(pool.processes):
            pool.retire(process)


async def _replace_processes(environment: Environment) -> None:
    """Kills processes and ends others after their requests, until cancelled."""
    while True:
        await asyncio.sleep(REPLACED_EVERY_SECONDS)
        process = environment.choose_process()
        if process is None:
            continue
        if environment.random.random() < 0.5:
            process.child.signal_group(signal.SIGKILL)
        else:
            environment.pool_of(process).retire(process)


def _ignore(_line: object) -> None:
    """Samples of the workload are not recorded."""


def main() -> int:
    """Runs the test and prints its result; 1 after a violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(".shop/upgrade"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--release", choices=sorted(COMMITS), default=RELEASE)
    parser.add_argument("--orders", type=int, default=ORDERS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    chosen = parser.parse_args()
    result = run_upgrade_test(
        chosen.data,
        chosen.seed,
        release=chosen.release,
        orders=chosen.orders,
        seconds=chosen.seconds,
    )
    print(result.text)
    print(f"responses until the faults: {dict(sorted(result.statuses.items()))}")
    for violation in result.violations:
        print(f"VIOLATION {violation}")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
