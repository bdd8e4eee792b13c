"""What the functions' usage costs, and what always-on replicas would cost for the same load."""

from __future__ import annotations

from dataclasses import dataclass

from shop.primitives.spec import Scale
from shop.registry import spec_of
from tools.cost.usage import FunctionUsage, Usage

HOUR = 3600.0
RATE_FACTOR_MAX = 1e6


@dataclass(frozen=True)
class Prices:
    """The settings of the report, in any one currency."""

    vcpu_hour: float
    gib_hour: float
    # what each pod has beside the function, and the platform beside the pods
    sidecar_cpu_millis: int
    sidecar_memory_mib: int
    platform_cpu_millis: int
    platform_memory_mib: int
    # replicas of each function where nothing scales to zero
    replicas: int

    def of_hour(self, cpu_millis: float, memory_mib: float) -> float:
        """The price of an hour of these resources."""
        return self.vcpu_hour * cpu_millis / 1000 + self.gib_hour * memory_mib / 1024

    def of_pod_hour(self, scale: Scale) -> float:
        """The price of an hour of a pod on Knative."""
        return self.of_hour(
            scale.cpu_millis + self.sidecar_cpu_millis, scale.memory_mib + self.sidecar_memory_mib
        )

    def of_replica_hour(self, scale: Scale) -> float:
        """The price of an hour of the same process without Knative."""
        return self.of_hour(scale.cpu_millis, scale.memory_mib)

    @property
    def of_platform_hour(self) -> float:
        """The price of an hour of Knative itself."""
        return self.of_hour(self.platform_cpu_millis, self.platform_memory_mib)


@dataclass(frozen=True)
class FunctionCost:
    """The costs of one function within the usage's time."""

    function: str
    usage: FunctionUsage
    scaled_to_zero: float
    always_on: float


@dataclass(frozen=True)
class CostReport:
    """The costs of all functions; per order None without one."""

    usage: Usage
    functions: tuple[FunctionCost, ...]
    platform: float
    # orders an hour from which always-on replicas cost less; 0: at every rate, None: at none
    break_even_orders_hour: float | None

    @property
    def scaled_to_zero(self) -> float:
        """All functions, and the platform."""
        return self.platform + sum(each.scaled_to_zero for each in self.functions)

    @property
    def always_on(self) -> float:
        """All functions as replicas that are always on."""
        return sum(each.always_on for each in self.functions)

    @property
    def order(self) -> float | None:
        """The cost of one order: everything that ran, divided by the orders."""
        return self.scaled_to_zero / self.usage.orders if self.usage.orders else None


def cost_report(usage: Usage, prices: Prices) -> CostReport:
    """The costs of a usage; ValueError without a duration or a function of the shop."""
    if usage.seconds <= 0 or not usage.functions:
        raise ValueError("the usage has no duration or no function")
    usage = usage.by_process()
    costs = tuple(
        _function_cost(name, each, usage, prices) for name, each in sorted(usage.functions.items())
    )
    platform = prices.of_platform_hour * usage.seconds / HOUR
    return CostReport(usage, costs, platform, _break_even(usage, prices))


def _scale_of(name: str) -> Scale:
    """The resources of a process, the highest of each where it serves several functions."""
    scales = [spec_of(one).scale for one in name.split(",")]
    return Scale(
        cpu_millis=max(scale.cpu_millis for scale in scales),
        memory_mib=max(scale.memory_mib for scale in scales),
    )


def _function_cost(name: str, used: FunctionUsage, usage: Usage, prices: Prices) -> FunctionCost:
    scale = _scale_of(name)
    replicas = max(prices.replicas, used.process_seconds / usage.seconds)
    return FunctionCost(
        function=name,
        usage=used,
        scaled_to_zero=prices.of_pod_hour(scale) * used.process_seconds / HOUR,
        always_on=prices.of_replica_hour(scale) * replicas * usage.seconds / HOUR,
    )


def _break_even(usage: Usage, prices: Prices) -> float | None:
    """Orders an hour from which always-on replicas cost less: 0 at every rate, None at none."""
    low, high = 0.0, RATE_FACTOR_MAX
    if not usage.orders or _saved_hourly(usage, prices, high) > 0:
        return None
    if _saved_hourly(usage, prices, low) <= 0:
        return 0.0
    for _ in range(100):
        middle = (low + high) / 2
        is_cheaper = _saved_hourly(usage, prices, middle) > 0
        low, high = (middle, high) if is_cheaper else (low, middle)
    return high * usage.orders / usage.seconds * HOUR


def _saved_hourly(usage: Usage, prices: Prices, factor: float) -> float:
    """What scaling to zero saves an hour at a multiple of the usage's rate."""
    saved = -prices.of_platform_hour
    for name, used in usage.functions.items():
        scale = _scale_of(name)
        pods = pods_at(used.process_seconds / usage.seconds, factor)
        saved += prices.of_replica_hour(scale) * max(prices.replicas, pods)
        saved -= prices.of_pod_hour(scale) * pods
    return saved


def pods_at(pods: float, factor: float) -> float:
    """The mean number of pods at a multiple of the rate that needed ``pods``.

    Below one pod requests of a Poisson process share it: it is off only while none has come within
    its retention time, with a probability of ``1 - pods``; above, pods grow with the rate.
    """
    return 1 - (1 - pods) ** factor if pods < 1 else pods * factor
