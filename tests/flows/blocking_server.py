"""A function process whose requests to ``/blocked`` run until ``/release`` is called.

``python -m tests.flows.blocking_server NAME=VALUE …`` sets limits of the server first, so that
deadlines pass in a test's time.  ``/begun`` says how many blocked requests have begun; it and
``/release`` are answered by the event loop, as health probes are.  ``/parts?3`` responds with a
body of three parts, and ``/parts?3-`` fails after them; ``/begun`` counts them too.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator

from shop.registry import spec_of
from shop.runtime import http_server, server
from shop.runtime.bootstrap import make_app
from shop.runtime.http_messages import BrokenOff, HttpRequest, HttpResponse
from shop.runtime.waiting import WaitingRequest

THREADS = 2
PART = b"x" * 65_536


def main(settings: list[str]) -> None:
    """Serves until SIGTERM."""
    for setting in settings:
        name, _, value = setting.partition("=")
        assert hasattr(http_server, name), name
        setattr(http_server, name, float(value))
    app = make_app((spec_of("api_docs"),))
    app_start, released, begun = app.start, threading.Event(), list[str]()

    def start(http_request: HttpRequest) -> HttpResponse | WaitingRequest:
        match http_request.path:
            case "/blocked":
                begun.append(http_request.method)
                released.wait(30)
                return HttpResponse(200, http_request.read(100))
            case "/begun":
                return HttpResponse(200, str(len(begun)).encode())
            case "/release":
                released.set()
                return HttpResponse(204)
            case "/parts":
                return HttpResponse(200, parts=_parts(http_request.query, begun))
            case "/echo":
                return HttpResponse(200, http_request.read(100_000), {"x-path": http_request.query})
            case _:
                return app_start(http_request)

    app.start = start
    http_server.HEALTH_PATHS |= {"/begun", "/release"}
    asyncio.run(server.run(app, THREADS, server.listen(app.services.settings)))


def _parts(query: str, begun: list[str]) -> Iterator[bytes]:
    for _ in range(int(query.rstrip("-"))):
        begun.append("part")
        yield PART
    if query.endswith("-"):
        raise BrokenOff


if __name__ == "__main__":
    main(sys.argv[1:])
