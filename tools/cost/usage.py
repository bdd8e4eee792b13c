"""What the functions used within a time: from Prometheus, their logs, or a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from tools.prometheus_queries import Query, growth, values

# The interval of the chart's PodMonitor: a pod is counted with each scrape.
SCRAPE_SECONDS = 15
ORDER_ROUTES = ("POST /orders", "POST /orders/from-cart")


@dataclass
class FunctionUsage:
    """What the processes of one function did and used."""

    process_seconds: float = 0.0
    requests: int = 0
    events: int = 0
    database_seconds: float = 0.0


@dataclass
class Usage:
    """The usage of all functions within ``seconds``.

    ``processes_without_end`` still run or were killed: a log does not say how long they ran.
    """

    seconds: float = 0.0
    orders: int = 0
    processes_without_end: int = 0
    functions: dict[str, FunctionUsage] = field(default_factory=dict[str, FunctionUsage])

    def of(self, function: str) -> FunctionUsage:
        """The usage of one function, to add to."""
        return self.functions.setdefault(function, FunctionUsage())

    def as_document(self) -> dict[str, Any]:
        """What ``from_document`` reads."""
        return asdict(self)


def from_document(document: Any) -> Usage:
    """The usage in a document that ``shop cost --json`` printed; ValueError for another."""
    try:
        fields = document["usage"]
        functions = {name: FunctionUsage(**f) for name, f in fields["functions"].items()}
        without_end = fields["processes_without_end"]
        return Usage(fields["seconds"], fields["orders"], without_end, functions)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a document of `shop cost --json`: {error}") from error


def from_prometheus(query: Query, hours: float) -> Usage:
    """The usage of the last hours."""
    seconds = round(hours * 3600)
    usage = Usage(seconds=float(seconds))
    pods = "count by (function) (shop_requests_in_flight)"
    held = f"sum_over_time({pods}[{seconds}s:{SCRAPE_SECONDS}s]) * {SCRAPE_SECONDS}"
    for labels, value in values(query(held)):
        usage.of(labels["function"]).process_seconds = value
    for function, value in _growth(query, "shop_requests_total", '{route!="/events"}', seconds):
        usage.of(function).requests = round(value)
    for function, value in _growth(query, "shop_requests_total", '{route="/events"}', seconds):
        usage.of(function).events = round(value)
    for function, value in _growth(query, "shop_database_seconds_total", "", seconds):
        usage.of(function).database_seconds = value
    placed = f'{{status="2xx",function="place_order",route=~"{"|".join(ORDER_ROUTES)}"}}'
    usage.orders = sum(
        round(value) for _, value in _growth(query, "shop_requests_total", placed, seconds)
    )
    return usage


def _growth(query: Query, name: str, selector: str, seconds: int) -> Iterator[tuple[str, float]]:
    text = f"sum by (function) ({growth(name, selector, seconds)})"
    for labels, value in values(query(text)):
        yield labels["function"], value


def from_logs(paths: Iterable[Path]) -> Usage:
    """The usage that functions' logs record; ValueError when they have no line of a process."""
    usage, times = Usage(), list[datetime]()
    for path in paths:
        for line in path.read_text("utf-8", "replace").splitlines():
            fields = _fields(line)
            if fields:
                times.append(datetime.fromisoformat(fields["at"]))
                _add(usage, fields)
    if not times:
        raise ValueError("the logs have no line of a function")
    usage.seconds = (max(times) - min(times)).total_seconds()
    return usage


def _fields(line: str) -> dict[str, Any]:
    try:
        document: object = json.loads(line)
    except ValueError:
        return {}
    # json.loads returns dictionaries with string keys only
    fields = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    return fields if fields.get("message") in ("answered", "ended") else {}


def _add(usage: Usage, fields: dict[str, Any]) -> None:
    function = usage.of(fields["function"])
    if fields["message"] == "ended":
        function.process_seconds += fields.get("seconds", 0.0)
        function.database_seconds += fields["database_seconds"]
        usage.processes_without_end -= 1
        return
    usage.processes_without_end += fields.get("cold", False)
    if fields["route"] == "/events":
        function.events += 1
    else:
        function.requests += 1
    if fields["route"] in ORDER_ROUTES and fields["status"] == 201:
        usage.orders += 1
