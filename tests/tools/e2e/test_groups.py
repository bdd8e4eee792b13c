"""Every e2e group against the local platform with duplicated, reordered and lost events and kills.

The local platform runs PostgreSQL, Redis, broker, provider, and each function as a process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.e2e.run import GROUPS
from tools.local_platform.servers import free_port

SHOP = (sys.executable, "-m", "tools.cli")
READY_SECONDS = 90.0
STOP_SECONDS = 60.0
FAULTS = ("--duplicate", "0.3", "--reorder", "0.3", "--lose", "0.05", "--kill", "0.05")
# High enough for the groups before rate-limit, low enough for that group to exceed quickly.
LIMIT = "600"
# Waits for payment retries.  rate-limit waits too, but its requests get functions killed often.
BACKGROUND_GROUPS = ("order",)

Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class LocalPlatform:
    """A running ``shop dev``."""

    url: str
    data: Path


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Generator[LocalPlatform]:
    """``shop dev`` with faults and a data folder of its own; it must stop on SIGINT."""
    data = tmp_path_factory.mktemp("platform")
    port = free_port()
    process = subprocess.Popen(
        [*SHOP, "dev", "--port", str(port), "--data", str(data), *FAULTS, "--seed", "7"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RATE_LIMIT_PER_MINUTE": LIMIT},
    )
    lines: list[str] = []
    is_ready = threading.Event()
    reader = threading.Thread(target=_read, args=(process, lines, is_ready), daemon=True)
    reader.start()
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready.wait(0.1):
            assert process.poll() is None, "".join(lines)
            assert time.monotonic() < deadline, "".join(lines)
        yield LocalPlatform(f"http://127.0.0.1:{port}", data)
        process.send_signal(signal.SIGINT)
        process.wait(STOP_SECONDS)
    finally:
        process.kill()
        process.wait()
        reader.join()


def _read(process: subprocess.Popen[str], lines: list[str], is_ready: threading.Event) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if line.startswith("ready "):
            is_ready.set()


@pytest.fixture(scope="module")
def started(platform: LocalPlatform) -> Generator[dict[str, Future[Result]]]:
    """The runs of the groups that mostly wait, started in the background."""
    with ThreadPoolExecutor(len(BACKGROUND_GROUPS)) as pool:
        yield {group: pool.submit(_run_group, platform, group) for group in BACKGROUND_GROUPS}


def _run_group(platform: LocalPlatform, group: str) -> Result:
    secret = platform.data / "secrets" / "webhook-secret"
    options = ["--url", platform.url, "--group", group, "--webhook-secret-file", str(secret)]
    return subprocess.run(
        [*SHOP, "e2e", *options], capture_output=True, text=True, timeout=470, check=False
    )


@pytest.mark.timeout(480)
@pytest.mark.parametrize("group", GROUPS)
def test_group_passes_while_events_are_lost_and_functions_killed(
    platform: LocalPlatform, started: dict[str, Future[Result]], group: str
) -> None:
    run = started[group].result() if group in started else _run_group(platform, group)

    assert run.returncode == 0, run.stdout + run.stderr
    passed, failed = run.stdout.splitlines()[-1].split(", ")
    assert failed == "0 failed"
    assert int(passed.removesuffix(" passed")) == run.stdout.count("\nok  ") > 0
