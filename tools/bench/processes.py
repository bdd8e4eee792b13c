"""Starts, measures and ends the processes of a benchmark: first response, CPU time, memory."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 30.0
POLL_SECONDS = 0.001
PR_SET_CHILD_SUBREAPER = 36
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Process:
    """One server process and its descendants."""

    command: list[str]
    environment: Mapping[str, str]
    cwd: str = "/"
    pid: int = field(default=0, init=False)
    began: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Runs the command; its output is discarded."""
        self.began = time.perf_counter()
        self._popen = subprocess.Popen(
            self.command,
            env=dict(self.environment),
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._popen.pid

    def first_response(
        self, port: int, request: bytes, *, start_seconds: float = START_SECONDS
    ) -> bytes:
        """The response to a request that is sent as soon as the port accepts a connection."""
        deadline = time.monotonic() + start_seconds
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(
                    ("127.0.0.1", port), timeout=start_seconds
                ) as connection:
                    connection.sendall(request)
                    return read_response(connection)
            except ConnectionError:
                if self._popen.poll() is not None:
                    break
                time.sleep(POLL_SECONDS)
        raise RuntimeError(f"{self.command} did not respond on port {port}")

    def tree(self) -> list[int]:
        """The process and its descendants."""
        found: list[int] = []
        rest = [self.pid]
        while rest:
            pid = rest.pop()
            found.append(pid)
            rest += _children(pid)
        return found

    def memory_kib(self) -> tuple[int, int]:
        """Resident and proportional set size of the process tree."""
        rss = pss = 0
        for pid in self.tree():
            sizes = _sizes(pid)
            rss, pss = rss + sizes.get("Rss", 0), pss + sizes.get("Pss", 0)
        return rss, pss

    def cpu_seconds(self) -> float:
        """CPU time of the process tree so far, with the resolution of the kernel's clock tick."""
        return sum(cpu_seconds_of(pid) for pid in self.tree())

    def kill(self) -> float:
        """Kills the process tree; returns the CPU seconds it used, with microsecond resolution."""
        tree = self.tree()
        with adopting_orphans():
            for pid in tree:
                _signal(pid, signal.SIGKILL)
            used = sum(_reap(pid) for pid in tree)
        self._popen.returncode = -signal.SIGKILL
        return used

    def wait(self, timeout_seconds: float) -> int:
        """The exit status, once the process has ended."""
        return self._popen.wait(timeout_seconds)


@contextmanager
def adopting_orphans() -> Generator[None]:
    """Makes this process the parent of orphaned descendants, so that wait4 reports their usage."""
    _set_subreaper(1)
    try:
        yield
    finally:
        _set_subreaper(0)


def _set_subreaper(value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, value, 0, 0, 0)


def read_response(connection: socket.socket) -> bytes:
    """One complete HTTP/1.1 response with a Content-Length or no body.

    Raises ConnectionError when the connection ends before it.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = content_length(head)
    while len(body) < length:
        body += _more(connection)
    return head + b"\r\n\r\n" + body


def content_length(head: bytes) -> int:
    """The Content-Length in a response's head, 0 when it has none."""
    position = head.lower().find(b"content-length:")
    return int(head[position + 15 :].split(b"\r\n", 1)[0]) if position >= 0 else 0


def cpu_seconds_of(pid: int, *, with_ended_children: bool = False) -> float:
    """User and system time of one process; 0 when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    last = 15 if with_ended_children else 13
    return sum(int(ticks) for ticks in fields[11:last]) / CLOCK_TICKS


def cpu_seconds_of_tree(pid: int) -> float:
    """CPU time of a server, its children, and its children that have ended."""
    living = sum(cpu_seconds_of(child) for child in _children(pid))
    return living + cpu_seconds_of(pid, with_ended_children=True)


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise ConnectionError("the connection was closed before the response")
    return data


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(c) for task in tasks for c in (task / "children").read_text().split()]
    except OSError:
        return []


def _sizes(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {words[0].rstrip(":"): int(words[1]) for words in pairs}


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _reap(pid: int) -> float:
    try:
        _, _, usage = os.wait4(pid, 0)
    except ChildProcessError:  # its parent reaped it: the time is counted there
        return 0.0
    return usage.ru_utime + usage.ru_stime


def own_cpu_seconds() -> float:
    """CPU time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
