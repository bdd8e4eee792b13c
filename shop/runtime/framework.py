"""The functions-framework adapter: the portable contract, ``main(flask.Request)``.

``functions-framework --source functions/<name>/main.py --target main`` serves the same app as
``python -m shop.runtime``, behind Flask and the framework.  gunicorn reads a request in a
thread and has no deadline: here only the body has one, and a client that stalls in the headers
keeps its thread (docs/OPENFAAS.md).
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shop.primitives import failpoints
from shop.primitives.http_limits import READ_SECONDS
from shop.registry import spec_of
from shop.runtime.bootstrap import make_app
from shop.runtime.http_messages import incomplete_request, request_timeout
from shop.runtime.telemetry import seconds_since_start
from shop.runtime.waiting import WaitingLimit
from shop.runtime.wsgi import NO_BODY, body_of, headers_of, http_request_of

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    import flask

    from shop.runtime.app import App


def entry_point(name: str) -> Callable[[flask.Request], flask.Response]:
    """The HTTP function ``main`` of one function folder; settings are read at the first request."""
    apps: list[App] = []
    first = threading.Lock()
    loaded_seconds = seconds_since_start(os.getpid())

    def main(request: flask.Request) -> flask.Response:
        import flask  # imported here: reading main.py loads no framework

        with first:
            if not apps:
                began = time.monotonic()
                apps.append(make_app((spec_of(name),)))
                if loaded_seconds is not None:
                    apps[0].ready_seconds = loaded_seconds + time.monotonic() - began
                # here a request waits in its thread
                apps[0].waiting = WaitingLimit(
                    max(1, (apps[0].services.settings.threads or 4) // 2)
                )
                failpoints.arm(apps[0].services.settings.crash)
                atexit.register(apps[0].telemetry.stop)
        http_request = http_request_of(request.environ)
        http_request.read = _reader_of(request.environ)
        response = apps[0].answer(http_request)
        body = body_of(http_request, response)
        flask_response = flask.Response(body, status=response.status, headers=headers_of(response))
        if response.status in NO_BODY:
            del flask_response.headers["content-type"]
        return flask_response

    return main


def _reader_of(environ: WSGIEnvironment) -> Callable[[int], bytes]:
    """Reads the body: 408 when it is not complete in time, 400 when it ends or breaks before."""
    connection: socket.socket | None = environ.get("gunicorn.socket")

    def read(size: int) -> bytes:
        from gunicorn.http.errors import ParseException

        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            if connection is not None:
                connection.shutdown(socket.SHUT_RD)  # the blocked recv() returns

        timer = threading.Timer(READ_SECONDS, end)
        timer.daemon = True
        timer.start()
        try:
            body: bytes = environ["wsgi.input"].read(size)
        except (OSError, ParseException) as error:
            raise (request_timeout() if is_late.is_set() else incomplete_request()) from error
        finally:
            timer.cancel()
        if is_late.is_set():
            raise request_timeout()
        return body

    return read
