"""The WSGI server: granian, chosen by measurement (docs/adr/0008).

A small parent keeps the port and the signals; one worker, forked before anything heavy is imported,
serves with as many threads as the function's concurrency (and one more for probes).  Idle
connections are kept 120 s (queue-proxy reuses them for 90), SIGTERM drains, nothing is written to
disk.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.util import Finalize
from typing import Any

from shop.primitives import failpoints
from shop.primitives.spec import FunctionSpec
from shop.registry import spec_of
from shop.runtime import config
from shop.runtime.app import App
from shop.runtime.bootstrap import make_app, settings_of
from shop.runtime.telemetry import seconds_since_start
from shop.runtime.wsgi import wsgi

KEEP_ALIVE_MILLISECONDS = 120_000
DRAIN_SECONDS = 20
BAD_SETTINGS = 2


def serve(names: list[str]) -> int:
    """Serves the named functions until SIGTERM; returns the exit status."""
    specs = tuple(spec_of(name) for name in names)
    try:
        settings = settings_of(specs)
    except config.ConfigurationError as error:
        sys.stderr.write(f"the settings are wrong:\n{error}\n")
        return BAD_SETTINGS
    threads = settings.threads or sum(spec.scale.concurrency for spec in specs)
    gc.disable()  # imports make no garbage worth looking for: 8 to 10 % of a cold start
    alive, parent = os.pipe()
    server = _server(threads)
    server.serve(target_loader=lambda: _load(specs, alive, parent), wrap_loader=False)
    return 0


def _server(threads: int) -> Any:
    from granian.http import HTTP1Settings
    from granian.server import Server

    return Server(
        "shop.runtime",
        address=os.environ.get("HOST", "0.0.0.0"),  # noqa: S104 (a container's only address)
        port=int(os.environ.get("PORT", "8080")),
        interface="wsgi",  # type: ignore[arg-type]
        workers=1,
        blocking_threads=threads + 1,
        blocking_threads_idle_timeout=600,
        backpressure=threads * 10 + 1,
        http="1",  # type: ignore[arg-type]
        websockets=False,
        log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=KEEP_ALIVE_MILLISECONDS),
        workers_kill_timeout=DRAIN_SECONDS,
    )


def _load(specs: tuple[FunctionSpec, ...], alive: int, parent: int) -> Callable[..., Any]:
    """Runs in the worker: puts the app together while the first connection is being opened."""
    os.close(parent)
    threading.Thread(target=_die_with_parent, args=(alive,), daemon=True).start()
    app = make_app(specs)
    failpoints.arm(app.services.settings.crash, parent=os.getppid())
    # not atexit: multiprocessing's children end without it
    Finalize(None, app.telemetry.stop, exitpriority=10)
    if any(spec.database_role for spec in specs):
        threading.Thread(target=_connect, args=(app,), daemon=True).start()
    app.warm()
    app.ready_seconds = seconds_since_start(os.getppid())  # customers wait since the parent began
    gc.freeze()
    gc.enable()
    return wsgi(app)


def _connect(app: App) -> None:
    app.services.database.warm()


def _die_with_parent(alive: int) -> None:
    """Waits for the end of the parent, which alone holds the pipe's other end, and follows it."""
    os.read(alive, 1)
    os._exit(1)
