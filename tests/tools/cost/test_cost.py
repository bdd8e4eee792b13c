"""``shop cost``: sums and prices by hand, and a local platform's own record of its processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from shop.registry import all_specs, spec_of
from tests.tools.e2e.running_shop import SHOP, running_shop
from tests.waiting import wait_for
from tools.cost.command import as_document, chart, run_cost
from tools.cost.report import Prices, cost_report, pods_at
from tools.cost.usage import FunctionUsage, Usage, from_document, from_logs, from_prometheus
from tools.render.openfaas import grouped

ROOT = Path(__file__).resolve().parents[3]
SCALE = spec_of("place_order").scale
MEMORY = SCALE.memory_mib / 1024
# An hour: 1 for the processor of a process and as much for its sidecar's, 0.5 for the platform.
PRICES = Prices(
    vcpu_hour=1000 / SCALE.cpu_millis,
    gib_hour=1.0,
    sidecar_cpu_millis=SCALE.cpu_millis,
    sidecar_memory_mib=0,
    platform_cpu_millis=0,
    platform_memory_mib=512,
    replicas=1,
)
POD, REPLICA, PLATFORM = 2 + MEMORY, 1 + MEMORY, 0.5
USED = FunctionUsage(process_seconds=1800, requests=50, events=10, database_seconds=3)
USAGE = Usage(seconds=7200, orders=20, functions={"place_order": USED})
ORDERS = ("POST /orders", "POST /orders/from-cart")
PROCESS_SECONDS = re.compile(r'process_seconds_total\{function="(\w+)"\} ([\d.]+)')


def log_line(message: str, second: int, **fields: object) -> str:
    """A line of a function's log."""
    at = f"2026-02-01T09:00:{second:02d}+00:00"
    return json.dumps({"at": at, "message": message, "function": "place_order", **fields})


def answered(second: int, route: str, status: int, **fields: object) -> str:
    """The line of one response."""
    return log_line("answered", second, route=route, status=status, **fields)


def internal_url(data: Path) -> str:
    """The address of the local platform's internal port."""
    return (data / "internal.url").read_text("ascii")


def test_costs_are_times_and_resources_at_their_prices() -> None:
    report = cost_report(USAGE, PRICES)

    (place_order,) = report.functions
    assert place_order.scaled_to_zero == pytest.approx(0.5 * POD)
    assert place_order.always_on == pytest.approx(2 * REPLICA)
    assert report.platform == pytest.approx(2 * PLATFORM)
    assert report.order == pytest.approx((0.5 * POD + 2 * PLATFORM) / 20)


def test_break_even_is_where_both_cost_the_same() -> None:
    report = cost_report(USAGE, PRICES)

    rate = report.break_even_orders_hour
    assert rate is not None
    # 10 orders an hour needed a quarter of a pod
    assert PLATFORM + POD * pods_at(0.25, rate / 10) == pytest.approx(REPLICA)


def test_there_is_no_break_even_when_replicas_cost_more_at_every_rate() -> None:
    many = replace(PRICES, replicas=5)

    assert cost_report(USAGE, many).break_even_orders_hour is None


