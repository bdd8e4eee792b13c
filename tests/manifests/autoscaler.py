"""The decision of Knative's autoscaler (KPA), computed from the annotations of a revision.

The formula is that of knative.dev/serving v0.42.2: the target of a pod in ``ResolveMetricTarget``
(pkg/reconciler/autoscaling/resources/target.go), the decision in ``Scale``
(pkg/autoscaler/scaling/autoscaler.go), defaults in config/core/configmaps/autoscaler.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "autoscaling.knative.dev/"
TARGET_MIN = 0.01
MAX_SCALE_UP_RATE, MAX_SCALE_DOWN_RATE = 1000.0, 2.0


@dataclass(frozen=True)
class Decision:
    """How many pods the autoscaler wants, and whether it panics (and then keeps them all)."""

    pods: int
    is_panic: bool


def decide(
    annotations: Mapping[str, str], container_concurrency: int, *, observed: float, ready: int
) -> Decision:
    """The decision at a mean concurrency of ``observed`` requests, equal in both windows."""

    def value(name: str, default: float) -> float:
        return float(annotations.get(PREFIX + name, default))

    total = min(value("target", container_concurrency), container_concurrency)
    target = max(TARGET_MIN, total * value("target-utilization-percentage", 70) / 100)
    pods = max(1, ready)
    needed = math.ceil(observed / target)
    wanted = min(max(needed, pods // MAX_SCALE_DOWN_RATE), math.ceil(MAX_SCALE_UP_RATE * pods))
    if needed > 0:
        wanted = max(wanted, value("activation-scale", 1))
    is_panic = needed / pods >= value("panic-threshold-percentage", 200) / 100
    limit = value("max-scale", 0) or math.inf
    return Decision(int(min(max(wanted, value("min-scale", 0)), limit)), is_panic)
