"""The HTTP application of the live view: pages, server-sent events, readings and switches.

It listens on the loopback interface in local profiles only.  A request of another site's page is
rejected by its Host or Origin, since a browser on this machine can reach the port.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs
from uuid import UUID

import httpx
import psycopg

from events.strict_json import is_object
from functions.web.handler import CONTENT_SECURITY_POLICY, MEDIA_TYPES, PAGES
from tools.local_platform.http_listener import (
    Application,
    Receive,
    Scope,
    Send,
    TooLarge,
    read_body,
    reply,
)
from tools.local_platform.http_messages import HttpResponse, header_map
from tools.local_platform.live_view_readings import Readings
from tools.local_platform.problem import problem

TICK_SECONDS = 0.5
CHECK_SECONDS = 3.0
# summaries that a slow page may be behind; older ones are dropped
BACKLOG_MAX = 8
BODY_BYTES_MAX = 4096
HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class Observed(Protocol):
    """What the live view shows and switches."""

    def snapshot(self) -> dict[str, object]:
        """The present state and the activities since the last snapshot."""
        ...

    async def switch(self, faults: dict[str, float]) -> None:
        """Sets the probability of each named fault; ValueError for an unknown one."""
        ...

    async def check_invariants(self) -> None:
        """Evaluates the invariants that the next snapshots show."""
        ...


class LiveView:
    """Sends a summary to every open page twice a second, and answers their requests."""

    def __init__(self, observed: Observed, readings: Readings, port: int) -> None:
        self._observed = observed
        self._readings = readings
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self.pages: set[asyncio.Queue[bytes | None]] = set()
        self._is_closing = False

    async def tick_forever(self) -> None:
        """Summarises until cancelled; without an open page the activities are dropped."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            summary = self._observed.snapshot()
            if self.pages:
                self.send(summary)

    def send(self, summary: dict[str, object]) -> None:
        """Sends a summary to every page; one that is too far behind loses its oldest."""
        message = b"data: " + _encoded(summary) + b"\n\n"
        for page in self.pages:
            _put(page, message)

    async def check_forever(self) -> None:
        """Evaluates the invariants while a page is open, until cancelled."""
        while True:
            began = asyncio.get_running_loop().time()
            if self.pages:
                await self._observed.check_invariants()
            took = asyncio.get_running_loop().time() - began
            # at most a tenth of the time, however busy the machine is
            await asyncio.sleep(max(CHECK_SECONDS, 9 * took))

    def close(self) -> None:
        """Ends every stream, so that the server need not wait for it."""
        self._is_closing = True
        for page in self.pages:
            _put(page, None)

    def application(self) -> Application:
        """The ASGI application."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            response = self._rejected(scope)
            if response is None and (scope["method"], scope["path"]) == ("GET", "/stream"):
                await self._stream(receive, send)
                return
            if response is None:
                response = await self._respond(scope, receive)
            response.headers.extend(HEADERS)
            await reply(send, response, is_head=scope["method"] == "HEAD")

        return application

    def _rejected(self, scope: Scope) -> HttpResponse | None:
        headers = header_map(scope["headers"])
        origin = headers.get("origin")
        is_foreign = origin is not None and origin.removeprefix("http://") not in self._hosts
        if headers.get("host") not in self._hosts or is_foreign:
            return problem(403, "FORBIDDEN", "Only pages of this address may do that", "/")
        return None

    async def _respond(self, scope: Scope, receive: Receive) -> HttpResponse:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        match scope["method"], [part for part in scope["path"].split("/") if part]:
            case "GET" | "HEAD", []:
                return _file(PAGES / "live.html")
            case "GET" | "HEAD", ["assets", name]:
                return _file(PAGES / "assets" / name)
            case "GET", ["orders"]:
                return await _read(self._readings.orders)
            case "GET", ["orders", order_id]:
                return await _read(lambda: self._readings.path_of_order(UUID(order_id)))
            case "GET", ["due"]:
                return await _read(self._readings.due_jobs)
            case "GET", ["mails"]:
                return await _read(self._readings.mails)
            case "GET", ["logs"]:
                trace_id = query.get("trace", [""])[0]
                return await _read(lambda: self._readings.log_of_trace(trace_id))
            case "POST", ["faults"]:
                return await self._switch(scope, receive)
            case _:
                return problem(404, "NOT_FOUND", "There is nothing at this path", scope["path"])

    async def _switch(self, scope: Scope, receive: Receive) -> HttpResponse:
        media_type = header_map(scope["headers"]).get("content-type", "")
        if media_type.partition(";")[0] != "application/json":
            return problem(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be JSON", "/faults")
        try:
            faults = _probabilities(await read_body(receive, BODY_BYTES_MAX))
            await self._observed.switch(faults)
        except (TooLarge, TimeoutError, ValueError) as error:
            return problem(422, "INVALID", str(error) or "The body cannot be read", "/faults")
        except httpx.HTTPError as error:
            return problem(503, "UNAVAILABLE", f"The provider does not respond: {error}", "/faults")
        return HttpResponse(204)

    async def _stream(self, receive: Receive, send: Send) -> None:
        """Sends summaries until the page is closed."""
        page: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG_MAX)
        self.pages.add(page)
        start = {"type": "http.response.start", "status": 200}
        media_type = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({**start, "headers": [*media_type, *HEADERS]})
        await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
        leaving = asyncio.ensure_future(_until_disconnected(receive))
        try:
            while not self._is_closing:
                arriving = asyncio.ensure_future(page.get())
                await asyncio.wait({arriving, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not arriving.done():
                    arriving.cancel()
                    return
                message = arriving.result()
                if message is None:
                    break
                body = {"type": "http.response.body", "body": message, "more_body": True}
                await send(body)
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()
            self.pages.discard(page)


def _put(page: asyncio.Queue[bytes | None], message: bytes | None) -> None:
    if page.full():
        page.get_nowait()
    page.put_nowait(message)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(read: Callable[[], object]) -> HttpResponse:
    """200 with what a function reads in a thread; 404 for None, 422 for a malformed id."""
    try:
        found = await asyncio.to_thread(read)
    except ValueError as error:
        return problem(422, "INVALID", str(error), "")
    except (psycopg.Error, httpx.HTTPError) as error:
        return problem(503, "UNAVAILABLE", f"This cannot be read now: {error}", "")
    if found is None:
        return problem(404, "NOT_FOUND", "There is no such order", "")
    return HttpResponse(200, [(b"content-type", b"application/json")], _encoded(found))


def _probabilities(body: bytes) -> dict[str, float]:
    document: object = json.loads(body)
    if not is_object(document):
        raise ValueError("faults are a JSON object")
    found: dict[str, float] = {}
    for name, value in document.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"{name} must be a number from 0 to 1")
        found[name] = float(value)
    return found


def _file(path: Path) -> HttpResponse:
    if path.suffix not in MEDIA_TYPES or not path.is_file():
        return problem(404, "NOT_FOUND", "There is no such file: make web builds the pages", "/")
    media_type = MEDIA_TYPES[path.suffix].encode()
    headers = [(b"content-type", media_type), (b"cache-control", b"no-cache")]
    return HttpResponse(200, headers, path.read_bytes())


def _encoded(document: object) -> bytes:
    return json.dumps(document, default=_text, ensure_ascii=False).encode()


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime | date) else str(value)
