"""``shop dev`` for developers: addresses, log-ins, reloaded source, errors with their line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.waiting import WAIT_SECONDS, wait_for
from tools.local_platform.error_report import find_error
from tools.local_platform.servers import free_port
from tools.local_platform.source_files import SourceFiles
from tools.seed import LOCAL_ACCOUNTS

ROOT = Path(__file__).parents[3]
CODE = ("events", "functions", "shop", "tools")
START_SECONDS = 110.0
HANDLER = Path("functions/api_docs/handler.py")


@dataclass
class Development:
    """A running ``shop dev`` over a copy of the source."""

    root: Path
    port: int
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list[str])

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
                return response.status, response.read()
        except HTTPError as error:
            return error.code, error.read()

    def edit(self, old: str, new: str) -> None:
        source = (self.root / HANDLER).read_text("utf-8")
        assert old in source
        (self.root / HANDLER).write_text(source.replace(old, new, 1), "utf-8")

    def wait_for_line(self, start: str) -> str:
        return wait_for(
            lambda: next((line for line in self.lines if line.startswith(start)), None),
            f"a line {start!r}",
            START_SECONDS,
        )

    def wait_for_status(self, path: str, status: int) -> bytes:
        """The body of the first response with a status: source is read five times a second."""

        def body() -> bytes | None:
            received, content = self.get(path)
            return content if received == status else None

        return wait_for(body, f"{status} from {path}")

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> Generator[Development]:
    root = tmp_path_factory.mktemp("source")
    for name in CODE:
        shutil.copytree(ROOT / name, root / name)  # with its bytecode, which stays valid
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.cli", "dev", "--port", str(port), "--data", "data"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "DATABASE_URL": "", "REDIS_URL": ""},
    )
    running = Development(root, port, process)
    reader = threading.Thread(target=running.read, daemon=True)
    reader.start()
    try:
        running.wait_for_line("ready ")
        yield running
        process.send_signal(signal.SIGINT)
        process.wait(WAIT_SECONDS)
    finally:
        process.kill()
        process.wait()
        reader.join()


def test_start_prints_addresses_log_ins_and_the_folder_of_logs(development: Development) -> None:
    lines = development.lines

    for role, email, password in LOCAL_ACCOUNTS:
        assert f"account {role}: {email} {password}" in lines
    assert f"shop http://127.0.0.1:{development.port}/" in lines
    assert f"back office http://127.0.0.1:{development.port}/admin" in lines
    live = development.wait_for_line("live view ").removeprefix("live view ")
    with urlopen(f"{live}due", timeout=60) as response:
        assert all(job.keys() == {"kind", "jobs", "due", "nextAt"} for job in json.load(response))
    assert f"api pages http://127.0.0.1:{development.port}/api-docs" in lines
    assert "logs data/log" in lines
    assert (development.root / "data/log").is_dir()


def test_changed_source_is_used_by_the_next_request_and_its_error_has_file_line_and_trace(
    development: Development,
) -> None:
    assert development.get("/v3/api-docs")[0] == 200
    old = '    return _file(RENDERED, "openapi.json", JSON)'

    development.edit(old, '    raise ZeroDivisionError("edited")')
    problem = json.loads(development.wait_for_status("/v3/api-docs", 500))

    lines = (development.root / HANDLER).read_text("utf-8").splitlines()
    number = 1 + next(n for n, line in enumerate(lines) if "ZeroDivisionError" in line)
    error = development.wait_for_line("error api_docs: ")
    assert problem["error"] == "INTERNAL"
    assert error.startswith(
        f"error api_docs: ZeroDivisionError: edited at {HANDLER}:{number} "
        f"(trace {problem['traceId']})"
    )
    assert f"reload api_docs: {HANDLER} changed" in development.lines

    development.edit('    raise ZeroDivisionError("edited")', old)
    development.wait_for_status("/v3/api-docs", 200)


def test_shared_source_is_part_of_every_functions_version_and_another_functions_is_not(
    tmp_path: Path,
) -> None:
    for name in ("events/event.py", "functions/cart/handler.py", "functions/login/handler.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    before = SourceFiles(tmp_path).version("cart")

    os.utime(tmp_path / "functions/login/handler.py", (2e9, 2e9))
    after_other = SourceFiles(tmp_path).version("cart")
    os.utime(tmp_path / "events/event.py", (2e9, 2e9))
    after_shared = SourceFiles(tmp_path).version("cart")

    assert after_other == before
    assert after_shared.path == "events/event.py"
    assert after_shared != before


def test_error_of_another_trace_is_not_reported() -> None:
    log = '{"trace": "a1", "traceback": "ValueError: x"}\nno JSON'

    assert find_error(log, "b2") is None
    assert str(find_error(log, "a1")) == "ValueError: x at an unknown line (trace a1)"
