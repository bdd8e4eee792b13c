"""Records the SQL of an order from the running handler, and writes it as a pgbench script."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

from psycopg import sql as composed

from shop.adapters.db import Connection, Result
from shop.adapters.statements import Row, Statement
from shop.registry import spec_of
from shop.runtime import config
from shop.runtime.app import App
from shop.runtime.bootstrap import needs_of
from shop.runtime.http_messages import HttpRequest
from shop.runtime.services import Services
from tools.bench.environment import BenchEnvironment
from tools.bench.first_requests import json_request

Group = list[tuple[str, dict[str, Any]]]
NEW_ID = "lpad(:new_id::text, 32, '0')"

HEADER = r"""\set n :n + 1
\set new_id :run * 1000000000000000 + (:client_id + 1) * 1000000000000 + :n
\set user_id random(:user_first, :user_last)
\set product_id random(:product_first, :product_last)
"""


def record_order(environment: BenchEnvironment, user_id: int, product_id: int) -> list[Group]:
    """The statements of one order on a warm process, with parameters, one group per round trip."""
    spec = spec_of("place_order")
    settings = config.load(environment.of_function("place_order"), needs=needs_of((spec,)))
    app = App((spec,), Services(settings, source=spec.source))
    try:
        _place(app, environment, user_id, product_id)  # opens the connection and prepares
        with _recording() as groups:
            _place(app, environment, user_id, product_id)
    finally:
        app.services.close()
    return groups


def order_request(environment: BenchEnvironment, user_id: int, product_id: int, key: str) -> bytes:
    """POST /orders for one product, as bytes."""
    body = {"productId": product_id, "quantity": 1, "paymentMethod": "CARD"}
    token = environment.token(user_id, "customer")
    return json_request("POST", "/orders", body, token=token, key=key)


def as_pgbench(groups: list[Group]) -> str:
    """A pgbench script of the same statements and pipelines, with random users, products and ids.

    Values that differ between orders are computed from pgbench's variables; all others are written
    as literals.
    """
    script = HEADER
    for group in groups:
        body = "".join(_in_pgbench(sql, parameters) + ";\n" for sql, parameters in group)
        script += f"\\startpipeline\n{body}\\endpipeline\n" if len(group) > 1 else body
    return script


def _place(app: App, environment: BenchEnvironment, user_id: int, product_id: int) -> None:
    head, _, body = order_request(environment, user_id, product_id, uuid4().hex).partition(
        b"\r\n\r\n"
    )
    lines = head.decode().split("\r\n")[1:]
    headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines)}
    request = HttpRequest(
        "POST", "/orders", "", headers, "127.0.0.1", io.BytesIO(body).read, len(body)
    )
    response = app.answer(request)
    if response.status != 201:
        raise RuntimeError(f"POST /orders responded {response.status}: {response.body!r}")


@contextmanager
def _recording() -> Generator[list[Group]]:
    groups: list[Group] = []
    send = Connection.send

    def recording_send(
        self: Connection,
        statements: Sequence[Statement[Row]],
        **options: Any,  # Any: passed on, whatever `send` accepts
    ) -> list[Result]:
        groups.append([(each.sql, dict(each.parameters)) for each in statements])
        return send(self, statements, **options)

    with patch.object(Connection, "send", recording_send):
        yield groups


def _in_pgbench(sql: str, parameters: dict[str, Any]) -> str:
    text = sql.strip()
    for name, value in parameters.items():
        text = text.replace(f"%({name})s", _expression(name, value))
    return text.replace("%%", "%")


def _expression(name: str, value: Any) -> str:
    if name in _RANDOM:
        return _RANDOM[name](value)
    if isinstance(value, UUID):
        return f"{NEW_ID}::uuid"
    if isinstance(value, list) and value and isinstance(value[0], UUID):
        return f"array[{NEW_ID}::uuid]"
    if isinstance(value, bytes):  # in hexadecimal: pgbench reads :5 in a text as a variable
        return f"'\\x{value.hex()}'::bytea"
    return composed.Literal(value).as_string()


_RANDOM: dict[str, Callable[[Any], str]] = {
    "user_id": lambda value: f":user_id::{'text' if isinstance(value, str) else 'bigint'}",
    "session_id": lambda _: "lpad(:user_id::text, 32, '0')::uuid",
    "key": lambda _: NEW_ID,
    "idem_key": lambda _: NEW_ID,
    "product_ids": lambda _: "array[:product_id::bigint]",
}
