"""Renders Grafana's dashboards: functions (rate, errors, duration, cold starts) and business.

A panel is a title, a unit and queries; the layout is computed.
"""

from __future__ import annotations

from typing import Any

from tools.render.documents import json_text

Panel = tuple[str, str, tuple[tuple[str, str], ...]]

SOURCE = {"type": "prometheus", "uid": "prometheus"}
PANELS_IN_A_ROW, WIDTH, HEIGHT = 3, 8, 8
RATE = "[$__rate_interval]"


def _by(label: str, metric: str) -> str:
    return f"sum by ({label}) (rate({metric}{RATE}))"


def _quantile(share: float, metric: str, label: str) -> str:
    return f"histogram_quantile({share}, sum by (le, {label}) (rate({metric}_bucket{RATE})))"


def _cold_start(share: float) -> str:
    # A process counts one cold start before its first scrape, which rate() would not see.
    started = "max_over_time(cold_start_seconds_bucket[1h])"
    return f"histogram_quantile({share}, sum by (le, function) ({started}))"


FUNCTIONS: tuple[Panel, ...] = (
    ("Requests", "reqps", ((_by("function", "shop_requests_total"), "{{function}}"),)),
    (
        "Share of 5xx",
        "percentunit",
        (
            (
                f'sum by (function) (rate(shop_requests_total{{status="5xx"}}{RATE}))'
                f" / {_by('function', 'shop_requests_total')}",
                "{{function}}",
            ),
        ),
    ),
    (
        "Duration",
        "s",
        (
            (_quantile(0.5, "shop_request_duration_seconds", "function"), "{{function}} p50"),
            (_quantile(0.99, "shop_request_duration_seconds", "function"), "{{function}} p99"),
        ),
    ),
    (
        "Cold starts of the last hour",
        "s",
        (
            (_cold_start(0.5), "{{function}} p50"),
            (_cold_start(0.95), "{{function}} p95"),
        ),
    ),
    (
        "Processes",
        "short",
        (("count by (function) (cold_start_seconds_count)", "{{function}}"),),
    ),
    (
        "Requests in flight",
        "short",
        (("sum by (function) (shop_requests_in_flight)", "{{function}}"),),
    ),
    (
        "Events by outcome",
        "ops",
        ((_by("function, outcome", "shop_events_total"), "{{function}} {{outcome}}"),),
    ),
    (
        "Round trips to PostgreSQL by transaction",
        "short",
        (
            (
                f"{_by('function', 'shop_database_round_trips_total')}"
                f" / {_by('function', 'shop_database_transactions_total')}",
                "{{function}}",
            ),
        ),
    ),
    (
        "Events published by outcome",
        "ops",
        ((_by("type, outcome", "shop_outbox_published_total"), "{{type}} {{outcome}}"),),
    ),
)

BUSINESS: tuple[Panel, ...] = (
    (
        "Orders placed",
        "ops",
        (
            (
                "sum(rate(shop_requests_total"
                f'{{route=~"POST /orders.*",function="place_order",status="2xx"}}{RATE}))',
                "placed",
            ),
        ),
    ),
    ("Orders by status", "short", (("max by (status) (shop_orders)", "{{status}}"),)),
    ("Payments by status", "short", (("max by (status) (shop_payments)", "{{status}}"),)),
    ("Refunds by status", "short", (("max by (status) (shop_refunds)", "{{status}}"),)),
    (
        "Outbox: age of the oldest unpublished event",
        "s",
        (("max(shop_outbox_lag_seconds)", "age"),),
    ),
    ("Outbox: unpublished events", "short", (("max(shop_outbox_open)", "events"),)),
    ("Work due now", "short", (("max by (kind) (shop_due_work)", "{{kind}}"),)),
    (
        "Age of the oldest due work",
        "s",
        (("max by (kind) (shop_due_work_oldest_seconds)", "{{kind}}"),),
    ),
    (
        "Dead letters and operator alerts",
        "short",
        (
            ("max(shop_dead_letters_open)", "dead letters"),
            ("max by (kind) (shop_alarms_open)", "alert {{kind}}"),
        ),
    ),
    (
        "Money in the ledger, minor units",
        "short",
        (("max by (kind, currency) (shop_ledger_minor)", "{{kind}} {{currency}}"),),
    ),
    (
        "Provider: calls by outcome",
        "ops",
        ((_by("step, outcome", "shop_provider_calls_total"), "{{step}} {{outcome}}"),),
    ),
    (
        "Provider: duration",
        "s",
        ((_quantile(0.95, "shop_provider_call_duration_seconds", "step"), "{{step}} p95"),),
    ),
)

DASHBOARDS: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "functions": ("Shop: functions", FUNCTIONS),
    "business": ("Shop: business", BUSINESS),
}


def dashboard_files() -> dict[str, str]:
    """The text of each dashboard, by file name."""
    return {f"{name}.json": json_text(dashboard(name)) for name in DASHBOARDS}


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard in Grafana's import format."""
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"shop-{name}",
        "title": title,
        "tags": ["msa-shop"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": [_panel(number, *panel) for number, panel in enumerate(panels)],
    }


def _panel(
    number: int, title: str, unit: str, queries: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    row, column = divmod(number, PANELS_IN_A_ROW)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(65 + n), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for n, (query, legend) in enumerate(queries)
        ],
    }
