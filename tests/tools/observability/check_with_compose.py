"""Checks monitoring of a running shop: ``python -m tests.tools.observability.check_with_compose``.

For the shop of ``docker compose --profile observability up`` with traces on
(docs/OBSERVABILITY.md), soon after its end-to-end tests: all targets are scraped, all alerts are
evaluated, all panels have data, and one trace in Zipkin leads from the edge through the order to
its charge.

Prints a line for each check; exits 1 when one fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.tools.observability.test_dashboards import alerts, dashboards

DEADLINE_SECONDS = 60  # a scrape is every 15 s, a push of spans every 5 s
RATE = "15m"
# panels without data in a healthy shop
MAY_BE_EMPTY = {
    "Share of 5xx",
    "Dead letters and operator alerts",
    "Work due now",
    "Age of the oldest due work",
}
# Its panels show exporters that Compose does not run.
OF_EXPORTERS = "servers"
ONE_ORDER = {"edge", "place_order", "charge"}


def main() -> int:
    """Runs the checks; returns 1 when one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--zipkin", default="http://127.0.0.1:9411")
    options = parser.parse_args()
    checks: dict[str, Callable[[], str]] = {
        "targets": lambda: unscraped(options.prometheus),
        "alerts": lambda: unevaluated(options.prometheus),
        "panels": lambda: empty_panels(options.prometheus),
        "traces": lambda: untraced(options.zipkin),
    }
    failed = 0
    for name, check in checks.items():
        missing = _wait_until_complete(check)
        failed += bool(missing)
        print(f"{name}: {missing or 'complete'}", flush=True)
    return 1 if failed else 0


def unscraped(prometheus: str) -> str:
    """The targets that Prometheus cannot scrape."""
    targets = _get(f"{prometheus}/api/v1/targets")["data"]["activeTargets"]
    down = [f"{t['scrapeUrl']} ({t['lastError']})" for t in targets if t["health"] != "up"]
    return "; ".join(down) if targets else "there are none"


def unevaluated(prometheus: str) -> str:
    """The alerts that Prometheus lacks or cannot evaluate."""
    groups = _get(f"{prometheus}/api/v1/rules")["data"]["groups"]
    healthy = {r["name"] for group in groups for r in group["rules"] if r["health"] == "ok"}
    return "; ".join(sorted({rule["alert"] for rule in alerts()} - healthy))


def empty_panels(prometheus: str) -> str:
    """The panels whose query fails or returns no data."""
    empty: list[str] = []
    for name, dashboard in dashboards().items():
        if name == OF_EXPORTERS:
            continue
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                query = urlencode({"query": target["expr"].replace("$__rate_interval", RATE)})
                response = _get(f"{prometheus}/api/v1/query?{query}")
                if not response["data"]["result"] and panel["title"] not in MAY_BE_EMPTY:
                    empty.append(panel["title"])
    return "; ".join(empty)


def untraced(zipkin: str) -> str:
    """The services that the most complete trace of an order lacks."""
    traces = _get(f"{zipkin}/api/v2/traces?{urlencode({'serviceName': 'charge', 'limit': 100})}")
    traced: list[set[str]] = [
        {span["localEndpoint"]["serviceName"] for span in trace} for trace in traces
    ]
    found = max(traced, key=lambda services: len(services & ONE_ORDER), default=set[str]())
    return "; ".join(sorted(ONE_ORDER - found))


def _wait_until_complete(check: Callable[[], str]) -> str:
    """The result of a check once nothing is missing, or at the deadline."""
    deadline = monotonic() + DEADLINE_SECONDS
    while (missing := check()) and monotonic() < deadline:
        sleep(2)
    return missing


def _get(url: str) -> Any:
    with urlopen(url, timeout=10) as response:
        return json.load(response)


if __name__ == "__main__":
    sys.exit(main())
