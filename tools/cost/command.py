"""The command ``shop cost``: what an order costs, as text with a chart, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools.cost.report import CostReport, Prices, cost_report
from tools.cost.usage import SCRAPE_SECONDS, Usage, from_document, from_logs, from_prometheus
from tools.operations.reporting import EXIT_OK, show_json, show_table
from tools.prometheus_queries import fetch

COLUMNS = (
    "function",
    "requests",
    "events",
    "cold starts",
    "mean seconds",
    "pod seconds",
    "database seconds",
    "scaled to zero",
    "always on",
)
BAR = 40


def run_cost(
    prices: Prices,
    *,
    prometheus: str = "",
    hours: float = 24.0,
    scrape_seconds: float = SCRAPE_SECONDS,
    logs: Path | None = None,
    usage_file: Path | None = None,
    as_json: bool = False,
) -> int:
    """Prints the report of one source; ValueError unless exactly one is given."""
    usage = _usage(prometheus, hours, scrape_seconds, logs, usage_file)
    report = cost_report(usage, prices)
    if as_json:
        show_json(as_document(report, prices))
    else:
        _show(report)
    return EXIT_OK


def _usage(
    prometheus: str,
    hours: float,
    scrape_seconds: float,
    logs: Path | None,
    usage_file: Path | None,
) -> Usage:
    match bool(prometheus), logs, usage_file:
        case True, None, None:
            return from_prometheus(lambda query: fetch(prometheus, query), hours, scrape_seconds)
        case False, Path() as folder, None:
            return from_logs(sorted(folder.glob("*.log")))
        case False, None, Path() as path:
            return from_document(json.loads(path.read_text("utf-8")))
        case _:
            raise ValueError("give one of --prometheus, --logs and --usage")


def as_document(report: CostReport, prices: Prices) -> dict[str, object]:
    """The report as JSON; its ``usage`` can be read again with other prices."""
    return {
        "prices": asdict(prices),
        "usage": report.usage.as_document(),
        "functions": [
            {
                "function": each.function,
                "scaledToZero": each.scaled_to_zero,
                "alwaysOn": each.always_on,
            }
            for each in report.functions
        ],
        "platform": report.platform,
        "scaledToZero": report.scaled_to_zero,
        "alwaysOn": report.always_on,
        "order": report.order,
        "breakEvenOrdersHour": report.break_even_orders_hour,
    }


def _show(report: CostReport) -> None:
    usage = report.usage
    print(f"{usage.orders} orders in {usage.seconds / 3600:.2f} hours\n")
    show_table(COLUMNS, _rows(report))
    if usage.processes_without_end > 0:
        print(f"\nnot included: {usage.processes_without_end} processes whose end is not recorded")
    if usage.processes_killed:
        print(f"\nnot included: the database seconds of {usage.processes_killed} killed processes")
    print("\npod seconds")
    for line in chart([(e.function, e.usage.process_seconds) for e in report.functions]):
        print(line)
    print(f"\nscaled to zero  {report.scaled_to_zero:.6f} (the platform {report.platform:.6f})")
    print(f"always on       {report.always_on:.6f}")
    print(f"one order       {'no order' if report.order is None else f'{report.order:.6f}'}")
    print(f"break-even      {_break_even(report)}")


def _rows(report: CostReport) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (
            each.function,
            each.usage.requests,
            each.usage.events,
            each.usage.cold_starts,
            _mean(each.usage.cold_start_seconds, each.usage.cold_starts),
            f"{each.usage.process_seconds:.1f}",
            f"{each.usage.database_seconds:.2f}",
            f"{each.scaled_to_zero:.6f}",
            f"{each.always_on:.6f}",
        )
        for each in report.functions
    ]
    used = list(report.usage.functions.values())
    total = (
        "total",
        sum(each.requests for each in used),
        sum(each.events for each in used),
        sum(each.cold_starts for each in used),
        _mean(sum(each.cold_start_seconds for each in used), sum(e.cold_starts for e in used)),
        f"{sum(each.process_seconds for each in used):.1f}",
        f"{sum(each.database_seconds for each in used):.2f}",
        f"{report.scaled_to_zero - report.platform:.6f}",
        f"{report.always_on:.6f}",
    )
    return [*rows, total]


def _mean(total: float, count: int) -> str:
    return f"{total / count:.2f}" if count else ""


def _break_even(report: CostReport) -> str:
    rate = report.break_even_orders_hour
    if not report.usage.orders:
        return "unknown without orders"
    if rate is None:
        return "none: scaling to zero costs less at every rate"
    if rate == 0:
        return "none: always-on replicas cost less at every rate"
    return f"{rate:.1f} orders an hour"


def chart(values: Sequence[tuple[str, float]]) -> list[str]:
    """A bar for each value, in proportion to the largest."""
    largest = max((value for _, value in values), default=0.0) or 1.0
    width = max((len(name) for name, _ in values), default=0)
    return [
        f"{name.ljust(width)}  {'#' * round(BAR * value / largest)} {value:.1f}"
        for name, value in values
    ]
