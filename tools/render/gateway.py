"""Renders the Gateway API: one host, and an HTTPRoute per function to Knative's local gateway.

Knative routes by host only, so each rule rewrites the host to the function's and forwards to
Kourier's internal Service; scaling from zero and traffic splits stay with Knative.  ``/events`` has
no route.

The Gateway API has no field for buffering, connection limits and idle times.  Envoy Gateway's own
policies have, and are rendered beside it; another implementation needs the same limits in its own
form (docs/reference/http-limits.md).
"""

from __future__ import annotations

import re
from pathlib import Path

from shop.primitives.http_limits import (
    EDGE_CLIENT_IDLE_SECONDS,
    EDGE_CONNECTIONS_MAX,
    EDGE_FUNCTION_IDLE_SECONDS,
    EDGE_REQUEST_SECONDS,
    EDGE_STREAM_IDLE_SECONDS,
    edge_seconds,
    requests_max,
)
from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from shop.runtime.http_messages import BODY_MAX
from tools.render.documents import yaml_text
from tools.render.objects import NAMESPACE, Manifest, labels_of, metadata, name_of

POLICIES_FILE = Path("infra/edge/envoy-gateway.yaml")
GATEWAY = "shop"
GATEWAY_CLASS = "envoy"
HOST = "shop.example.com"
CERTIFICATE = "shop-tls"
BACKEND = "kourier-internal"
BACKEND_NAMESPACE = "kourier-system"
# identity headers that only the platform may set
STRIPPED = ("Ce-Id", "Ce-Source", "Ce-Specversion", "Ce-Type", "X-User-Id", "X-User-Role")
# RFC 6797: browsers use HTTPS only, for a year
HSTS = {"name": "Strict-Transport-Security", "value": "max-age=31536000"}
PARAMETER = re.compile(r"\{\w+\}")


def render() -> dict[Path, str]:
    """The policies for Envoy Gateway; the other objects are a component of ``infra/knative``."""
    return {POLICIES_FILE: yaml_text(*envoy_gateway_policies())}


def objects() -> list[Manifest]:
    """The Gateway, an HTTPRoute per function with routes, and the grant to use Kourier."""
    routes = [http_route(spec) for spec in all_specs() if spec.routes]
    return [gateway(), *routes, reference_grant()]


def gateway() -> Manifest:
    """A Gateway with one HTTPS listener for the shop's host; its certificate is in a Secret."""
    listener = {
        "name": "https",
        "protocol": "HTTPS",
        "port": 443,
        "hostname": HOST,
        "tls": {"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": CERTIFICATE}]},
        "allowedRoutes": {"namespaces": {"from": "Same"}},
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": metadata(GATEWAY),
        "spec": {"gatewayClassName": GATEWAY_CLASS, "listeners": [listener]},
    }


def http_route(spec: FunctionSpec) -> Manifest:
    """The routes of one function, as matches of one rule."""
    host = f"{name_of(spec)}.{NAMESPACE}.svc.cluster.local"
    rule = {
        "matches": matches(spec),
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [*STRIPPED]}},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [HSTS]}},
            {"type": "URLRewrite", "urlRewrite": {"hostname": host}},
        ],
        "timeouts": {"request": f"{edge_seconds(spec)}s"},
        "backendRefs": [{"name": BACKEND, "namespace": BACKEND_NAMESPACE, "port": 80}],
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(name_of(spec), labels_of(spec)),
        "spec": {
            "parentRefs": [{"name": GATEWAY}],
            "hostnames": [HOST],
            "rules": [rule],
        },
    }


def matches(spec: FunctionSpec) -> list[Manifest]:
    """A match per route, and one for the OPTIONS requests of each path that no other spec has.

    A function answers OPTIONS, and so the preflights of browsers, alike for all methods of a path.
    """
    owners = {route.path: other.name for other in reversed(all_specs()) for route in other.routes}
    own_paths = dict.fromkeys(r.path for r in spec.routes if owners[r.path] == spec.name)
    return [
        *(_match(route.path, route.method) for route in spec.routes),
        *(_match(path, "OPTIONS") for path in own_paths),
    ]


def _match(path: str, method: str) -> Manifest:
    """An exact match, or for a path with parameters an expression of one segment each."""
    parts = [re.escape(part) for part in PARAMETER.split(path)]
    expression = "[^/]+".join(parts).replace("\\-", "-")
    is_exact = not PARAMETER.search(path)
    shape = (
        {"type": "Exact", "value": path}
        if is_exact
        else {"type": "RegularExpression", "value": expression}
    )
    return {"path": shape, "method": method}


def reference_grant() -> Manifest:
    """Allows the shop's routes to use Kourier's internal Service in its namespace."""
    source = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": NAMESPACE}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": metadata("shop-to-kourier", namespace=BACKEND_NAMESPACE),
        "spec": {"from": [source], "to": [{"group": "", "kind": "Service", "name": BACKEND}]},
    }


def envoy_gateway_policies() -> list[Manifest]:
    """Envoy Gateway's policies: one for clients, and one for the route of each function."""
    return [_client_policy(), *(_route_policy(spec) for spec in all_specs() if spec.routes)]


def _client_policy() -> Manifest:
    timeouts = {
        "requestReceivedTimeout": f"{EDGE_REQUEST_SECONDS}s",
        "idleTimeout": f"{EDGE_CLIENT_IDLE_SECONDS}s",
        "streamIdleTimeout": f"{EDGE_STREAM_IDLE_SECONDS}s",
    }
    spec = {
        "targetRefs": [_target("Gateway", GATEWAY)],
        "timeout": {"http": timeouts},
        "connection": {"connectionLimit": {"value": EDGE_CONNECTIONS_MAX}},
    }
    return _policy("ClientTrafficPolicy", GATEWAY, spec)


def _route_policy(spec: FunctionSpec) -> Manifest:
    limit = requests_max(spec, processes=spec.scale.max_scale)
    breaker = {"maxConnections": limit, "maxPendingRequests": limit, "maxParallelRequests": limit}
    policy = {
        "targetRefs": [_target("HTTPRoute", name_of(spec))],
        # a request is forwarded when it is complete
        "requestBuffer": {"limit": f"{BODY_MAX // 1024}Ki"},
        "circuitBreaker": breaker,
        "timeout": {"http": {"connectionIdleTimeout": f"{EDGE_FUNCTION_IDLE_SECONDS}s"}},
    }
    return _policy("BackendTrafficPolicy", name_of(spec), policy)


def _policy(kind: str, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": kind,
        "metadata": metadata(name),
        "spec": spec,
    }


def _target(kind: str, name: str) -> Manifest:
    return {"group": "gateway.networking.k8s.io", "kind": kind, "name": name}
