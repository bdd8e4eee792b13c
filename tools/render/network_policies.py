"""What surrounds the functions: namespace, settings, identities, and who may talk to whom."""

from __future__ import annotations

from typing import Any

from tools.render.eventing import INGRESS
from tools.render.objects import NAMESPACE, SETTINGS, Manifest, account_of, domains, metadata

METRICS_PORT = 9095  # a side port: a scrape through the queue-proxy would keep a pod awake
# queue-proxy: HTTP, HTTP/2, TLS, and the numbers the autoscaler asks for
PROXY_PORTS = (8012, 8013, 8112, 9090)
DATABASE_PORTS = (5432, 6432)
# The gateway, the activator and queue-proxy each add the address they were called from.
TRUSTED_HOPS = 3
# Σ(max-scale × pool) must fit below what PgBouncer (or PostgreSQL) accepts (tools.manifest_rules)
CONNECTIONS_MAX = 2000
PLATFORM_NAMESPACES = ("knative-serving", "kourier-system")

SETTING_VALUES = {
    "SHOP_PROFILE": "prod",
    "BROKER_URL": INGRESS["imc"],
    "BUSINESS_TIME_ZONE": "Asia/Seoul",
    "CURRENCY": "KRW",
    "DATABASE_PREPARE": "off",
    "IDEMPOTENCY_KEY_REQUIRED": "false",
    "JWT_AUDIENCE": "shop",
    "JWT_ISSUER": "https://shop.example.com",
    "OPEN_ORDERS_MAX": "10",
    "ORDER_HARD_EXPIRY_SECONDS": "3600",
    "ORDER_SOFT_EXPIRY_SECONDS": "900",
    "PAYMENT_PROVIDER": "stripe",
    "RATE_LIMIT_PER_MINUTE": "120",
    "SETTLEMENTS_AUTH": "finance",
    "TRUSTED_HOPS": str(TRUSTED_HOPS),
}


def namespace() -> Manifest:
    """The shop's namespace, in which no pod may be privileged."""
    labels = {
        "app.kubernetes.io/part-of": "msa-shop",
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
    }
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": labels},
    }


def settings() -> Manifest:
    """What every function is told and nobody need hide."""
    annotations = {"msa-shop/database-connections-max": str(CONNECTIONS_MAX)}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(SETTINGS, annotations=annotations),
        "data": SETTING_VALUES,
    }


def metrics_setting() -> Manifest:
    """The change of the settings that opens the side port."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(SETTINGS),
        "data": {"METRICS_PORT": str(METRICS_PORT)},
    }


def service_accounts() -> list[Manifest]:
    """One identity per trust domain; none is given a token to talk to Kubernetes."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(account_of(domain)),
            "automountServiceAccountToken": False,
        }
        for domain in domains()
    ]


# ---------------------------------------------------------------- NetworkPolicies


def network_policies() -> list[Manifest]:
    """Nothing in, nothing out, and then what is needed; pods say by label what they reach."""
    return [
        _policy("default-deny", {}, {"policyTypes": ["Ingress", "Egress"]}),
        _out("dns", {}, [_namespaces("kube-system")], 53, protocols=("UDP", "TCP")),
        _functions_in(),
        _out("ticks", {"msa-shop/kind": "tick"}, [_namespaces(*PLATFORM_NAMESPACES)]),
        _out("broker", _reaching("broker"), [_namespaces("knative-eventing"), _broker_pods()]),
        _out("database", _reaching("database"), None, *DATABASE_PORTS),
        _out("redis", _reaching("redis"), None, 6379),
        _out("provider", _reaching("provider"), None, 443),
        *_rabbitmq(),
    ]


def scrape_policy() -> Manifest:
    """Lets Prometheus read the side port, and nothing else."""
    rule = {"from": [_namespaces("monitoring")], "ports": _ports(METRICS_PORT)}
    selected = {"msa-shop/kind": "function"}
    return _policy("metrics-in", selected, {"policyTypes": ["Ingress"], "ingress": [rule]})


def pod_monitor() -> Manifest:
    """Where the Prometheus operator finds the functions' numbers."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata("shop-functions"),
        "spec": {
            "selector": {"matchLabels": {"msa-shop/kind": "function"}},
            "podMetricsEndpoints": [
                {"portNumber": METRICS_PORT, "path": "/metrics", "interval": "15s"}
            ],
        },
    }


def _functions_in() -> Manifest:
    rule = {"from": [_namespaces(*PLATFORM_NAMESPACES)], "ports": _ports(*PROXY_PORTS)}
    selected = {"msa-shop/kind": "function"}
    return _policy("functions-in", selected, {"policyTypes": ["Ingress"], "ingress": [rule]})


def _rabbitmq() -> list[Manifest]:
    """The RabbitMQ broker runs its ingress and dispatchers beside the functions."""
    selected = {"eventing.knative.dev/broker": "shop"}
    into = {"from": [{"podSelector": {}}], "ports": _ports(8080)}
    out_of = [_namespaces(*PLATFORM_NAMESPACES), _namespaces("rabbitmq")]
    return [
        _policy("rabbitmq-in", selected, {"policyTypes": ["Ingress"], "ingress": [into]}),
        _out("rabbitmq", selected, out_of),
    ]


def _out(
    name: str,
    labels: dict[str, str],
    peers: list[Manifest] | None,
    *ports: int,
    protocols: tuple[str, ...] = ("TCP",),
) -> Manifest:
    rule: Manifest = {"to": peers} if peers else {}
    if ports:
        rule["ports"] = _ports(*ports, protocols=protocols)
    return _policy(f"{name}-out", labels, {"policyTypes": ["Egress"], "egress": [rule]})


def _policy(name: str, labels: dict[str, str], spec: dict[str, Any]) -> Manifest:
    selector = {"matchLabels": labels} if labels else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(f"shop-{name}"),
        "spec": {"podSelector": selector, **spec},
    }


def _reaching(what: str) -> dict[str, str]:
    return {f"msa-shop/reaches-{what}": "true"}


def _namespaces(*names: str) -> Manifest:
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(names)}
    return {"namespaceSelector": {"matchExpressions": [expression]}}


def _broker_pods() -> Manifest:
    return {"podSelector": {"matchLabels": {"eventing.knative.dev/broker": "shop"}}}


def _ports(*ports: int, protocols: tuple[str, ...] = ("TCP",)) -> list[Manifest]:
    return [{"port": port, "protocol": protocol} for port in ports for protocol in protocols]
