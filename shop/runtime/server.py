"""The WSGI server: granian, chosen by measurement (docs/adr/0008).

A small parent process holds the port and handles signals; one worker, forked before large imports,
serves with as many threads as the function's concurrency, and one more for probes.  Idle
connections are kept for 120 s (queue-proxy reuses them for 90), SIGTERM drains, and nothing is
written to disk.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING

from shop.primitives import failpoints
from shop.primitives.spec import FunctionSpec
from shop.registry import spec_of
from shop.runtime import config
from shop.runtime.app import App
from shop.runtime.bootstrap import make_app, settings_of
from shop.runtime.telemetry import seconds_since_start
from shop.runtime.wsgi import wsgi

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from granian.server import MPServer, MTServer

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
    gc.disable()  # collections during imports free nothing and take 8 to 10 % of a cold start
    read_end, write_end = os.pipe()
    server = _server(settings, threads)
    server.serve(
        target_loader=lambda: _load(specs, settings, read_end, write_end), wrap_loader=False
    )
    return 0


def _server(settings: config.Settings, threads: int) -> MPServer | MTServer:
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server import Server

    return Server(
        "shop.runtime",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=threads + 1,
        blocking_threads_idle_timeout=600,
        backpressure=threads * 10 + 1,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=KEEP_ALIVE_MILLISECONDS),
        workers_kill_timeout=DRAIN_SECONDS,
    )


def _load(
    specs: tuple[FunctionSpec, ...], settings: config.Settings, read_end: int, write_end: int
) -> WSGIApplication:
    """Runs in the worker: builds the app while a thread opens the first connection."""
    os.close(write_end)
    threading.Thread(target=_exit_with_parent, args=(read_end,), daemon=True).start()
    app = make_app(specs, settings)
    failpoints.arm(app.services.settings.crash, parent=os.getppid())
    # not atexit: a child of multiprocessing exits without it
    Finalize(None, app.telemetry.stop, exitpriority=10)
    if any(spec.database_role for spec in specs):
        threading.Thread(target=_connect, args=(app,), daemon=True).start()
    app.warm()
    # since the start of the parent, which is what a waiting client sees
    app.ready_seconds = seconds_since_start(os.getppid())
    gc.freeze()
    gc.enable()
    return wsgi(app)


def _connect(app: App) -> None:
    """Opens the first connection; in a thread, because importing the driver takes long too."""
    app.services.database.warm()


def _exit_with_parent(read_end: int) -> None:
    """Exits when the parent does: only the parent holds the other end of the pipe."""
    os.read(read_end, 1)
    os._exit(1)
