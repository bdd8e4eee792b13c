"""The limits of all hops fit together in the rendered files, not only in the declaration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shop.primitives import http_limits as limits
from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs

ROOT = Path(__file__).resolve().parents[2]
EDGES = ("infra/edge/envoy.yaml", "infra/compose/envoy.yaml", "infra/openfaas/envoy.yaml")
ROUTED = [spec for spec in all_specs() if spec.routes]


def documents(path: str) -> list[dict[str, Any]]:
    """The YAML documents of a rendered file."""
    return list(yaml.safe_load_all((ROOT / path).read_text()))


def seconds(text: str) -> float:
    """A duration such as ``45s``."""
    assert re.fullmatch(r"[0-9.]+s", text), text
    return float(text[:-1])


def manager_of(path: str) -> dict[str, Any]:
    """The connection manager of the public port."""
    (bootstrap,) = documents(path)
    listener = bootstrap["static_resources"]["listeners"][0]
    manager: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def clusters_of(path: str) -> dict[str, dict[str, Any]]:
    (bootstrap,) = documents(path)
    return {each["name"]: each for each in bootstrap["static_resources"]["clusters"]}


def function_idle_seconds(cluster: dict[str, Any]) -> float:
    (options,) = cluster["typed_extension_protocol_options"].values()
    return seconds(options["common_http_protocol_options"]["idle_timeout"])


def pod_of(spec: FunctionSpec) -> dict[str, Any]:
    name = f"shop-{spec.name.replace('_', '-')}"
    service = documents(f"infra/knative/base/{name}.yaml")[0]
    pod: dict[str, Any] = service["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("path", EDGES)
@pytest.mark.parametrize("spec", ROUTED, ids=lambda spec: spec.name)
def test_edge_sends_no_more_than_run_and_wait(path: str, spec: FunctionSpec) -> None:
    processes = 1 if "compose" in path else spec.scale.max_scale
    (breaker,) = clusters_of(path)[spec.name]["circuit_breakers"]["thresholds"]

    waiting = spec.scale.waiting_max
    room = processes * (spec.scale.concurrency * (1 + limits.QUEUED_PER_THREAD) + waiting)

    assert set(breaker.values()) == {room}
    assert room // processes <= limits.CONNECTIONS_MAX


@pytest.mark.parametrize("path", EDGES)
def test_outer_hops_wait_longer_than_inner_ones(path: str) -> None:
    manager = manager_of(path)
    routes = [
        route["route"]
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]
        if "route" in route and route["route"]["cluster"] != "admin"
    ]
    assert len(routes) > 20
    silence = seconds(manager["stream_idle_timeout"])
    for route in routes:
        spec = next(spec for spec in ROUTED if spec.name == route["cluster"])
        function = pod_of(spec)["responseStartTimeoutSeconds"]
        waits = (limits.QUEUE_SECONDS, function, seconds(route["timeout"]), silence)
        assert list(waits) == sorted(set(waits)), route


@pytest.mark.parametrize("path", EDGES)
def test_outer_hops_close_idle_connections_first(path: str) -> None:
    clusters = clusters_of(path)

    for spec in ROUTED:
        idle = function_idle_seconds(clusters[spec.name])
        assert idle < limits.QUEUE_PROXY_IDLE_SECONDS < limits.SERVER_IDLE_SECONDS


@pytest.mark.parametrize("path", EDGES)
def test_edge_buffers_whole_requests_within_its_deadline(path: str) -> None:
    manager = manager_of(path)
    filters = [each["name"] for each in manager["http_filters"]]

    assert "envoy.filters.http.buffer" in filters
    assert seconds(manager["request_headers_timeout"]) <= seconds(manager["request_timeout"])
    assert seconds(manager["request_timeout"]) < seconds(manager["stream_idle_timeout"])


def test_gateway_waits_as_long_as_envoy_and_its_policies_have_the_same_limits() -> None:
    routes = [
        each
        for each in documents("infra/knative/components/gateway/gateway.yaml")
        if each["kind"] == "HTTPRoute"
    ]
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in documents("infra/edge/envoy-gateway.yaml")
        if each["kind"] == "BackendTrafficPolicy"
    }
    clusters = clusters_of("infra/edge/envoy.yaml")
    for spec in ROUTED:
        name = f"shop-{spec.name.replace('_', '-')}"
        (route,) = [each for each in routes if each["metadata"]["name"] == name]
        assert route["spec"]["rules"][0]["timeouts"]["request"] == f"{limits.edge_seconds(spec)}s"
        (breaker,) = clusters[spec.name]["circuit_breakers"]["thresholds"]
        assert set(policies[name]["circuitBreaker"].values()) == set(breaker.values())
        assert policies[name]["requestBuffer"] == {"limit": "64Ki"}


def test_termination_leaves_time_to_drain() -> None:
    for spec in all_specs():
        pod_path = ROOT / f"infra/knative/base/shop-{spec.name.replace('_', '-')}.yaml"
        if not pod_path.is_file():
            continue
        pod = pod_of(spec)
        left = pod["timeoutSeconds"] - limits.TERMINATION_SECONDS
        assert left > limits.DRAIN_SECONDS
        assert pod["responseStartTimeoutSeconds"] <= left
