"""Renders Grafana's dashboards: functions, business, and the servers that the shop uses.

A panel states what is normal in its description, and links to the runbook of the alerts about it.
Tiles show one current value, coloured by thresholds; the layout is computed.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from events.records import frozen
from shop.registry import all_specs
from tools.render.documents import json_text

RUNBOOK = "https://github.com/msa-shop/msa-shop/blob/main/docs/RUNBOOK.md"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24
TILE_WIDTH, TILE_HEIGHT = 4, 4
GRAPH_WIDTH, GRAPH_HEIGHT = 8, 8
RATE = "[$__rate_interval]"
TILE = {
    "type": "stat",
    "options": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background",
        "graphMode": "area",
    },
}
GRAPH = {
    "type": "timeseries",
    "options": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
}


@frozen
class Panel:
    """A title, a unit and queries with their legends.

    ``description`` says what the values mean and which are normal.  ``alerts`` are the rules about
    the same values.  With ``warning`` and ``critical`` values from there on are yellow and red.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str
    alerts: tuple[str, ...] = ()
    warning: float | None = None
    critical: float | None = None


@frozen
class Dashboard:
    """Tiles above graphs."""

    title: str
    tiles: tuple[Panel, ...]
    graphs: tuple[Panel, ...]


def runbook_url(alert: str) -> str:
    """The address of an alert's section in the runbook."""
    return f"{RUNBOOK}#{alert.lower()}"


def _by(label: str, metric: str) -> str:
    return f"sum by ({label}) (rate({metric}{RATE}))"


def _quantile(share: float, metric: str, *labels: str) -> str:
    by = ", ".join(("le", *labels))
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{RATE})))"


def _cold_start(share: float, *labels: str) -> str:
    # A process counts one cold start before its first scrape, which rate() would not see.
    by, started = ", ".join(("le", *labels)), "max_over_time(cold_start_seconds_bucket[1h])"
    return f"histogram_quantile({share}, sum by ({by}) ({started}))"


def cold_starts_by_budget() -> str:
    """The mean cold start of each function by its budget, as a multiple of all functions' median.

    A budget is a multiple of the bare framework's start, which is not measured on a live platform:
    the other functions take its place.
    """
    mean = " / ".join(
        f"sum by (function) (max_over_time(cold_start_seconds_{part}[1h]))"
        for part in ("sum", "count")
    )
    budgets = " or ".join(
        f'label_replace(vector({spec.cold_start_budget:g}), "function", "{spec.name}", "", "")'
        for spec in all_specs()
    )
    shares = f"({mean}) / on (function) ({budgets})"
    return f"({shares}) / scalar(quantile(0.5, {shares}))"


ERRORS = f'sum(rate(shop_requests_total{{status="5xx"}}{RATE})) or vector(0)'
PLACED = (
    "sum(rate(shop_requests_total"
    f'{{route=~"POST /orders.*",function="place_order",status="2xx"}}{RATE}))'
)

