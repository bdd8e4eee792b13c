"""What a shop at rest requests and costs by each platform's page, computed from its objects.

The prices are the defaults of ``shop cost``, a month has 730 hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from inspect import signature
from pathlib import Path

import yaml

from shop.registry import all_specs
from tests.manifests.test_chart import chart_manifests, ticks_a_day
from tools.cli import cost
from tools.cost.report import HOUR, Prices
from tools.manifest_rules.manifests import ManifestSet, parse
from tools.render.keda import due_schedules

ROOT = Path(__file__).resolve().parents[2]
HOURS_A_MONTH = 730
# a tick's pod starts, sends and ends; the function's pod stays for its window of 15 s after it
TICK_SECONDS, WOKEN_SECONDS = 5, 20
DEFAULTS = {name: each.default for name, each in signature(cost).parameters.items()}
PRICES = Prices(**{each.name: DEFAULTS[each.name] for each in fields(Prices)})


@dataclass(frozen=True)
class Requests:
    """CPU in thousandths and memory in MiB."""

    cpu_millis: int
    memory_mib: int

    @property
    def month(self) -> float:
        """What they cost in a month."""
        return PRICES.of_hour(self.cpu_millis, self.memory_mib) * HOURS_A_MONTH

    def __str__(self) -> str:
        cpu, memory = self.cpu_millis / 1000, self.memory_mib / 1024
        return f"{cpu:.2f} vCPU and {memory:.2f} GiB: {self.month:.2f} a month"


def parsed(cpu: str, memory: str) -> tuple[int, int]:
    """Kubernetes' quantities as thousandths and MiB."""
    millis = int(cpu[:-1]) if cpu.endswith("m") else 1000 * int(cpu)
    return millis, int(memory.removesuffix("Mi"))


def total(requests: Iterable[dict[str, str]]) -> Requests:
    """The sum of the requests of containers or functions."""
    pairs = [parsed(each["cpu"], each["memory"]) for each in requests]
    return Requests(sum(cpu for cpu, _ in pairs), sum(memory for _, memory in pairs))


def at_rest(manifests: ManifestSet) -> Requests:
    """What runs without a request: Deployments and StatefulSets with a replica."""
    return total(_always_on(manifests))


def _always_on(manifests: ManifestSet) -> Iterator[dict[str, str]]:
    for manifest, pod in manifests.pods():
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            for container in pod["spec"]["containers"] * manifest["spec"].get("replicas", 1):
                yield container["resources"]["requests"]


def clock_month(configuration: str = "values") -> float:
    """What ticks without KEDA cost in a month: their pods, and those of the woken functions."""
    schedules = {f"shop-clock-{each.name}": spec for spec, each in due_schedules()}
    day = 0.0
    for manifest, pod in chart_manifests(configuration).pods():
        if manifest["kind"] == "CronJob":
            tick = total(each["resources"]["requests"] for each in pod["spec"]["containers"])
            price = PRICES.of_hour(tick.cpu_millis, tick.memory_mib) * TICK_SECONDS / HOUR
            woken = schedules[manifest["metadata"]["name"]].scale
            price += PRICES.of_pod_hour(woken) * WOKEN_SECONDS / HOUR
            day += price * ticks_a_day(manifest)
    return day * HOURS_A_MONTH / 24


def assert_page(page: str, *sentences: str) -> None:
    """Each sentence is in the page, whatever its line breaks."""
    text = " ".join((ROOT / page).read_text("utf-8").split())
    assert [sentence for sentence in sentences if sentence not in text] == []


def test_page_of_helm_says_what_the_bundled_servers_and_knative_cost_at_rest() -> None:
    servers = at_rest(chart_manifests("values"))
    knative = Requests(PRICES.platform_cpu_millis, PRICES.platform_memory_mib)

    assert_page("docs/deploy/helm.md", f"request {servers}", f"requests {knative}")


def test_pages_of_knative_say_what_the_clock_costs_without_keda_and_what_keda_costs() -> None:
    # the requests of its operator, metrics server and webhooks, in its own manifests
    keda = Requests(3 * 100, 3 * 100)

    for page in ("docs/KNATIVE.md", "docs/deploy/helm.md", "docs/deploy/kustomize.md"):
        assert_page(page, f"{clock_month():.2f} a month")
    assert_page("docs/KNATIVE.md", f"request {keda}")


def test_page_of_kind_says_what_servers_knative_and_clock_cost_at_rest() -> None:
    servers = at_rest(chart_manifests("kind"))
    knative = Requests(PRICES.platform_cpu_millis, PRICES.platform_memory_mib)
    clock = f"{clock_month('kind'):.2f} a month"

    assert_page("infra/kind/README.md", f"request {servers}", f"requests {knative}", clock)


def test_page_of_compose_says_what_functions_reserve_and_all_containers_may_use() -> None:
    functions = total(
        {"cpu": f"{each.scale.cpu_millis}m", "memory": f"{each.scale.memory_mib}Mi"}
        for each in all_specs()
    )
    files = (ROOT / "compose.yaml", ROOT / "infra/compose/functions.yaml")
    services = [
        service
        for file in files
        for service in yaml.safe_load(file.read_text("utf-8"))["services"].values()
    ]
    limits = [
        each["mem_limit"] for each in services if "profiles" not in each and "mem_limit" in each
    ]
    all_mib = sum(1024 if each == "1g" else int(each.removesuffix("m")) for each in limits)

    assert_page(
        "docs/how-to/run-with-compose.md",
        f"{len(all_specs())} functions reserve {functions}",
        f"{len(limits)} containers may use {all_mib / 1024:.2f} GiB",
    )


def test_page_of_openfaas_says_what_its_functions_broker_and_edge_cost() -> None:
    stack = yaml.safe_load((ROOT / "stack.yml").read_text("utf-8"))["functions"].values()
    functions = total(each["requests"] for each in stack)
    files = sorted((ROOT / "infra/openfaas").glob("*.yaml"))
    objects = [parse(path.read_text("utf-8")) for path in files if path.stem in ("broker", "edge")]
    others = [at_rest(each) for each in objects]
    everything = Requests(
        functions.cpu_millis + sum(each.cpu_millis for each in others),
        functions.memory_mib + sum(each.memory_mib for each in others),
    )

    assert_page("docs/OPENFAAS.md", f"{len(stack)} functions, broker and edge request {everything}")


def test_page_of_openfaas_names_the_schedules_of_the_specs() -> None:
    schedules = [each for spec in all_specs() for each in spec.schedules]

    assert_page("docs/OPENFAAS.md", *(f"| `{each.name}` | `{each.cron}` |" for each in schedules))


def test_page_about_the_cost_has_the_defaults_of_the_command() -> None:
    names = ("vcpu_hour", "gib_hour"), ("sidecar_cpu_millis", "sidecar_memory_mib")

    for first, second in (*names, ("platform_cpu_millis", "platform_memory_mib")):
        options = ", ".join(f"`--{name.replace('_', '-')}`" for name in (first, second))
        assert_page(
            "docs/how-to/know-the-cost.md",
            f"| {options} | {DEFAULTS[first]:g}, {DEFAULTS[second]:g} |",
        )
