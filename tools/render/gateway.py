"""Renders the Gateway API: one host, and an HTTPRoute per function to Knative's local gateway.

Knative routes by host only, so each rule rewrites the host to the function's and forwards to
Kourier's internal Service; scaling from zero and traffic splits stay with Knative.  ``/events`` has
no route.

The Gateway API has no field for buffering, connection limits, idle times, and responses of the
gateway itself.  Envoy Gateway's own kinds have, and are rendered beside it; another implementation
needs the same in its own form (docs/reference/http-limits.md).
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
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
from tools.render.envoy import (
    ERRORS,
    LIVENESS,
    PROBLEM,
    WITH_RETRY_AFTER,
    allowed_methods,
    problem_members,
)
from tools.render.objects import NAMESPACE, Manifest, labels_of, metadata, name_of

POLICIES_FILE = Path("infra/edge/envoy-gateway.yaml")
GATEWAY = "shop"
GATEWAY_CLASS = "envoy"
# to be replaced by a host of one's own: not a valid name, so that the API server rejects it
HOST = "SHOP_HOST"
CERTIFICATE = "shop-tls"
BACKEND = "kourier-internal"
BACKEND_NAMESPACE = "kourier-system"
# identity headers that only the platform may set
STRIPPED = ("Ce-Id", "Ce-Source", "Ce-Specversion", "Ce-Type", "X-User-Id", "X-User-Role")
# RFC 6797: browsers use HTTPS only, for a year
HSTS = {"name": "Strict-Transport-Security", "value": "max-age=31536000"}
# of a routed request: its body is too long, or the function cannot be reached in time
LOCAL_ERRORS = (
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
UNMATCHED, NOT_FOUND, HEALTH = "shop-unmatched", "shop-not-found", "shop-health"
PARAMETER = re.compile(r"\{\w+\}")


def render() -> dict[Path, str]:
    """The policies for Envoy Gateway; the other objects are a component of ``infra/knative``."""
    return {POLICIES_FILE: yaml_text(*envoy_gateway_objects())}


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
    """A match per route (two for GET), and one for OPTIONS of each path that no other spec has.

    A function answers OPTIONS, and so the preflights of browsers, alike for all methods of a path.
    """
    owners = {route.path: other.name for other in reversed(all_specs()) for route in other.routes}
    own_paths = dict.fromkeys(r.path for r in spec.routes if owners[r.path] == spec.name)
    return [
        *(_match(route.path, route.method) for route in spec.routes),
        *(_match(route.path, "HEAD") for route in spec.routes if route.method == "GET"),
        *(_match(path, "OPTIONS") for path in own_paths),
    ]


def _match(path: str, method: str) -> Manifest:
    return {"path": _path(path), "method": method}


def _path(path: str) -> Manifest:
    """An exact match, or for a path with parameters an expression of one segment each."""
    parts = [re.escape(part) for part in PARAMETER.split(path)]
    expression = "[^/]+".join(parts).replace("\\-", "-")
    if PARAMETER.search(path):
        return {"type": "RegularExpression", "value": expression}
    return {"type": "Exact", "value": path}


def reference_grant() -> Manifest:
    """Allows the shop's routes to use Kourier's internal Service in its namespace."""
    source = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": NAMESPACE}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": metadata("shop-to-kourier", namespace=BACKEND_NAMESPACE),
        "spec": {"from": [source], "to": [{"group": "", "kind": "Service", "name": BACKEND}]},
    }


def envoy_gateway_objects() -> list[Manifest]:
    """Envoy Gateway's policies, for clients and for each function, and responses of its own."""
    policies = [_route_policy(spec) for spec in all_specs() if spec.routes]
    filters = [_policy("HTTPRouteFilter", name, spec) for name, spec in own_responses().items()]
    unmatched = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(UNMATCHED),
        "spec": {
            "parentRefs": [{"name": GATEWAY}],
            "hostnames": [HOST],
            "rules": unmatched_rules(),
        },
    }
    return [_client_policy(), *policies, *filters, unmatched]


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
        "responseOverride": local_errors(),
        "timeout": {"http": {"connectionIdleTimeout": f"{EDGE_FUNCTION_IDLE_SECONDS}s"}},
    }
    return _policy("BackendTrafficPolicy", name_of(spec), policy)


