"""What the functions used within a time: from Prometheus, their logs, or a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from shop.registry import all_specs
from tools.prometheus_queries import Query, growth, new, values

# The interval of the chart's PodMonitor.
SCRAPE_SECONDS = 15.0
PROCESS_SECONDS = "shop_process_seconds_total"
ORDER_ROUTES = ("POST /orders", "POST /orders/from-cart")


@dataclass
class FunctionUsage:
    """What the processes of one function did and used.

    ``cold_start_seconds`` are those of all ``cold_starts`` together.
    """

    process_seconds: float = 0.0
    requests: int = 0
    events: int = 0
    database_seconds: float = 0.0
    cold_starts: int = 0
    cold_start_seconds: float = 0.0

    def __add__(self, other: FunctionUsage) -> FunctionUsage:
        return FunctionUsage(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass
class Usage:
    """The usage of all functions within ``seconds``.

    ``processes_without_end`` still run, or were killed where nothing recorded it: a log does not
    say how long they ran.  ``processes_killed`` could not record their database seconds.
    """

    seconds: float = 0.0
    orders: int = 0
    processes_without_end: int = 0
    functions: dict[str, FunctionUsage] = field(default_factory=dict[str, FunctionUsage])
    processes_killed: int = 0

    def of(self, function: str) -> FunctionUsage:
        """The usage of one function, to add to."""
        return self.functions.setdefault(function, FunctionUsage())

    def by_process(self) -> Usage:
        """The same with one entry for each kind of process.

        A process that serves several functions, as on OpenFaaS, is recorded by their names with
        commas between them, and its requests by the function of each.
        """
        process_of = {
            name: group for group in self.functions if "," in group for name in group.split(",")
        }
        merged = dict[str, FunctionUsage]()
        for name, used in self.functions.items():
            process = process_of.get(name, name)
            merged[process] = merged.get(process, FunctionUsage()) + used
        return replace(self, functions=merged)

    def with_idle_functions(self) -> Usage:
        """The same with the functions that did not run, of which always-on replicas would."""
        named = {name for process in self.functions for name in process.split(",")}
        idle = {s.name: FunctionUsage() for s in all_specs() if named and s.name not in named}
        return replace(self, functions=self.functions | idle)

    def as_document(self) -> dict[str, Any]:
        """What ``from_document`` reads."""
        return asdict(self)


def from_document(document: Any) -> Usage:
    """The usage in a document that ``shop cost --json`` printed; ValueError for another."""
    try:
        fields = document["usage"]
        functions = {name: FunctionUsage(**f) for name, f in fields["functions"].items()}
        without_end, killed = fields["processes_without_end"], fields.get("processes_killed", 0)
        return Usage(fields["seconds"], fields["orders"], without_end, functions, killed)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a document of `shop cost --json`: {error}") from error


def from_prometheus(query: Query, hours: float, scrape_seconds: float = SCRAPE_SECONDS) -> Usage:
    """The usage of the last hours.

    A process ends half an interval after its last scrape on average.  That of one which began
    earlier is made up for by the time since the last scrape before the hours.
    """
    seconds = round(hours * 3600)
    usage = Usage(seconds=float(seconds))
    for function, value in _growth(query, PROCESS_SECONDS, "", seconds):
        usage.of(function).process_seconds = value
    for labels, value in values(query(f"count by (function) ({new(PROCESS_SECONDS, seconds)})")):
        usage.of(labels["function"]).process_seconds += value * scrape_seconds / 2
    for function, value in _growth(query, "cold_start_seconds_count", "", seconds):
        usage.of(function).cold_starts = round(value)
    for function, value in _growth(query, "cold_start_seconds_sum", "", seconds):
        usage.of(function).cold_start_seconds = value
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
    return usage.with_idle_functions()


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
    return usage.with_idle_functions()


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
        function.database_seconds += fields.get("database_seconds", 0.0)
        usage.processes_without_end -= fields.get("answered", True)
        usage.processes_killed += "database_seconds" not in fields
        return
    usage.processes_without_end += fields.get("cold", False)
    if "startup_ms" in fields:
        function.cold_starts += 1
        function.cold_start_seconds += fields["startup_ms"] / 1000
    if fields["route"] == "/events":
        function.events += 1
    else:
        function.requests += 1
    if fields["route"] in ORDER_ROUTES and fields["status"] == 201:
        usage.orders += 1
