"""A warm interpreter: ``python -m chaos.fork_server``; function processes are forked from it.

It imports what the functions need, prints ``{"ready": true}`` and takes commands on stdin, one JSON
line each: ``{"id": …, "do": "fork", "function": …, "environment": {…}, "log": …}``, answered with
the process's id.  When a process ends it says ``{"ended": <pid>, "code": …}``, negative for a
signal.  It has one thread, as forking wants, and ends with its input.
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
from typing import Any, NoReturn

import shop
import shop.adapters.payment_provider
import shop.runtime
from shop.registry import all_specs
from shop.runtime.server import serve

# Imported late by those who need them; and what no function of a fault run needs.
LATE = (
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "granian.http",
    "granian.server",
    "jwt",
    "shop.adapters.payment_provider.simulator",
)
NEVER = frozenset(("shop.runtime.__main__", "shop.runtime.framework", "shop.runtime.otlp"))
DESCRIPTORS_MAX = 1024
CHUNK = 65_536


def main() -> None:
    """Runs until the end of input."""
    warm_up()
    gc.collect()
    gc.freeze()  # pages that nobody writes to stay shared
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    _say({"ready": True})
    rest = b""
    while True:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable:
            os.read(woken, CHUNK)
            _tell_who_ended()
        if 0 in readable:
            chunk = os.read(0, CHUNK)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                _fork(json.loads(line))


def warm_up() -> None:
    """Imports what a function process imports until its first answers."""
    for package in (shop, shop.runtime, shop.adapters.payment_provider):
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            if module.name not in NEVER and "stripe" not in module.name:
                import_module(module.name)
    for name in LATE:
        import_module(name)
    for spec in all_specs():
        for part in ("handler", "schema"):
            if find_spec(f"functions.{spec.name}.{part}"):
                import_module(f"functions.{spec.name}.{part}")


def _fork(command: dict[str, Any]) -> None:
    pid = os.fork()
    if pid == 0:
        _become(command)
    _say({"id": command["id"], "pid": pid})


def _become(command: dict[str, Any]) -> NoReturn:
    """What exec would have done, as far as a function can see it; then the function."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        log = os.open(command["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, number in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, number)
        os.closerange(3, DESCRIPTORS_MAX)
        os.environ.clear()
        os.environ.update(command["environment"])
        code = serve([command["function"]])
    finally:
        if error := sys.exception():
            traceback.print_exception(error)
        os._exit(code)  # never back into the interpreter that it was forked from


def _tell_who_ended() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _say(line: dict[str, Any]) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()
