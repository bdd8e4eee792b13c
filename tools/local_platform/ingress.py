"""The platform's internal port: the broker's ingress at ``POST /``, and ``GET /status``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from events.envelope import BODY_BYTES_MAX
from events.errors import Malformed
from tools.local_platform.broker import Broker, LocalBrokerClass
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
from tools.local_platform.problem import problem

STRUCTURED_SLACK_BYTES = 16 * 1024


def ingress(broker: Broker, status: Callable[[], dict[str, object]]) -> Application:
    """The ASGI application of the internal port."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        match scope["method"], scope["path"]:
            case "POST", "/":
                response = await _accept(broker, scope, receive)
            case "GET", "/status":
                document = json.dumps(status()).encode("utf-8")
                response = HttpResponse(200, [(b"content-type", b"application/json")], document)
            case _, "/":
                response = problem(
                    405, "METHOD_NOT_ALLOWED", "Events are POSTed", "/", allow="POST"
                )
            case _:
                response = problem(404, "NOT_FOUND", "There is no such broker", scope["path"])
        await reply(send, response, is_head=scope["method"] == "HEAD")

    return application


async def _accept(broker: Broker, scope: Scope, receive: Receive) -> HttpResponse:
    try:
        body = await read_body(receive, BODY_BYTES_MAX + STRUCTURED_SLACK_BYTES)
        headers = header_map(scope["headers"])
        if broker.broker_class is LocalBrokerClass.IMC:
            return await _deliver(broker, headers, body, receive)
        await broker.accept(headers, body)
    except Malformed as error:
        return problem(error.status, "INVALID_EVENT", error.reason, "/")
    except TooLarge:
        return problem(413, "TOO_LARGE", "The event is too long", "/")
    except TimeoutError:
        return problem(408, "REQUEST_TIMEOUT", "The event did not arrive in time", "/")
    return HttpResponse(202)


async def _deliver(
    broker: Broker, headers: dict[str, str], body: bytes, receive: Receive
) -> HttpResponse:
    """Delivers the event for as long as the publisher waits, as an in-memory channel does."""
    delivery = asyncio.ensure_future(broker.deliver(headers, body))
    hang_up = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((delivery, hang_up), return_when=asyncio.FIRST_COMPLETED)
        if not delivery.done():
            broker.note_hang_up()
            return HttpResponse(499)  # never sent
        return HttpResponse(202 if await delivery else 500)
    finally:
        delivery.cancel()
        hang_up.cancel()
