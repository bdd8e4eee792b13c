"""The shop's HTTP operations as a client knows them: where they are and what they may answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlencode

from shop.primitives.spec import Route
from shop.registry import all_specs

# What any operation may answer: not now, and a gateway that lost the function behind it.
ANYTIME = frozenset({429, 502, 503, 504})
# Repeating these without a key does no harm: a second session, a session that is over already.
REPEATABLE = frozenset({"log_in", "log_out"})
PLACING = frozenset({"place_order", "place_order_from_cart"})


@dataclass(frozen=True)
class Operation:
    """One route; ``expected`` are the statuses its contract allows a sound request."""

    name: str
    method: str
    path: str
    takes_key: bool
    success: int
    expected: frozenset[int]

    @property
    def scope(self) -> str:
        """The scope of idempotency keys, as the shop writes it."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Call:
    """One request, the same bytes however often it is sent; the token alone may differ."""

    operation: Operation
    target: str
    body: bytes = b""
    key: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    order_id: str | None = None

    @property
    def is_repeatable(self) -> bool:
        """True when sending it twice does what sending it once does."""
        operation = self.operation
        return operation.method == "GET" or self.key is not None or operation.name in REPEATABLE


class Calls:
    """Makes calls, each with an idempotency key that exists before it is sent."""

    def __init__(self, run_id: str) -> None:
        self.operations = known_operations()
        self.run_id = run_id
        self._numbers = count(1)

    def make(
        self,
        name: str,
        *,
        body: Any = None,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        **path: Any,
    ) -> Call:
        """A call of the operation with that handler's name."""
        operation = self.operations[name]
        target = operation.path.format(**path)
        if query:
            target += "?" + urlencode(query)
        content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8")
        extra = tuple(
            (key.encode("ascii"), text.encode("latin-1")) for key, text in (headers or {}).items()
        )
        key = self.new_key() if operation.takes_key else None
        return Call(operation, target, content, key, extra, path.get("orderId"))

    def new_key(self) -> str:
        """A key nobody used before."""
        return f"load-{self.run_id}-{next(self._numbers):08d}"


def known_operations() -> dict[str, Operation]:
    """Every HTTP operation of every function, by the name of its handler."""
    routes = [route for spec in all_specs() for route in spec.routes]
    return {route.handler: _operation(route) for route in routes}


def _operation(route: Route) -> Operation:
    expected = {route.status, *route.error_statuses, *ANYTIME}
    if route.idempotent:
        expected.add(409)  # REQUEST_IN_PROGRESS
    if route.handler == "change_item":
        expected.add(204)  # a quantity of nought removes the line
    return Operation(
        name=route.handler,
        method=route.method,
        path=route.path,
        takes_key=route.idempotent,
        success=route.status,
        expected=frozenset(expected),
    )
