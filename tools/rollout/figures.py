"""What a revision did since a time: requests, errors, latency, cold starts.

From Prometheus where there is one, else from the functions' own log lines, which every pod has.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from tools.prometheus_queries import fetch, growth, path_of, values
from tools.rollout.cluster import Cluster

PODS = "-deployment-"  # between the name of a revision and the rest of its pods' names


@dataclass
class Figures:
    """Figures of one revision; seconds are None without a sample.

    ``requests`` are without client errors: many of those are rejected before the function's own
    code, such as requests over the rate limit, and say nothing about a revision.
    """

    requests: int = 0
    errors: int = 0
    p95_seconds: float | None = None
    cold_start_seconds: float | None = None


Source = Callable[[Iterable[str], datetime], Mapping[str, Figures]]


def growth_query(name: str, label: str, revisions: Iterable[str], seconds: int) -> str:
    """The growth of a counter by revision and one other label."""
    grown = growth(name, f'{{pod=~"({"|".join(revisions)}){PODS}.+"}}', seconds)
    revision = f'label_replace({grown}, "revision", "$1", "pod", "(.+){PODS}.+")'
    return f"sum by (revision, {label}) ({revision})"


def quantile_query(name: str, revisions: Iterable[str], seconds: int) -> str:
    """The 95th percentile of a histogram by revision."""
    return f"histogram_quantile(0.95, {growth_query(f'{name}_bucket', 'le', revisions, seconds)})"


def from_prometheus(address: str, cluster: Cluster) -> Source:
    """Reads Prometheus at a URL, or at ``namespace/service:port`` through the API server."""

    def query(text: str) -> Any:
        if "://" in address:
            return fetch(address, text)
        namespace, _, service = address.partition("/")
        proxy = f"/api/v1/namespaces/{namespace}/services/{service}/proxy"
        return cluster.get_raw(proxy + path_of(text))["data"]["result"]

    def read(revisions: Iterable[str], since: datetime) -> Mapping[str, Figures]:
        names = list(revisions)
        seconds = max(1, round((datetime.now(UTC) - since).total_seconds()))
        found: dict[str, Figures] = defaultdict(Figures)
        for labels, value in values(
            query(growth_query("shop_requests_total", "status", names, seconds))
        ):
            counted = found[labels["revision"]]
            counted.requests += round(value) * (labels["status"] != "4xx")
            counted.errors += round(value) * (labels["status"] == "5xx")
        for labels, value in values(
            query(quantile_query("shop_request_duration_seconds", names, seconds))
        ):
            found[labels["revision"]].p95_seconds = value
        for labels, value in values(query(quantile_query("cold_start_seconds", names, seconds))):
            found[labels["revision"]].cold_start_seconds = value
        return found

    return read


@dataclass
class _Lines:
    statuses: list[int] = field(default_factory=list)
    warm_seconds: list[float] = field(default_factory=list)
    cold_seconds: list[float] = field(default_factory=list)


def from_logs(cluster: Cluster) -> Source:
    """Reads the log lines of the running pods with ``kubectl logs``."""

    def read(revisions: Iterable[str], since: datetime) -> Mapping[str, Figures]:
        found: dict[str, _Lines] = defaultdict(_Lines)
        for pod, line in cluster.logs(revisions, since):
            answered = _answered(line)
            if answered is not None:
                _add(found[pod.rpartition(PODS)[0]], answered)
        return {revision: _figures(lines) for revision, lines in found.items()}

    return read


def _answered(line: str) -> dict[str, Any] | None:
    try:
        document: object = json.loads(line)
    except ValueError:
        return None
    # json.loads returns dictionaries with string keys only
    fields = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    return fields if fields.get("message") == "answered" else None


def _add(lines: _Lines, answered: dict[str, Any]) -> None:
    lines.statuses.append(answered["status"])
    if answered.get("startup_ms") is not None:
        lines.cold_seconds.append(answered["startup_ms"] / 1000)
    elif not answered.get("cold"):
        lines.warm_seconds.append(answered["milliseconds"] / 1000)


def _figures(lines: _Lines) -> Figures:
    errors = sum(status >= 500 for status in lines.statuses)
    requests = sum(not 400 <= status < 500 for status in lines.statuses)
    return Figures(requests, errors, _p95(lines.warm_seconds), _p95(lines.cold_seconds))


def _p95(seconds: list[float]) -> float | None:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))] if ordered else None
