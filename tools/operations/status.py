"""``shop status``: the state of the whole shop on one screen."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

from shop.registry import all_specs
from tools.exporter import METRICS
from tools.operations.reader import connect_at_replica
from tools.operations.reporting import EXIT_FOUND, EXIT_OK, printable, show_json, show_json_line
from tools.render.objects import name_of
from tools.rollout.cluster import Cluster

REFRESH_SECONDS = 2.0
CLEAR = "\x1b[H\x1b[2J"
Values = dict[str, float]
Metrics = dict[str, Values]

# the metrics of the exporter that an operator must do something about while they are not zero
ATTENTION = ("shop_alarms_open", "shop_dead_letters_open", "shop_overdue", "shop_audit_found")


def run_status(
    database_url: str,
    replica_url: str,
    *,
    namespace: str,
    context: str,
    watch: bool,
    as_json: bool,
) -> int:
    """Prints the shop's state; returns 1 when something needs an operator.

    ``watch`` repeats that until Ctrl-C and returns 0; JSON is then one document a line.
    """

    def show() -> int:
        metrics = read_metrics(database_url, replica_url)
        functions = read_functions(Cluster(namespace, context))
        document = {"functions": functions, "metrics": metrics}
        if as_json and watch:
            show_json_line(document)
        elif as_json:
            show_json(document)
        else:
            print(CLEAR if watch else "", end="")
            print("\n".join(printable(line) for line in describe(metrics, functions)), flush=True)
        needs_operator = any(value for name in ATTENTION for value in metrics[name].values())
        return EXIT_FOUND if needs_operator else EXIT_OK

    return _repeat(show) if watch else show()


def _repeat(show: Callable[[], int]) -> int:
    try:
        while True:
            show()
            time.sleep(REFRESH_SECONDS)
    except KeyboardInterrupt:
        return EXIT_OK


def read_metrics(url: str, replica_url: str) -> Metrics:
    """The exporter's figures, read now: by name and labels."""
    metrics: Metrics = defaultdict(dict)
    with connect_at_replica(url, replica_url) as connection:
        for name, labels, value in connection.execute(METRICS):
            metrics[name][" ".join(labels)] = float(value)
    return metrics


def read_functions(cluster: Cluster) -> dict[str, str] | None:
    """The revisions of each function; None without a cluster to ask."""
    try:
        services = cluster.services(name_of(spec) for spec in all_specs())
    except OSError:
        return None
    return {
        name: state.stable + (f", new {state.candidate}" if state.candidate else "")
        for name, state in services.items()
    }


def describe(metrics: Metrics, functions: dict[str, str] | None) -> list[str]:
    """The lines of the screen."""
    oldest = metrics["shop_due_work_oldest_seconds"]
    due = {
        f"{kind} ({oldest.get(kind, 0):.0f} s)": count
        for kind, count in metrics["shop_due_work"].items()
    }
    lag = metrics["shop_outbox_lag_seconds"].get("", 0)
    ages = metrics["shop_audit_age_seconds"]
    audits = [
        f"{name} {'found something' if found else 'found nothing'} {ages[name] / 3600:.1f} h ago"
        for name, found in metrics["shop_audit_found"].items()
    ]
    dead = metrics["shop_dead_letters_open"].get("", 0)
    dropped = metrics["shop_dead_letters_dropped"].get("", 0)
    return [
        f"orders        {_counts(metrics['shop_orders'])}",
        f"payments      {_counts(metrics['shop_payments'])}",
        f"refunds       {_counts(metrics['shop_refunds'])}",
        f"due now       {_counts(due)}",
        f"overdue       {_counts(metrics['shop_overdue'])}",
        f"outbox        {metrics['shop_outbox_open'].get('', 0):.0f} open, oldest {lag:.0f} s",
        f"dead letters  {dead:.0f} open, {dropped:.0f} dropped",
        f"alerts        {_counts(metrics['shop_alarms_open'])}",
        f"audits        {', '.join(audits) or 'never ran with --record'}",
        *_functions(functions),
    ]


def _counts(values: Values) -> str:
    return ", ".join(f"{name} {count:.0f}" for name, count in sorted(values.items())) or "none"


def _functions(functions: dict[str, str] | None) -> list[str]:
    if functions is None:
        return ["functions     unknown: no cluster with Knative can be read from here"]
    return [f"functions     {len(functions)}"] + [
        f"  {name:28}{revision or 'no revision yet'}" for name, revision in functions.items()
    ]
