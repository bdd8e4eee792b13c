"""The entry point of a container: one process that serves its functions (docs/adr/0027).

The port is opened first, so that a waiting client is answered as soon as the imports are done.
SIGTERM drains, and nothing is written to disk.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from types import FrameType

from shop.primitives import failpoints
from shop.primitives.spec import FunctionSpec
from shop.registry import spec_of
from shop.runtime import config, log
from shop.runtime.app import App
from shop.runtime.bootstrap import make_app, settings_of
from shop.runtime.http_server import HttpServer
from shop.runtime.telemetry import seconds_since_start

BACKLOG = 1024
BAD_SETTINGS = 2


def serve(names: list[str]) -> int:
    """Serves the named functions until SIGTERM; returns the exit status."""
    specs = tuple(spec_of(name) for name in names)
    # process 1 of a container ignores SIGTERM unless it has a handler
    signal.signal(signal.SIGTERM, _exit)
    app: App | None = None
    try:
        settings = settings_of(specs)
        listener = listen(settings)
        gc.disable()  # collections during imports free nothing and take 8 to 10 % of a cold start
        app = _load(specs, settings)
        threads = settings.threads or sum(spec.scale.concurrency for spec in specs)
        asyncio.run(run(app, threads, listener))
    except config.ConfigurationError as error:
        sys.stderr.write(f"the settings are wrong:\n{error}\n")
        return BAD_SETTINGS
    finally:
        if app is not None:
            app.telemetry.stop()
        _log_usage(specs, app)
    return 0


async def run(app: App, threads: int, listener: socket.socket) -> None:
    """Serves an app on a listening socket until SIGTERM."""
    await HttpServer(app, threads).serve(listener)


def listen(settings: config.Settings) -> socket.socket:
    """The listening socket at HOST and PORT."""
    # asyncio sets TCP_NODELAY only on sockets that were created with a protocol
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((settings.host, settings.port))
    listener.listen(BACKLOG)
    return listener


def _load(specs: tuple[FunctionSpec, ...], settings: config.Settings) -> App:
    """Builds the app while a thread opens the first connection."""
    app = make_app(specs, settings)
    failpoints.arm(app.services.settings.crash)
    if any(spec.database_role for spec in specs):
        threading.Thread(target=_connect, args=(app,), daemon=True).start()
    app.warm()
    app.ready_seconds = seconds_since_start(os.getpid())
    gc.freeze()
    gc.enable()
    return app


def _log_usage(specs: tuple[FunctionSpec, ...], app: App | None) -> None:
    """What the process has used, for ``shop cost``; without an app when it was never loaded."""
    seconds = seconds_since_start(os.getpid())
    _, _, database_seconds = app.services.database_metrics() if app is not None else (0, 0, 0.0)
    log.write(
        "ended",
        function=",".join(spec.name for spec in specs),
        seconds=None if seconds is None else round(seconds, 3),
        database_seconds=round(database_seconds, 4),
        answered=app is not None and app.has_responded,
    )


def _connect(app: App) -> None:
    """Opens the first connection; in a thread, because importing the driver takes long too."""
    app.services.database.warm()


def _exit(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
