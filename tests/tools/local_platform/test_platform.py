"""The platform as one command: start, status, shutdown, and no process left after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest

from tools.local_platform.http_listener import listen
from tools.local_platform.servers import free_port

STUB_PLATFORM = Path(__file__).with_name("stub_platform.py")
ROOT = Path(__file__).parents[3]
SECONDS = 30.0
PROC = Path("/proc/self/stat")


@dataclass
class PlatformProcess:
    """A started platform process and the lines it has printed."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str] = field(default_factory=list)

    def read_until(self, start: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return self.lines[-1]
        raise AssertionError(f"no line {start!r} in {self.lines}; exit {self.process.wait()}")

    def get(self, path: str) -> int:
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as response:
            status: int = response.status
            return status

    def finish(self) -> int:
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait(timeout=SECONDS)


@contextmanager
def started_platform(folder: Path, port: int | None = None) -> Generator[PlatformProcess]:
    port = port or free_port()
    command = [sys.executable, str(STUB_PLATFORM), str(port), str(folder / "data")]
    process = subprocess.Popen(
        [*command, str(folder / "record.jsonl")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": "", "REDIS_URL": ""},
    )
    try:
        yield PlatformProcess(process, port)
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def processes() -> dict[int, tuple[int, str]]:
    """The parent and the state of every process: from ps, which every POSIX system has."""
    if PROC.exists():
        return dict(_processes_of_linux())  # a slim Linux has no ps
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], check=True, capture_output=True, text=True
    )
    rows = (line.split() for line in listed.stdout.splitlines())
    return {int(pid): (int(parent), state[0]) for pid, parent, state in rows}


def _processes_of_linux() -> Iterator[tuple[int, tuple[int, str]]]:
    for stat in PROC.parent.parent.glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has exited since it was listed
            continue
        yield int(stat.parent.name), (int(parent), state)


def descendants(pid: int) -> set[int]:
    """All processes below one."""
    parents = {child: parent for child, (parent, _) in processes().items()}
    found: set[int] = set()
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found |= level
    return found


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + SECONDS
    while left := pids & running():
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.02)


def running() -> set[int]:
    return {pid for pid, (_, state) in processes().items() if state != "Z"}


def test_platform_serves_and_leaves_no_process_after_sigint(tmp_path: Path) -> None:
    with started_platform(tmp_path) as platform:
        platform.read_until("ready ")
        assert platform.lines[-1] == f"ready http://127.0.0.1:{platform.port}"
        assert "account customer: customer@shop.test start-1" in platform.lines
        assert platform.get("/echo") == 200
        started = descendants(platform.process.pid)
        assert len(started) >= 5  # PostgreSQL, Redis, simulator, watchdog, one function

        platform.process.send_signal(signal.SIGINT)

        assert platform.finish() == 0
        assert sum(line.startswith("ready ") for line in platform.lines) == 1
        assert any(line.startswith("start web #1 (pid ") for line in platform.lines)
        assert platform.lines[-1].startswith("summary: 1 requests, 1 starts, 0 events")
        wait_until_gone(started)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_signal_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    with started_platform(tmp_path) as platform:
        platform.read_until("ready ")
        platform.get("/echo")
        started = descendants(platform.process.pid)

        platform.process.send_signal(number)

        platform.process.wait(timeout=SECONDS)
        wait_until_gone(started)


def test_start_after_a_kill_uses_the_same_data(tmp_path: Path) -> None:
    with started_platform(tmp_path) as first:
        first.read_until("ready ")
        first.process.kill()

    began = time.monotonic()
    with started_platform(tmp_path) as second:
        second.read_until("ready ")
        assert time.monotonic() - began < 10
        assert "account customer: customer@shop.test start-2" in second.lines


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Path, PlatformProcess]]:
    """A platform that is ready, and its folder."""
    folder = tmp_path_factory.mktemp("platform")
    with started_platform(folder) as platform:
        platform.read_until("ready ")
        yield folder, platform


def test_data_folder_in_use_exits_with_1(shared: tuple[Path, PlatformProcess]) -> None:
    folder, first = shared
    with started_platform(folder) as second:
        assert second.finish() == 1
        assert second.lines == [
            f"shop dev: {folder / 'data'} is in use by another platform (pid {first.process.pid})"
        ]
    assert first.get("/echo") == 200


def test_port_in_use_exits_with_1(tmp_path: Path) -> None:
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with started_platform(tmp_path, port) as platform:
            assert platform.finish() == 1
            assert len(platform.lines) == 1
            assert platform.lines[0].startswith(f"shop dev: port {port} cannot be used")


def test_status_shows_processes_and_counters(shared: tuple[Path, PlatformProcess]) -> None:
    folder, platform = shared
    platform.get("/echo")
    address = (folder / "data" / "internal.url").read_text(encoding="ascii")

    with urlopen(f"{address}status", timeout=20) as response:
        status = json.load(response)

    assert list(status["processes"]) == ["web"]
    assert status["pending"] == 0
    assert status["counters"]["requests"] >= 1