# ---------------------------------------------------------------- responses of the gateway


def own_responses() -> dict[str, Manifest]:
    """The HTTPRouteFilters of responses without a function, by name: 404, 405 and health."""
    responses = {
        NOT_FOUND: _own_problem(HTTPStatus.NOT_FOUND),
        HEALTH: _response(HTTPStatus.OK, "application/json", {"status": "UP"}),
    }
    for allow in _paths_by_allow():
        responses[_filter_name(allow)] = _own_problem(HTTPStatus.METHOD_NOT_ALLOWED, allow=allow)
    return {name: {"directResponse": response} for name, response in responses.items()}


def local_errors() -> list[Manifest]:
    """What the gateway says instead of a function, as problem documents; not what functions say."""
    return [
        {
            "match": {"statusCodes": [{"type": "Value", "value": int(status)}]},
            "source": "Local",
            "response": _own_problem(status),
        }
        for status in LOCAL_ERRORS
    ]


def unmatched_rules() -> list[Manifest]:
    """Rules for what no function serves; a match with a method takes precedence over one without.

    So a known path with another method gets 405, and everything else 404.
    """
    health = [{"path": _path(LIVENESS), "method": method} for method in ("GET", "HEAD")]
    everything = [{"path": {"type": "PathPrefix", "value": "/"}}]
    wrong_methods = [
        _own_rule(_filter_name(allow), [{"path": _path(path)} for path in paths])
        for allow, paths in _paths_by_allow().items()
    ]
    return [_own_rule(HEALTH, health), *wrong_methods, _own_rule(NOT_FOUND, everything)]


def _paths_by_allow() -> dict[str, list[str]]:
    methods: dict[str, set[str]] = {}
    for spec in all_specs():
        for route in spec.routes:
            methods.setdefault(route.path, set()).add(route.method)
    paths: dict[str, list[str]] = {}
    for path in sorted(methods):
        paths.setdefault(allowed_methods(methods[path]), []).append(path)
    return paths


def _filter_name(allow: str) -> str:
    return f"shop-allow-{allow.lower().replace(', ', '-')}"


def _own_rule(name: str, matches: list[Manifest]) -> Manifest:
    reference = {"group": "gateway.envoyproxy.io", "kind": "HTTPRouteFilter", "name": name}
    return {
        "matches": matches,
        "filters": [{"type": "ExtensionRef", "extensionRef": reference}],
    }


def _own_problem(status: HTTPStatus, *, allow: str = "") -> Manifest:
    """A problem document; its empty ``instance`` refers to the request's own URL."""
    members = problem_members(*ERRORS[status], status.phrase)
    headers = {"Cache-Control": "no-store"}
    if allow:
        headers["Allow"] = allow
    if status in WITH_RETRY_AFTER:
        headers["Retry-After"] = "1"
    return _response(status, PROBLEM, {**members, "status": int(status), "instance": ""}, headers)


def _response(
    status: HTTPStatus, media_type: str, body: Manifest, headers: dict[str, str] | None = None
) -> Manifest:
    response: Manifest = {
        "statusCode": int(status),
        "contentType": media_type,
        "body": {"type": "Inline", "inline": json.dumps(body)},
    }
    if headers:
        fields = [{"name": name, "value": value} for name, value in headers.items()]
        response["header"] = {"set": fields}
    return response


def _policy(kind: str, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": kind,
        "metadata": metadata(name),
        "spec": spec,
    }


def _target(kind: str, name: str) -> Manifest:
    return {"group": "gateway.networking.k8s.io", "kind": kind, "name": name}
