"""Executes a fault run against one mutant and determines whether it was detected.

The mutant is a copy of the tracked files in a scratch folder, with a separate temporary folder.
Processes that still run from the scratch folder after the run, or after its time limit, are killed
before the folder is removed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from chaos.controlled_process import JsonObject
from chaos.mutation_tests.mutant import Mutant, mutated_files

HARNESS = (sys.executable, "-m", "tools.cli", "faults", "--tier", "smoke", "--fail-fast")
LIMIT_SECONDS = 8 * 60.0
GRACE_SECONDS = 15.0
OUTPUT_SHOWN = 300
CAUGHT_STATUS = 1
PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Settings:
    """The parameters of every run; without ``orders`` the tier's number is used."""

    root: Path
    seed: int = 1
    orders: int | None = None
    limit_seconds: float = LIMIT_SECONDS
    harness: tuple[str, ...] = HARNESS


@dataclass(frozen=True)
class Verdict:
    """The result of one mutant; ``by`` are the ids of violations, ``detail`` explains an error."""

    mutant: Mutant
    state: Literal["caught", "survived", "error"]
    by: tuple[str, ...]
    seconds: float
    detail: str = ""


def run(mutant: Mutant, settings: Settings) -> Verdict:
    """Executes a run against ``mutant``; raises ``DoesNotApply`` before anything is started."""
    texts = mutated_files(mutant, settings.root)
    began = time.monotonic()
    with _scratch() as scratch:
        tree, out = scratch / "tree", scratch / "out"
        _copy(settings.root, tree)
        for file, text in texts.items():
            (tree / file).write_text(text)
        status = _run_harness(settings, scratch)
        violations = violations_in(out / "run.jsonl")
        tail = (scratch / "log").read_text(errors="replace").strip()[-OUTPUT_SHOWN:]
    return verdict_of(mutant, status, violations, time.monotonic() - began, tail)


def verdict_of(
    mutant: Mutant, status: int | None, violations: tuple[str, ...], seconds: float, tail: str = ""
) -> Verdict:
    """The verdict from a run's exit status; ``status`` is None after its time limit.

    The mutant is caught only if the run ended by itself and reported a violation: a shop that does
    not start or a failure of the harness proves nothing.
    """
    if status == 0 and not violations:
        return Verdict(mutant, "survived", (), seconds)
    if status == CAUGHT_STATUS and violations:
        return Verdict(mutant, "caught", violations, seconds)
    reason = "time limit exceeded" if status is None else f"status {status}"
    return Verdict(mutant, "error", violations, seconds, f"{reason}: {tail}")


def violations_in(record: Path) -> tuple[str, ...]:
    """The ids of the violations and failed checks in ``run.jsonl``, each once, in order."""
    if not record.is_file():
        return ()
    ids = [id for line in record.read_text().splitlines() if (id := _violation_id(line))]
    return tuple(dict.fromkeys(ids))


def _violation_id(line: str) -> str | None:
    try:
        document: object = json.loads(line)
    except ValueError:
        return None  # the last line of a run that was killed may be incomplete
    if not isinstance(document, dict):
        return None
    # the lines are those of chaos.report.json_lines: an object per label
    entry = cast(dict[str, JsonObject], document)
    if violation := entry.get("violation"):
        return str(violation["id"])
    check = entry.get("check")
    return str(check["id"]) if check is not None and not check["has_passed"] else None


# ---------------------------------------------------------------- the scratch copy


@contextmanager
def _scratch() -> Generator[Path, None, None]:
    # a short name: paths of the servers' sockets have at most 107 bytes
    scratch = Path(tempfile.mkdtemp(prefix="m-")).resolve()
    (scratch / "t").mkdir()
    try:
        yield scratch
    finally:
        _end_all_in(scratch)
        shutil.rmtree(scratch, ignore_errors=True)


def _copy(root: Path, tree: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True)
    for name in listed.stdout.decode().split("\0"):
        source = root / name
        if name and source.is_file():
            target = tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


# ---------------------------------------------------------------- the harness


def _run_harness(settings: Settings, scratch: Path) -> int | None:
    """The exit status of the run; None when it was killed after its time limit."""
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(
            [*settings.harness, *_options(settings, scratch / "out")],
            cwd=scratch / "tree",
            env={
                **os.environ,
                "PYTHONPATH": str(scratch / "tree"),
                "PYTHONPYCACHEPREFIX": str(scratch / "pyc"),
                "TMPDIR": str(scratch / "t"),
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            return process.wait(settings.limit_seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end_group(process)


def _options(settings: Settings, out: Path) -> list[str]:
    options = ["--seed", str(settings.seed), "--out", str(out)]
    if settings.orders is not None:
        options += ["--orders", str(settings.orders)]
    return options


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Terminates first, so that the platform can stop its servers; then kills the rest."""
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _end_all_in(scratch: Path) -> None:
    """Kills processes outside of the run's process group, such as servers, by their folder."""
    if not PROCESSES.is_dir():
        return
    for entry in PROCESSES.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(scratch):
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue  # the process has exited or belongs to another user