FUNCTIONS = Dashboard(
    "Shop: functions",
    tiles=(
        Panel(
            "Requests per second",
            "reqps",
            ((f"sum(rate(shop_requests_total{RATE}))", ""),),
            "All functions together, with events and ticks.",
        ),
        Panel(
            "Errors",
            "percentunit",
            ((f"({ERRORS}) / sum(rate(shop_requests_total{RATE}))", ""),),
            "Share of 5xx responses of all functions; the alert is for each function.",
            alerts=("ShopErrors",),
            warning=0.01,
            critical=0.05,
        ),
        Panel(
            "Slowest 1 %",
            "s",
            ((_quantile(0.99, "shop_request_duration_seconds"), ""),),
            "99th percentile of all requests, with those that wait on request (Prefer: wait).",
            alerts=("ShopSlow",),
            warning=1,
            critical=2,
        ),
        Panel(
            "Slow cold starts",
            "s",
            ((_cold_start(0.95), ""),),
            "95th percentile of the last hour: start and first response, without idle time.",
            alerts=("ShopColdStartSlow",),
            warning=3,
            critical=5,
        ),
        Panel(
            "Running processes",
            "short",
            (("count(cold_start_seconds_count) or vector(0)", ""),),
            "0 while nothing is requested and nothing is due.",
        ),
        Panel(
            "Requests waiting or running",
            "short",
            (("sum(shop_requests_in_flight) or vector(0)", ""),),
            "All functions together; near the sum of their concurrency, requests queue.",
        ),
    ),
    graphs=(
        Panel(
            "Requests",
            "reqps",
            ((_by("function", "shop_requests_total"), "{{function}}"),),
            "Rate by function.",
        ),
        Panel(
            "Share of 5xx",
            "percentunit",
            (
                (
                    f'sum by (function) (rate(shop_requests_total{{status="5xx"}}{RATE}))'
                    f" / {_by('function', 'shop_requests_total')}",
                    "{{function}}",
                ),
            ),
            "Above 5 % of one function for five minutes a person is called.",
            alerts=("ShopErrors",),
            critical=0.05,
        ),
        Panel(
            "Duration",
            "s",
            (
                (_quantile(0.5, "shop_request_duration_seconds", "function"), "{{function}} p50"),
                (_quantile(0.99, "shop_request_duration_seconds", "function"), "{{function}} p99"),
            ),
            "Median and 99th percentile; the latter has cold starts where traffic is low.",
            alerts=("ShopSlow",),
            critical=2,
        ),
        Panel(
            "Cold starts of the last hour",
            "s",
            (
                (_cold_start(0.5, "function"), "{{function}} p50"),
                (_cold_start(0.95, "function"), "{{function}} p95"),
            ),
            "Start of a process and its first response, without idle time.",
            alerts=("ShopColdStartSlow",),
            critical=5,
        ),
        Panel(
            "Cold starts of the last hour against their budgets",
            "short",
            ((cold_starts_by_budget(), "{{function}}"),),
            "Mean by the budget in the function's spec; 1 is the median of all functions. One far "
            "above starts more slowly than its budget allows: make bench-cold ARGS=--check.",
            alerts=("ShopColdStartSlow",),
            warning=1.25,
            critical=1.5,
        ),
        Panel(
            "Processes",
            "short",
            (("count by (function) (cold_start_seconds_count)", "{{function}}"),),
            "Processes that have answered at least one request.",
        ),
        Panel(
            "Requests in flight",
            "short",
            (("sum by (function) (shop_requests_in_flight)", "{{function}}"),),
            "Running and waiting requests by function.",
        ),
        Panel(
            "Events by outcome",
            "ops",
            ((_by("function, outcome", "shop_events_total"), "{{function}} {{outcome}}"),),
            "taken, duplicate and noop are normal; retried and refused are not.",
            alerts=("ShopEventsRetried", "ShopEventsRefused"),
        ),
        Panel(
            "Round trips to PostgreSQL by transaction",
            "short",
            (
                (
                    f"{_by('function', 'shop_database_round_trips_total')}"
                    f" / {_by('function', 'shop_database_transactions_total')}",
                    "{{function}}",
                ),
            ),
            "Compare with docs/reference/functions.md; more is a regression.",
            alerts=("ShopSlow",),
        ),
        Panel(
            "Time waited for PostgreSQL, per second",
            "s",
            ((_by("function", "shop_database_seconds_total"), "{{function}}"),),
            "Seconds that all processes of a function waited, within a second.",
            alerts=("ShopSlow",),
        ),
        Panel(
            "Events published by outcome",
            "ops",
            ((_by("type, outcome", "shop_outbox_published_total"), "{{type}} {{outcome}}"),),
            "left: the broker did not accept the event, and sweep publishes it again.",
            alerts=("ShopPublishingFails",),
        ),
        Panel(
            "Refused connections opened again",
            "ops",
            (
                (
                    _by("function, server", "shop_connections_repeated_total"),
                    "{{function}} {{server}}",
                ),
            ),
            "A few at a cold start: its NetworkPolicy comes late. More: a server is down.",
            alerts=("ShopErrors",),
        ),
        Panel(
            "Reads that may lag",
            "ops",
            (
                (
                    _by("function, outcome", "shop_replica_reads_total"),
                    "{{function}} {{outcome}}",
                ),
            ),
            "replica, or the primary because the replica was lagging, had failed or was paused. "
            "A primary that commits nothing makes its replica seem to lag.",
        ),
    ),
)

