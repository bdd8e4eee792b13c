"""The HTTP operations of the shop, from its specs: address, idempotency and allowed statuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlencode

from shop.primitives.spec import Route
from shop.registry import all_specs

# Every operation may be rate limited or unavailable, also at the gateway.
ALWAYS_ALLOWED = frozenset({429, 502, 503, 504})
# Operations without a key that may be repeated: a second session, a session that has ended, an
# account that is closed.
REPEATABLE = frozenset({"log_in", "log_out", "close_account"})
PLACING = frozenset({"place_order", "place_order_from_cart"})


@dataclass(frozen=True)
class Operation:
    """One route; ``allowed`` are the statuses that the contract allows for a valid request."""

    name: str
    method: str
    path: str
    takes_key: bool
    success: int
    allowed: frozenset[int]

    @property
    def scope(self) -> str:
        """The scope of idempotency keys, as the shop writes it."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Call:
    """One request, with the same bytes at every attempt except for the access token."""

    operation: Operation
    target: str
    body: bytes = b""
    key: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    order_id: str | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether sending the request twice has the effect of sending it once."""
        operation = self.operation
        return operation.method == "GET" or self.key is not None or operation.name in REPEATABLE


class Calls:
    """Creates calls, each with an idempotency key if the operation takes one."""

    def __init__(self, run_id: str) -> None:
        self.operations = known_operations()
        self.run_id = run_id
        self._numbers = count(1)

    def make(
        self,
        name: str,
        /,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        **path: str | int,
    ) -> Call:
        """A call of the operation that is named after its handler."""
        operation = self.operations[name]
        target = operation.path.format(**path)
        if query:
            target += "?" + urlencode(query)
        content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8")
        extra = tuple(
            (key.encode("ascii"), text.encode("latin-1")) for key, text in (headers or {}).items()
        )
        key = self.new_key() if operation.takes_key else None
        order_id = str(path["orderId"]) if "orderId" in path else None
        return Call(operation, target, content, key, extra, order_id)

    def new_key(self) -> str:
        """A key that is unique in the run."""
        return f"load-{self.run_id}-{next(self._numbers):08d}"


def known_operations() -> dict[str, Operation]:
    """Every HTTP operation of every function, by the name of its handler."""
    routes = [route for spec in all_specs() for route in spec.routes]
    return {route.handler: _operation(route) for route in routes}


def _operation(route: Route) -> Operation:
    allowed = {route.status, *route.error_statuses, *ALWAYS_ALLOWED}
    if route.idempotent:
        allowed.add(409)  # REQUEST_IN_PROGRESS
    if route.handler == "change_item":
        allowed.add(204)  # a quantity of 0 removes the line
    return Operation(
        name=route.handler,
        method=route.method,
        path=route.path,
        takes_key=route.idempotent,
        success=route.status,
        allowed=frozenset(allowed),
    )
