"""The fork server: ``python -m chaos.fork_server``; function processes are forked from it.

It imports what the functions need, prints ``{"ready": true}`` and reads commands from standard
input, one JSON line each: ``{"id": …, "do": "fork", "function": …, "environment": {…}, "log": …}``.
It replies with the process id.  When a process exits it prints ``{"exited": <pid>, "code": …}``,
with a negative code for a signal.  It has one thread, because only the forking thread survives a
fork.  At the end of its input, or at SIGTERM, it kills the processes that still run, and exits.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import traceback
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import FrameType
from typing import NoReturn

import shop
import shop.adapters.payment_provider
import shop.runtime
from chaos.controlled_process import JsonObject
from shop.registry import all_specs
from shop.runtime.server import serve

# Modules that are imported on first use; and those that no function of a run needs.
IMPORTED_ON_USE = (
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "jwt",
    "shop.adapters.payment_provider.simulator",
)
NOT_NEEDED = frozenset(("shop.runtime.__main__", "shop.runtime.framework", "shop.runtime.otlp"))
DESCRIPTORS_MAX = 1024
CHUNK = 65_536


def main() -> None:
    """Runs until the end of input."""
    import_functions()
    gc.collect()
    gc.freeze()  # keeps the memory pages shared after a fork
    exits, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.signal(signal.SIGCHLD, _ignore_signal)
    signal.signal(signal.SIGTERM, _exit)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    _print({"ready": True})
    running: set[int] = set()
    try:
        _serve(exits, running)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)


def _serve(exits: int, running: set[int]) -> None:
    """Forks and reports exits until the end of input; keeps ``running`` up to date."""
    rest = b""
    while True:
        readable, _, _ = select.select([0, exits], [], [])
        if exits in readable:
            os.read(exits, CHUNK)
            _report_exits(running)
        if 0 in readable:
            chunk = os.read(0, CHUNK)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                running.add(_fork(json.loads(line)))


def import_functions() -> None:
    """Imports everything that a function process imports until its first response."""
    for package in (shop, shop.runtime, shop.adapters.payment_provider):
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            if module.name not in NOT_NEEDED and "stripe" not in module.name:
                import_module(module.name)
    for name in IMPORTED_ON_USE:
        import_module(name)
    for spec in all_specs():
        for part in ("handler", "schema"):
            if find_spec(f"functions.{spec.name}.{part}"):
                import_module(f"functions.{spec.name}.{part}")


def _ignore_signal(_number: int, _frame: FrameType | None) -> None:
    """SIGCHLD needs a handler, so that the wakeup descriptor is written to."""


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _fork(command: JsonObject) -> int:
    pid = os.fork()
    if pid == 0:
        _run_function(command)
    _print({"id": command["id"], "pid": pid})
    return pid


def _run_function(command: JsonObject) -> NoReturn:
    """Sets up the forked process as exec would, then serves the function."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        log = os.open(command["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for descriptor, number in ((null, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, number)
        os.closerange(3, DESCRIPTORS_MAX)
        os.environ.clear()
        os.environ.update(command["environment"])
        code = serve([command["function"]])
    finally:
        if error := sys.exception():
            traceback.print_exception(error)
        os._exit(code)  # without the cleanup of the interpreter that it was forked from


def _report_exits(running: set[int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        running.remove(pid)
        _print({"exited": pid, "code": os.waitstatus_to_exitcode(status)})


def _print(line: JsonObject) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()