def test_platform_that_costs_more_than_the_replicas_has_no_break_even(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    large = replace(PRICES, platform_memory_mib=8192)
    recorded = as_document(cost_report(USAGE, PRICES), PRICES)
    (tmp_path / "day.json").write_text(json.dumps(recorded))

    assert cost_report(USAGE, large).break_even_orders_hour == 0
    assert run_cost(large, usage_file=tmp_path / "day.json") == 0
    assert "always-on replicas cost less at every rate" in capsys.readouterr().out


def test_report_without_orders_names_no_cost_of_an_order() -> None:
    report = cost_report(Usage(7200, 0, 0, {"place_order": USED}), PRICES)

    assert (report.order, report.break_even_orders_hour) == (None, None)


def test_functions_of_one_process_are_one_row_with_one_replica() -> None:
    used = {
        "cart": FunctionUsage(requests=30),
        "cart,read_orders": FunctionUsage(process_seconds=7200, database_seconds=2),
        "read_orders": FunctionUsage(requests=12, events=1),
        "login": FunctionUsage(process_seconds=60, requests=1),
    }

    report = cost_report(Usage(7200, 1, 0, used), PRICES)

    group, login = report.functions
    assert (group.function, login.function) == ("cart,read_orders", "login")
    assert group.usage == FunctionUsage(7200, 42, 1, 2)
    largest = max(spec_of(name).scale.memory_mib for name in ("cart", "read_orders")) / 1024
    assert group.always_on == pytest.approx(2 * (1 + largest))


def test_functions_that_did_not_run_would_have_always_on_replicas() -> None:
    used = {"place_order": USED, "cart,read_orders": FunctionUsage()}

    usage = Usage(7200, 20, 0, used).with_idle_functions()

    assert usage.functions.pop("place_order") == USED
    idle = {spec.name for spec in all_specs()} - {"place_order", "cart", "read_orders"}
    assert usage.functions.keys() == {"cart,read_orders", *idle}
    report = cost_report(Usage(7200, 0, 0, {"login": FunctionUsage()}), PRICES)
    assert report.always_on > 0
    assert Usage().with_idle_functions() == Usage()


def test_each_group_of_openfaas_costs_what_its_deployment_requests() -> None:
    groups = [",".join(each.name for each in members) for members in grouped(all_specs()).values()]
    deployed = yaml.safe_load((ROOT / "stack.yml").read_text("utf-8"))["functions"]
    used = {name: FunctionUsage(process_seconds=3600) for name in groups}
    free = Prices(1.0, 1.0, 0, 0, 0, 0, replicas=1)

    report = cost_report(Usage(3600, 0, 0, used), free)

    requests = [function["requests"] for function in deployed.values()]
    cpus = sum(int(each["cpu"].removesuffix("m")) for each in requests) / 1000
    memory = sum(int(each["memory"].removesuffix("Mi")) for each in requests) / 1024
    assert report.always_on == pytest.approx(cpus + memory)


def test_json_of_a_report_is_read_again_with_other_prices(tmp_path: Path) -> None:
    document = json.loads(json.dumps(as_document(cost_report(USAGE, PRICES), PRICES)))
    (tmp_path / "day.json").write_text(json.dumps(document))

    assert from_document(document) == USAGE
    command = [*SHOP, "cost", f"--usage={tmp_path}/day.json", "--vcpu-hour=0", "--gib-hour=0"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "one order       0.000000" in result.stdout


@pytest.mark.parametrize("text", ["{}", "[]", '{"usage": {"functions": {"cart": {"x": 1}}}}'])
def test_other_json_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="not a document of"):
        from_document(json.loads(text))


def test_logs_are_counted_by_what_each_line_records(tmp_path: Path) -> None:
    lines = [
        answered(1, ORDERS[0], 201, cold=True, startup_ms=250),
        answered(2, ORDERS[1], 201),
        answered(3, ORDERS[0], 409),
        answered(4, "/events", 204),
        "no JSON",
        log_line("ended", 30, seconds=29.5, database_seconds=0.25),
        log_line("ended", 30, seconds=2.0, database_seconds=0.0, answered=False),
        answered(30, "/events", 204, cold=True),
        log_line("ended", 31, seconds=4.0, signal=9, answered=True),
        answered(31, ORDERS[0], 503, cold=True),
    ]
    (tmp_path / "place_order.log").write_text("\n".join(lines))

    usage = from_logs([tmp_path / "place_order.log"])

    assert usage.functions.pop("place_order") == FunctionUsage(35.5, 4, 2, 0.25, 1, 0.25)
    assert all(used == FunctionUsage() for used in usage.functions.values())
    assert (usage.orders, usage.seconds) == (2, 30.0)
    assert (usage.processes_without_end, usage.processes_killed) == (1, 1)


def test_prometheus_is_asked_for_pods_starts_requests_events_database_time_and_orders() -> None:
    answers = {
        "sum by (function) (clamp_min(last_over_time(shop_process_seconds_total[3600s])": 900.0,
        "(last_over_time(shop_process_seconds_total[3600s]) unless": 20.0,
        "cold_start_seconds_count": 20.0,
        "cold_start_seconds_sum": 12.0,
        'route!="/events"': 70.0,
        'route="/events"': 30.0,
        "shop_database_seconds_total": 4.5,
        'status="2xx"': 20.0,
    }

    def query(text: str) -> list[dict[str, object]]:
        (value,) = [value for part, value in answers.items() if part in text]
        return [{"metric": {"function": "place_order"}, "value": [0, str(value)]}]

    usage = from_prometheus(query, hours=1)

    assert (usage.seconds, usage.orders) == (3600.0, 20)
    assert usage.functions["place_order"] == FunctionUsage(1050.0, 70, 30, 4.5, 20, 12.0)


def test_chart_is_proportional_to_the_largest_value() -> None:
    assert chart([("cart", 20.0), ("charge", 5.0), ("login", 0.0)]) == [
        f"cart    {'#' * 40} 20.0",
        f"charge  {'#' * 10} 5.0",
        "login    0.0",
    ]


def test_report_agrees_with_the_local_platforms_processes_and_a_killed_one_within_five_percent(
    tmp_path: Path,
) -> None:
    with running_shop(tmp_path, "--idle", "8") as shop:
        for path in ("/products", "/categories", "/v3/api-docs", "/products"):
            with urlopen(f"{shop.url}{path}", timeout=60) as response:
                response.read()
        # as the kernel does to a process that exceeds its memory
        with urlopen(f"{internal_url(tmp_path)}status", timeout=10) as page:
            (killed,) = json.load(page)["processes"]["api_docs"]
        os.kill(killed, signal.SIGKILL)

        def recorded() -> dict[str, float]:
            with urlopen(f"{shop.url}/actuator/prometheus", timeout=10) as page:
                text = page.read().decode()
            return {name: float(seconds) for name, seconds in PROCESS_SECONDS.findall(text)}

        wanted = {"list_products", "api_docs"}
        wait_for(lambda: recorded().keys() >= wanted, "the processes were stopped", 90)
        platform = recorded()

    command = [*SHOP, "cost", f"--logs={tmp_path}/log", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    usage = json.loads(result.stdout)["usage"]
    used = usage["functions"]
    assert (usage["processes_killed"], usage["processes_without_end"]) == (1, 0)
    assert {name: used[name]["requests"] for name in wanted} == {"list_products": 3, "api_docs": 1}
    for name in wanted:
        assert used[name]["process_seconds"] == pytest.approx(platform[name], rel=0.05)
    assert used["list_products"]["database_seconds"] > 0
