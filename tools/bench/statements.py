"""The SQL that an order really sends, recorded from the handler, as a pgbench script."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

from psycopg import sql as composed

from shop.adapters.db import Connection
from shop.registry import spec_of
from shop.runtime import config
from shop.runtime.app import App
from shop.runtime.bootstrap import needs_of
from shop.runtime.http_messages import HttpRequest
from shop.runtime.services import Services
from tools.bench.firsts import json_request
from tools.bench.stand import Stand

Group = list[tuple[str, dict[str, Any]]]
FRESH = "lpad(:fresh::text, 32, '0')"

HEADER = r"""\set n :n + 1
\set fresh :run * 1000000000000000 + (:client_id + 1) * 1000000000000 + :n
\set user_id random(:user_first, :user_last)
\set product_id random(:product_first, :product_last)
"""


def record_order(stand: Stand, user_id: int, product_id: int) -> list[Group]:
    """The statements of one warm order with their parameters, in groups of one round trip."""
    spec = spec_of("place_order")
    settings = config.load(stand.environment("place_order"), needs=needs_of((spec,)))
    app = App((spec,), Services(settings, source=spec.source))
    try:
        _place(app, stand, user_id, product_id)  # opens the connection and prepares
        with _recording() as groups:
            _place(app, stand, user_id, product_id)
    finally:
        app.services.close()
    return groups


def order_request(stand: Stand, user_id: int, product_id: int, key: str) -> bytes:
    """POST /orders of one product, as bytes."""
    body = {"productId": product_id, "quantity": 1, "paymentMethod": "CARD"}
    token = stand.token(user_id, "customer")
    return json_request("POST", "/orders", body, token=token, key=key)


def as_pgbench(groups: list[Group]) -> str:
    """The same statements and pipelines for pgbench, with users, products and ids drawn anew.

    What changes from order to order is computed from pgbench's variables (a fresh id takes it a
    microsecond of SQL); everything else is written as a literal.
    """
    script = HEADER
    for group in groups:
        body = "".join(_in_pgbench(sql, parameters) + ";\n" for sql, parameters in group)
        script += f"\\startpipeline\n{body}\\endpipeline\n" if len(group) > 1 else body
    return script


def _place(app: App, stand: Stand, user_id: int, product_id: int) -> None:
    head, _, body = order_request(stand, user_id, product_id, uuid4().hex).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines)}
    wire = HttpRequest(
        "POST", "/orders", "", headers, "127.0.0.1", io.BytesIO(body).read, len(body)
    )
    answer = app.answer(wire)
    if answer.status != 201:
        raise RuntimeError(f"an order was answered with {answer.status}: {answer.body!r}")


@contextmanager
def _recording() -> Iterator[list[Group]]:
    groups: list[Group] = []
    send = Connection.send

    def recording_send(self: Connection, statements: Any) -> Any:
        groups.append([(sql, dict(parameters)) for sql, parameters in statements])
        return send(self, statements)

    with patch.object(Connection, "send", recording_send):
        yield groups


def _in_pgbench(sql: str, parameters: dict[str, Any]) -> str:
    text = sql.strip()
    for name, value in parameters.items():
        text = text.replace(f"%({name})s", _expression(name, value))
    return text.replace("%%", "%")


def _expression(name: str, value: Any) -> str:
    if name in _DRAWN:
        return _DRAWN[name](value)
    if isinstance(value, UUID):
        return f"{FRESH}::uuid"
    if isinstance(value, list) and value and isinstance(value[0], UUID):
        return f"array[{FRESH}::uuid]"
    if isinstance(value, bytes):  # in hexadecimal: pgbench takes :5 in a text for a variable
        return f"'\\x{value.hex()}'::bytea"
    return composed.Literal(value).as_string()


_DRAWN: dict[str, Callable[[Any], str]] = {
    "user_id": lambda value: f":user_id::{'text' if isinstance(value, str) else 'bigint'}",
    "session_id": lambda _: "lpad(:user_id::text, 32, '0')::uuid",
    "key": lambda _: FRESH,
    "idem_key": lambda _: FRESH,
    "product_ids": lambda _: "array[:product_id::bigint]",
}