BUSINESS = Dashboard(
    "Shop: business",
    tiles=(
        Panel(
            "Orders per minute",
            "short",
            ((f"60 * ({PLACED} or vector(0))", ""),),
            "Orders that customers placed.",
        ),
        Panel(
            "Oldest unconsumed event",
            "s",
            (("max(shop_outbox_lag_seconds)", ""),),
            "0 at rest; a few seconds under load.",
            alerts=("ShopOutboxLag",),
            warning=30,
            critical=120,
        ),
        Panel(
            "Oldest due work",
            "s",
            (("max(shop_due_work_oldest_seconds) or vector(0)", ""),),
            "Less than the interval of the ticks.",
            alerts=("ShopDueWorkStuck",),
            warning=120,
            critical=300,
        ),
        Panel(
            "Dead letters",
            "short",
            (("max(shop_dead_letters_open)", ""),),
            "Events that the broker gave up on; 0 is normal.",
            alerts=("ShopDeadLetters",),
            critical=1,
        ),
        Panel(
            "Operator alerts",
            "short",
            (("sum(max by (kind) (shop_alarms_open)) or vector(0)", ""),),
            "Rows that a person must look at; 0 is normal.",
            alerts=("ShopAlarms",),
            critical=1,
        ),
        Panel(
            "Payments without an outcome",
            "short",
            (('max(shop_payments{status="UNKNOWN"}) or vector(0)', ""),),
            "The provider has not said whether it charged; it is queried again.",
            alerts=("ShopPaymentsUnclear", "ShopProviderUnclear"),
            warning=1,
            critical=10,
        ),
    ),
    graphs=(
        Panel(
            "Orders placed",
            "ops",
            ((PLACED, "placed"),),
            "Successful POST /orders and POST /orders/from-cart.",
        ),
        Panel(
            "Orders by status",
            "short",
            (("max by (status) (shop_orders)", "{{status}}"),),
            "PENDING and CANCELLING are open; the others are final or paid.",
            alerts=("ShopOverdueOrder", "ShopCancellationsWait"),
        ),
        Panel(
            "Payments by status",
            "short",
            (("max by (status) (shop_payments)", "{{status}}"),),
            "INTENT and UNKNOWN are open.",
            alerts=("ShopPaymentsUnclear", "ShopOverduePayment"),
        ),
        Panel(
            "Refunds by status",
            "short",
            (("max by (status) (shop_refunds)", "{{status}}"),),
            "INTENT and UNKNOWN are open; a rejected refund waits for an operator.",
            alerts=("ShopOverdueRefund",),
        ),
        Panel(
            "Mails by status",
            "short",
            (("max by (status) (shop_mails)", "{{status}}"),),
            "PENDING, SENDING and UNKNOWN wait to be sent; FAILED will not be sent.",
            alerts=("ShopOverdueMail", "ShopAlarms"),
        ),
        Panel(
            "Outbox: age of the oldest unpublished event",
            "s",
            (("max(shop_outbox_lag_seconds)", "age"),),
            "Rises while a consumer or the broker fails.",
            alerts=("ShopOutboxLag",),
            critical=120,
        ),
        Panel(
            "Outbox: unpublished events",
            "short",
            (("max(shop_outbox_open)", "events"),),
            "Events that not every consumer has processed.",
            alerts=("ShopOutboxLag",),
        ),
        Panel(
            "Work due now",
            "short",
            (("max by (kind) (shop_due_work)", "{{kind}}"),),
            "Jobs of sweep and settle; each tick empties it.",
            alerts=("ShopDueWorkStuck",),
        ),
        Panel(
            "Age of the oldest due work",
            "s",
            (("max by (kind) (shop_due_work_oldest_seconds)", "{{kind}}"),),
            "By the kind of job.",
            alerts=("ShopDueWorkStuck",),
            critical=300,
        ),
        Panel(
            "Dead letters and operator alerts",
            "short",
            (
                ("max(shop_dead_letters_open)", "dead letters"),
                ("max(shop_dead_letters_dropped)", "dropped dead letters"),
                ("max by (kind) (shop_alarms_open)", "alert {{kind}}"),
            ),
            "Both need a person, except dropped dead letters.",
            alerts=("ShopDeadLetters", "ShopAlarms"),
            critical=1,
        ),
        Panel(
            "Money in the ledger, minor units",
            "short",
            (("max by (kind, currency) (shop_ledger_minor)", "{{kind}} {{currency}}"),),
            "Sums of the postings by kind; a fall is an error.",
        ),
        Panel(
            "Provider: calls by outcome",
            "ops",
            ((_by("step, outcome", "shop_provider_calls_total"), "{{step}} {{outcome}}"),),
            "unknown and mismatch are not results: the provider is queried again.",
            alerts=("ShopProviderUnclear",),
        ),
        Panel(
            "Provider: duration",
            "s",
            ((_quantile(0.95, "shop_provider_call_duration_seconds", "step"), "{{step}} p95"),),
            "95th percentile by step of a call.",
            alerts=("ShopProviderUnclear",),
        ),
    ),
)

