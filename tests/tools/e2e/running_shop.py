"""A ``shop dev`` of its own, and ``shop e2e`` against it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.local_platform.servers import free_port

SHOP = (sys.executable, "-m", "tools.cli")
READY_SECONDS = 90.0
STOP_SECONDS = 60.0

Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class RunningShop:
    """A running ``shop dev``."""

    port: int
    data: Path

    @property
    def url(self) -> str:
        """The address of its edge."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def mail_catcher_url(self) -> str:
        """The address of its mail catcher."""
        return self._setting("MAIL_CATCHER_URL")

    @property
    def database_url(self) -> str:
        """Its database, as the owner of the tables."""
        return self._setting("DATABASE_URL")

    @property
    def simulator_url(self) -> str:
        """The address of its payment simulator."""
        return self._setting("PAYMENT_SIMULATOR_URL")

    def _setting(self, name: str) -> str:
        settings = (self.data / "operator.env").read_text("utf-8")
        (value,) = re.findall(f"^export {name}=(.+)$", settings, re.MULTILINE)
        return value


@contextmanager
def running_shop(
    data: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Generator[RunningShop]:
    """``shop dev`` with a data folder of its own while the block runs; it must stop on SIGINT."""
    port = free_port()
    process = subprocess.Popen(
        [*SHOP, "dev", "--port", str(port), "--data", str(data), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
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
        yield RunningShop(port, data)
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


def run_group(shop: RunningShop, group: str, *, url: str = "") -> Result:
    """Runs one group, against another address of the shop if one is given."""
    secret = shop.data / "secrets" / "webhook-secret"
    options = ["--url", url or shop.url, "--group", group, "--webhook-secret-file", str(secret)]
    options += ["--catcher-url", shop.mail_catcher_url, "--simulator-url", shop.simulator_url]
    return subprocess.run(
        [*SHOP, "e2e", *options], capture_output=True, text=True, timeout=470, check=False
    )


def assert_all_passed(run: Result) -> None:
    """The run made checks, and each of them passed."""
    assert run.returncode == 0, run.stdout + run.stderr
    passed, failed = run.stdout.splitlines()[-1].split(", ")
    assert failed == "0 failed"
    assert int(passed.removesuffix(" passed")) == run.stdout.count("\nok  ") > 0
