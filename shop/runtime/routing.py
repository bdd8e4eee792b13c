"""Routing: which operation serves a method and a path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from events.records import frozen
from shop.primitives.errors import ClientError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from shop.primitives.messages import Request, Response
    from shop.primitives.spec import FunctionSpec, Route
    from shop.runtime.request_context import RequestContext

    # Any: each handler names the types of its own body and query.
    RouteHandler = Callable[[Request[Any, Any], RequestContext], Response]

SEGMENT = r"(?P<{}>[A-Za-z0-9._~-]{{1,200}})"


@frozen
class Operation:
    """One route with its code; handler and models are imported on first use."""

    spec: FunctionSpec
    route: Route
    pattern: re.Pattern[str]

    @cached_property
    def handler(self) -> RouteHandler:
        """The function in ``handler.py`` that the route names."""
        return getattr(self._module("handler"), self.route.handler)

    @cached_property
    def body_model(self) -> type[BaseModel] | None:
        """The model of the JSON body, or None."""
        return getattr(self._module("schema"), self.route.body) if self.route.body else None

    @cached_property
    def query_model(self) -> type[BaseModel] | None:
        """The model of the query string, or None."""
        return getattr(self._module("schema"), self.route.query) if self.route.query else None

    @cached_property
    def query_names(self) -> frozenset[str]:
        """The names of the query's parameters."""
        model = self.query_model
        fields = model.model_fields if model else {}
        return frozenset(field.alias or name for name, field in fields.items())

    @property
    def scope(self) -> str:
        """Method and route: the scope of an idempotency key, and the route's name in the log."""
        return f"{self.route.method} {self.route.path}"

    @property
    def literal_segments(self) -> int:
        """How many segments of the path are not parameters."""
        return self.route.path.count("/") - self.route.path.count("{")

    def _module(self, name: str) -> ModuleType:
        return import_module(f"functions.{self.spec.name}.{name}")


class Router:
    """Finds the operation of a request among the routes of the process's functions."""

    def __init__(self, specs: Iterable[FunctionSpec]) -> None:
        self.operations = [
            Operation(spec, route, _pattern(route.path)) for spec in specs for route in spec.routes
        ]

    def operations_at(self, path: str) -> list[tuple[Operation, Mapping[str, str]]]:
        """The operations whose path matches, with the path's parameters; 404 when there is none.

        A literal segment has precedence over a parameter: ``me`` in ``/orders/me`` is no order id.
        """
        matches = [(op, m) for op in self.operations if (m := op.pattern.fullmatch(path))]
        if not matches:
            raise unknown_path()
        most = max(operation.literal_segments for operation, _ in matches)
        return [(op, match.groupdict()) for op, match in matches if op.literal_segments == most]


def unknown_path() -> ClientError:
    """404 for a path that no route has."""
    return ClientError(404, "NOT_FOUND", "there is nothing at this path")


def allow_header(methods: Iterable[str]) -> dict[str, str]:
    """The ``Allow`` header (RFC 9110 section 10.2.1); GET implies HEAD, every path has OPTIONS."""
    allowed = {*methods, "OPTIONS"}
    return {"allow": ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))}


def method_not_allowed(methods: Iterable[str], message: str) -> ClientError:
    """405 with the methods that the path has."""
    return ClientError(405, "METHOD_NOT_ALLOWED", message, headers=allow_header(methods))


def _pattern(path: str) -> re.Pattern[str]:
    escaped = re.escape(path).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(re.sub(r"\{(\w+)\}", lambda m: SEGMENT.format(m[1]), escaped))
