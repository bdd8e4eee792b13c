"""Queries to Prometheus: what counters grew by, and how to reach it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isnan
from typing import Any
from urllib.parse import quote

import httpx

QUERY_SECONDS = 10.0

Query = Callable[[str], Any]


def growth(name: str, selector: str, seconds: int) -> str:
    """How much each series of a counter grew within the last seconds.

    ``increase()`` would not see what a new process counted before its first scrape, nor the last
    values of one that has ended.
    """
    last = f"last_over_time({name}{selector}[{seconds}s])"
    return f"clamp_min({last} - ({name}{selector} offset {seconds}s) or {last}, 0)"


def new(name: str, seconds: int) -> str:
    """The last value of each series that began within the last seconds."""
    return f"last_over_time({name}[{seconds}s]) unless {name} offset {seconds}s"


def fetch(address: str, query: str) -> Any:
    """The result of a query to the Prometheus at a URL; OSError when there is none."""
    try:
        response = httpx.get(address.rstrip("/") + path_of(query), timeout=QUERY_SECONDS)
        return response.raise_for_status().json()["data"]["result"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise OSError(f"{address}: {type(error).__name__}: {error}") from error


def path_of(query: str) -> str:
    """The path of a query."""
    return f"/api/v1/query?query={quote(query, safe='')}"


def values(result: Any) -> Iterable[tuple[Mapping[str, str], float]]:
    """Labels and value of each series that has one."""
    for series in result:
        value = float(series["value"][1])
        if not isnan(value):
            yield series["metric"], value
