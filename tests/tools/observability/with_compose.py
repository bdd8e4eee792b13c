"""Asks what watches a running shop: ``python -m tests.tools.observability.with_compose``.

For the shop of ``docker compose --profile observability up`` with traces on
(docs/OBSERVABILITY.md), soon after its end-to-end tests: are all targets scraped, all alerts
evaluated, do all panels show something, and does one trace in Zipkin lead from the edge through the
order to its charge?

Prints a line for each question; exits 1 when an answer is no.
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

PATIENCE_SECONDS = 60  # a scrape is every 15 s, a push of spans every 5 s
RATE = "15m"
# what a healthy shop has nothing of
MAY_BE_EMPTY = {
    "Share of 5xx",
    "Dead letters and alarms",
    "Work due now",
    "How long it has been due",
}
ONE_ORDER = {"edge", "place_order", "charge"}


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--zipkin", default="http://127.0.0.1:9411")
    told = parser.parse_args()
    questions: dict[str, Callable[[], str]] = {
        "targets": lambda: unscraped(told.prometheus),
        "alerts": lambda: unevaluated(told.prometheus),
        "panels": lambda: empty_panels(told.prometheus),
        "traces": lambda: untraced(told.zipkin),
    }
    wrong = 0
    for name, question in questions.items():
        missing = _after_a_while(question)
        wrong += bool(missing)
        print(f"{name}: {missing or 'all there'}", flush=True)
    return 1 if wrong else 0


def unscraped(prometheus: str) -> str:
    """The targets that Prometheus does not reach."""
    targets = _get(f"{prometheus}/api/v1/targets")["data"]["activeTargets"]
    down = [f"{t['scrapeUrl']} ({t['lastError']})" for t in targets if t["health"] != "up"]
    return "; ".join(down) if targets else "there are none"


def unevaluated(prometheus: str) -> str:
    """The alerts that Prometheus lacks or cannot evaluate."""
    groups = _get(f"{prometheus}/api/v1/rules")["data"]["groups"]
    healthy = {r["name"] for group in groups for r in group["rules"] if r["health"] == "ok"}
    return "; ".join(sorted({rule["alert"] for rule in alerts()} - healthy))


def empty_panels(prometheus: str) -> str:
    """The panels whose query fails or shows nothing."""
    empty = []
    for dashboard in dashboards().values():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                query = urlencode({"query": target["expr"].replace("$__rate_interval", RATE)})
                answer = _get(f"{prometheus}/api/v1/query?{query}")
                if not answer["data"]["result"] and panel["title"] not in MAY_BE_EMPTY:
                    empty.append(panel["title"])
    return "; ".join(empty)


def untraced(zipkin: str) -> str:
    """What the fullest trace of an order lacks."""
    traces = _get(f"{zipkin}/api/v2/traces?{urlencode({'serviceName': 'charge', 'limit': 100})}")
    seen = [{span["localEndpoint"]["serviceName"] for span in trace} for trace in traces]
    fullest = max(seen, key=lambda services: len(services & ONE_ORDER), default=set())
    return "; ".join(sorted(ONE_ORDER - fullest))


def _after_a_while(question: Callable[[], str]) -> str:
    """The question's answer as soon as nothing is missing, or after a minute."""
    deadline = monotonic() + PATIENCE_SECONDS
    while (missing := question()) and monotonic() < deadline:
        sleep(2)
    return missing


def _get(url: str) -> Any:
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main())
