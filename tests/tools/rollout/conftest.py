"""A shop with one function on the stand-in of Serving, and ``shop rollout`` as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import Random
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.tools.rollout.serving import Revision, Serving, api_server, serve, write_kubeconfig

ROOT = Path(__file__).resolve().parents[3]
SERVICE = "shop-list-products"
STABLE, CANDIDATE = f"{SERVICE}-00001", f"{SERVICE}-00002"
FAST = ("--check-seconds=0.1", "--step-seconds=0.1", "--step-seconds-max=20", "--smoke-from=")


@dataclass
class Pod:
    """An HTTP server that answers and logs as a function does."""

    status: int = 200
    milliseconds: float = 5.0
    startup_ms: int | None = None
    lines: list[str] = field(default_factory=list[str])

    def answer(self) -> int:
        """The status of the next request, and its line in the log."""
        is_cold = self.startup_ms is not None and not self.lines
        line = {
            "at": datetime.now(UTC).isoformat(),
            "message": "answered",
            "status": self.status,
            "milliseconds": self.milliseconds,
        }
        cold = {"cold": True, "startup_ms": self.startup_ms} if is_cold else {}
        self.lines.append(json.dumps(line | cold))
        return self.status


class Shop:
    """Revisions of one function, requests to it, and the command under test."""

    def __init__(self, serving: Serving, kubeconfig: Path, stack: ExitStack) -> None:
        self.serving, self._stack = serving, stack
        self.statuses: list[int] = []
        programs = f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "PATH": programs}

    def deploy(
        self,
        name: str,
        pod: Pod,
        *,
        ready: str = "True",
        message: str = "",
        service: str = SERVICE,
    ) -> None:
        """A new revision with one pod."""
        url = self._stack.enter_context(pod_server(pod))
        revision = Revision(name, url, ready, message, lambda: list(pod.lines))
        self.serving.deploy(service, revision)

    def command(self, *arguments: str) -> list[str]:
        """A ``shop rollout`` command line."""
        return [sys.executable, "-m", "tools.cli", "rollout", *arguments]

    def rollout(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs ``shop rollout`` to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts ``shop rollout``."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def customers(self) -> Generator[None]:
        """Requests through the ingress, one after another, while the block runs."""
        ended, random = threading.Event(), Random(7)

        def send() -> None:
            while not ended.wait(0.005):
                url = self.serving.route(SERVICE, random).url
                self.statuses.append(status_of(f"{url}/products"))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def status_of(url: str) -> int:
    """The status of a GET."""
    try:
        with urlopen(url, timeout=10) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code


@contextmanager
def pod_server(pod: Pod) -> Generator[str]:
    """The URL of a pod."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._end(200 if self.path.startswith("/health") else pod.answer())

        def do_POST(self) -> None:
            self._end(401)

        def _end(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serve(Handler) as url:
        yield url


@pytest.fixture
def make_shop(tmp_path: Path) -> Generator[Callable[[], Shop]]:
    """Makes a shop without a revision."""
    with ExitStack() as stack:

        def make() -> Shop:
            serving = Serving()
            url = stack.enter_context(api_server(serving))
            return Shop(serving, write_kubeconfig(tmp_path / "kubeconfig", url), stack)

        yield make


@pytest.fixture
def shop(make_shop: Callable[[], Shop]) -> Shop:
    """A shop whose stable revision has all requests by name, as after ``shop rollout pin``."""
    made = make_shop()
    made.deploy(STABLE, Pod())
    document = made.serving.services[SERVICE]
    target = {"revisionName": STABLE, "percent": 100}
    document["spec"]["traffic"], document["status"]["traffic"] = [target], [target]
    return made
