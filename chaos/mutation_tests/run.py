"""Runs the fault harness against one mutant and says whether it was found.

The mutant lives in a scratch copy of the tracked files, with its own folder for temporary files, so
nothing of it can meet the checkout.  Whatever still runs from the scratch folder when the harness
has ended, or its time is over, is killed before the folder is removed.
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chaos.mutation_tests.mutant import Mutant, mutated_files

HARNESS = (sys.executable, "-m", "tools.cli", "faults", "--tier", "smoke", "--fail-fast")
LIMIT_SECONDS = 8 * 60.0
GRACE_SECONDS = 15.0
OUTPUT_SHOWN = 300
CAUGHT_STATUS = 1
PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Settings:
    """How the harness is run, the same for every mutant; ``orders`` None leaves it to the tier."""

    root: Path
    seed: int = 1
    orders: int | None = None
    limit_seconds: float = LIMIT_SECONDS
    harness: tuple[str, ...] = HARNESS


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant; ``by`` names the broken expectations, ``detail`` an error."""

    mutant: Mutant
    state: Literal["caught", "survived", "error"]
    by: tuple[str, ...]
    seconds: float
    detail: str = ""


def run(mutant: Mutant, settings: Settings) -> Verdict:
    """Runs the harness on ``mutant``; raises ``DoesNotApply`` before anything is started."""
    texts = mutated_files(mutant, settings.root)
    began = time.monotonic()
    with _scratch() as scratch:
        tree, out = scratch / "tree", scratch / "out"
        _copy(settings.root, tree)
        for file, text in texts.items():
            (tree / file).write_text(text)
        status = _run_harness(settings, scratch)
        named = broken_in(out / "run.jsonl")
        tail = (scratch / "log").read_text(errors="replace").strip()[-OUTPUT_SHOWN:]
    return judge(mutant, status, named, time.monotonic() - began, tail)


def judge(
    mutant: Mutant, status: int | None, named: tuple[str, ...], seconds: float, tail: str = ""
) -> Verdict:
    """The verdict on an ended run; ``status`` None means that its time was over.

    Only a run that ended by itself and named what was broken is a catch: a shop that does not even
    start, or a harness that falls over, proves nothing.
    """
    if status == 0 and not named:
        return Verdict(mutant, "survived", (), seconds)
    if status == CAUGHT_STATUS and named:
        return Verdict(mutant, "caught", named, seconds)
    why = "no end in time" if status is None else f"status {status}"
    return Verdict(mutant, "error", named, seconds, f"{why}: {tail}")


def broken_in(record: Path) -> tuple[str, ...]:
    """Ids of the expectations that a run's record says did not hold, each once, in order."""
    if not record.is_file():
        return ()
    named = [name for line in record.read_text().splitlines() if (name := _broken_name(line))]
    return tuple(dict.fromkeys(named))


def _broken_name(line: str) -> str | None:
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return None  # the last line of a run that was killed may be half a line
    if not isinstance(entry, dict):
        return None
    broken, check = entry.get("broken"), entry.get("check")
    if isinstance(broken, dict):
        return str(broken.get("id"))
    if isinstance(check, dict) and check.get("holds") is False:
        return str(check.get("id"))
    return None


# ---------------------------------------------------------------- the scratch copy


@contextmanager
def _scratch() -> Iterator[Path]:
    # a short name: sockets of servers lie below it, and their paths have at most 107 bytes
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
    """Its exit status, or None when it had to be killed."""
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
    """Asks first, so that the platform can stop its servers; then kills what is left."""
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
    """Kills processes that left the harness's group (servers do): they work inside the folder."""
    if not PROCESSES.is_dir():
        return
    for entry in PROCESSES.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(scratch):
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue  # it has ended, or is somebody else's
