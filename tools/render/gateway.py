"""Gateway API: one host, and for each route the function behind Knative's local gateway.

Knative routes by host only, so each rule rewrites the host to the function's own and hands over to
Kourier's internal Service; scaling from zero and traffic splits stay Knative's.  ``/events`` is
nobody's route: it never comes through here.
"""

from __future__ import annotations

import re

from shop.primitives.spec import FunctionSpec, Route
from shop.registry import all_specs
from tools.render.objects import (
    COLD_START_SECONDS,
    NAMESPACE,
    Manifest,
    labels_of,
    metadata,
    name_of,
    request_seconds,
)

GATEWAY = "shop"
GATEWAY_CLASS = "envoy"
HOST = "shop.example.com"
CERTIFICATE = "shop-tls"
BACKEND = "kourier-internal"
BACKEND_NAMESPACE = "kourier-system"
# what a client might send to pass for somebody; only proxies of ours may say such things
STRIPPED = ("Ce-Id", "Ce-Source", "Ce-Specversion", "Ce-Type", "X-User-Id", "X-User-Role")
PARAMETER = re.compile(r"\{\w+\}")


def objects() -> list[Manifest]:
    """The Gateway, an HTTPRoute per function that has routes, and leave to use Kourier."""
    routes = [http_route(spec) for spec in all_specs() if spec.routes]
    return [gateway(), *routes, reference_grant()]


def gateway() -> Manifest:
    """One HTTPS listener for the shop's host; the certificate is in a Secret."""
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
    """The routes of one function, in one rule: they differ in the path only, not in the target."""
    host = f"{name_of(spec)}.{NAMESPACE}.svc.cluster.local"
    rule = {
        "matches": [match(route) for route in spec.routes],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [*STRIPPED]}},
            {"type": "URLRewrite", "urlRewrite": {"hostname": host}},
        ],
        "timeouts": {"request": f"{request_seconds(spec) + COLD_START_SECONDS}s"},
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


def match(route: Route) -> Manifest:
    """Exact where the path has no parameter; else an expression that takes one segment each."""
    parts = [re.escape(part) for part in PARAMETER.split(route.path)]
    expression = "[^/]+".join(parts).replace("\\-", "-")
    is_exact = not PARAMETER.search(route.path)
    path = (
        {"type": "Exact", "value": route.path}
        if is_exact
        else {"type": "RegularExpression", "value": expression}
    )
    return {"path": path, "method": route.method}


def reference_grant() -> Manifest:
    """Lets the shop's routes point at Kourier's internal Service, which is in another namespace."""
    source = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": NAMESPACE}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": metadata("shop-to-kourier", namespace=BACKEND_NAMESPACE),
        "spec": {"from": [source], "to": [{"group": "", "kind": "Service", "name": BACKEND}]},
    }