# Metrics of the exporters that are common for these servers: postgres_exporter, pgbouncer_exporter
# and redis_exporter.  Most database operators and clouds have them; the shop installs none.
SERVERS = Dashboard(
    "Shop: PostgreSQL, PgBouncer and Redis",
    tiles=(
        Panel(
            "PostgreSQL connections",
            "percentunit",
            (("sum(pg_stat_database_numbackends) / max(pg_settings_max_connections)", ""),),
            "Share of max_connections in use.",
            alerts=("ShopErrors",),
            warning=0.7,
            critical=0.9,
        ),
        Panel(
            "PostgreSQL cache hits",
            "percentunit",
            (
                (
                    f"sum(rate(pg_stat_database_blks_hit{RATE}))"
                    f" / (sum(rate(pg_stat_database_blks_hit{RATE}))"
                    f" + sum(rate(pg_stat_database_blks_read{RATE})))",
                    "",
                ),
            ),
            "Share of blocks found in shared buffers; below 95 % give it more memory.",
        ),
        Panel(
            "PgBouncer: clients waiting",
            "short",
            (("sum(pgbouncer_pools_client_waiting_connections)", ""),),
            "0 is normal; clients wait while every server connection of a pool is in use.",
            alerts=("ShopErrors", "ShopSlow"),
            warning=1,
            critical=20,
        ),
        Panel(
            "PgBouncer: longest wait",
            "s",
            (("max(pgbouncer_pools_client_maxwait_seconds)", ""),),
            "How long the first client in a queue has waited.",
            alerts=("ShopSlow",),
            warning=0.1,
            critical=1,
        ),
        Panel(
            "Redis memory",
            "percentunit",
            (("max(redis_memory_used_bytes / (redis_memory_max_bytes > 0))", ""),),
            "Share of maxmemory; at 100 % keys are evicted: lists are read from PostgreSQL again.",
            warning=0.8,
            critical=0.95,
        ),
        Panel(
            "Redis cache hits",
            "percentunit",
            (
                (
                    f"sum(rate(redis_keyspace_hits_total{RATE}))"
                    f" / (sum(rate(redis_keyspace_hits_total{RATE}))"
                    f" + sum(rate(redis_keyspace_misses_total{RATE})))",
                    "",
                ),
            ),
            "Share of reads that found their key.",
        ),
    ),
    graphs=(
        Panel(
            "PostgreSQL: connections by state",
            "short",
            (("sum by (state) (pg_stat_activity_count)", "{{state}}"),),
            "idle in transaction should be near 0: its timeout is five seconds.",
            alerts=("ShopSlow",),
        ),
        Panel(
            "PostgreSQL: transactions",
            "ops",
            (
                (f"sum(rate(pg_stat_database_xact_commit{RATE}))", "commits"),
                (f"sum(rate(pg_stat_database_xact_rollback{RATE}))", "rollbacks"),
            ),
            "Rollbacks are client errors and conflicts; compare with the share of 4xx.",
        ),
        Panel(
            "PostgreSQL: size",
            "bytes",
            (("sum by (datname) (pg_database_size_bytes)", "{{datname}}"),),
            "Growth per order: docs/K8S-EXPANSION.md.",
        ),
        Panel(
            "PgBouncer: connections",
            "short",
            (
                ("sum(pgbouncer_pools_client_active_connections)", "clients, active"),
                ("sum(pgbouncer_pools_client_waiting_connections)", "clients, waiting"),
                ("sum(pgbouncer_pools_server_active_connections)", "servers, active"),
                ("sum(pgbouncer_pools_server_idle_connections)", "servers, idle"),
            ),
            "Server connections are limited by maxDatabaseConnections.",
            alerts=("ShopErrors",),
        ),
        Panel(
            "Redis: memory",
            "bytes",
            (("sum(redis_memory_used_bytes)", "used"),),
            "Rate limits and cached lists; nothing is lost with it.",
        ),
        Panel(
            "Redis: commands and evicted keys",
            "ops",
            (
                (f"sum(rate(redis_commands_processed_total{RATE}))", "commands"),
                (f"sum(rate(redis_evicted_keys_total{RATE}))", "evicted keys"),
            ),
            "Evicted keys: the memory is too small.",
        ),
    ),
)

DASHBOARDS = {"functions": FUNCTIONS, "business": BUSINESS, "servers": SERVERS}


def dashboard_files() -> dict[str, str]:
    """The text of each dashboard, by file name."""
    return {f"{name}.json": json_text(dashboard(name)) for name in DASHBOARDS}


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard in Grafana's import format."""
    described = DASHBOARDS[name]
    numbers = count(1)
    tiles_height = -(-len(described.tiles) * TILE_WIDTH // COLUMNS) * TILE_HEIGHT
    tiles = [
        _panel(next(numbers), tile, _place(place, TILE_WIDTH, TILE_HEIGHT, top=0)) | TILE
        for place, tile in enumerate(described.tiles)
    ]
    graphs = [
        _panel(next(numbers), graph, _place(place, GRAPH_WIDTH, GRAPH_HEIGHT, top=tiles_height))
        | GRAPH
        for place, graph in enumerate(described.graphs)
    ]
    return {
        "uid": f"shop-{name}",
        "title": described.title,
        "tags": ["msa-shop"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": []},
        "annotations": {"list": []},
        "links": [{"type": "link", "title": "Runbook", "url": RUNBOOK, "targetBlank": True}],
        "panels": [*tiles, *graphs],
    }


def _place(number: int, width: int, height: int, *, top: int) -> dict[str, int]:
    row, column = divmod(number, COLUMNS // width)
    return {"x": column * width, "y": top + row * height, "w": width, "h": height}


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    """What tiles and graphs have in common."""
    return {
        "id": number,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": place,
        "links": [
            {"title": f"Runbook: {alert}", "url": runbook_url(alert), "targetBlank": True}
            for alert in panel.alerts
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": _thresholds(panel),
                "custom": {"thresholdsStyle": {"mode": "line" if panel.critical else "off"}},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(65 + n), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for n, (query, legend) in enumerate(panel.queries)
        ],
    }


def _thresholds(panel: Panel) -> dict[str, Any]:
    limits = (("yellow", panel.warning), ("red", panel.critical))
    steps = [{"color": color, "value": value} for color, value in limits if value is not None]
    return {"mode": "absolute", "steps": [{"color": "green", "value": None}, *steps]}
