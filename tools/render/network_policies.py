"""Renders the namespace, settings, service accounts, network policies and scrape targets."""

from __future__ import annotations

from typing import Any

from tools.render.eventing import INGRESS
from tools.render.objects import NAMESPACE, SETTINGS, Manifest, account_of, domains, metadata

METRICS_PORT = 9095  # a separate port: a scrape through queue-proxy prevents scaling to zero
# queue-proxy: HTTP, HTTP/2, TLS, and the metrics of the autoscaler
PROXY_PORTS = (8012, 8013, 8112, 9090)
DATABASE_PORTS = (5432, 6432)
# submission with TLS from the first byte, and with STARTTLS
MAIL_PORTS = (465, 587)
# The gateway, the activator and queue-proxy each append the address of their caller.
TRUSTED_HOPS = 3
# Σ(max-scale × pool) must not exceed what PgBouncer (or PostgreSQL) accepts (tools.manifest_rules)
CONNECTIONS_MAX = 2000
# nothing of the cluster, its nodes or the cloud's metadata service
INTERNET: Manifest = {
    "ipBlock": {
        "cidr": "0.0.0.0/0",
        "except": [
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
        ],
    }
}
PLATFORM_NAMESPACES = ("knative-serving", "kourier-system")

SETTING_VALUES = {
    "SHOP_PROFILE": "prod",
    "BROKER_CLASS": "imc",
    "BROKER_URL": INGRESS["imc"],
    "BUSINESS_TIME_ZONE": "Asia/Seoul",
    "COMMON_PASSWORDS_ALLOWED": "false",
    "CORS_ORIGINS": "",
    "CURRENCY": "KRW",
    "DATABASE_PREPARE": "off",
    "EMAIL_VERIFICATION": "off",
    "IDEMPOTENCY_KEY_REQUIRED": "false",
    "JWT_AUDIENCE": "shop",
    "JWT_ISSUER": "https://shop.example.com",
    "OPEN_ORDERS_MAX": "10",
    "ORDER_HARD_EXPIRY_SECONDS": "3600",
    "ORDER_SOFT_EXPIRY_SECONDS": "900",
    "MAIL_FROM": "",
    "PAYMENT_PROVIDER": "stripe",
    "RATE_LIMIT_PER_MINUTE": "120",
    "RETENTION": "",
    "UNPAID_STOCK_PERCENT": "50",
    "SECOND_FACTOR_ROLES": "",
    "SETTLEMENTS_AUTH": "finance",
    "SHOP_LANGUAGE": "ko",
    "SHOP_NAME": "msa-shop",
    "SHOP_URL": "",
    "TRUSTED_HOPS": str(TRUSTED_HOPS),
    "UNKNOWN_QUERY_PARAMETERS_IGNORED": "true",
}


def namespace() -> Manifest:
    """The namespace of the shop, with Pod Security "restricted"."""
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
    """The ConfigMap of all settings that are not secret."""
    annotations = {"msa-shop/database-connections-max": str(CONNECTIONS_MAX)}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(SETTINGS, annotations=annotations),
        "data": SETTING_VALUES,
    }


def metrics_setting() -> Manifest:
    """The patch of the settings that enables the metrics port."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(SETTINGS),
        "data": {"METRICS_PORT": str(METRICS_PORT)},
    }


def service_accounts() -> list[Manifest]:
    """One service account per trust domain, without an API token."""
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
    """A default deny, and the traffic that pods need; labels of pods state what they reach."""
    return [
        _policy("default-deny", {}, {"policyTypes": ["Ingress", "Egress"]}),
        _egress("dns", {}, [_namespaces("kube-system")], 53, protocols=("UDP", "TCP")),
        _functions_ingress(),
        _egress("ticks", {"msa-shop/kind": "tick"}, [_namespaces(*PLATFORM_NAMESPACES)]),
        _egress("broker", _reaches("broker"), [_namespaces("knative-eventing"), _broker_pods()]),
        _egress("database", _reaches("database"), None, *DATABASE_PORTS),
        _egress("redis", _reaches("redis"), None, 6379),
        _egress("provider", _reaches("provider"), [INTERNET], 443),
        _egress("webhooks", _reaches("webhooks"), [INTERNET], 443),
        _egress("mail", _reaches("mail"), [INTERNET], *MAIL_PORTS),
        *_rabbitmq(),
    ]


def api_policy(app: str, name: str) -> Manifest:
    """Allows the pods of an app to reach the Kubernetes API, which no selector names."""
    return _egress(name, {"app.kubernetes.io/name": app}, None, 443, 6443)


def smoke_policy(app: str) -> Manifest:
    """Allows the pods of an app to send smoke requests to functions."""
    return _egress("smoke", {"app.kubernetes.io/name": app}, [_namespaces(*PLATFORM_NAMESPACES)])


def scrape_policy() -> Manifest:
    """Allows Prometheus to read the metrics port."""
    rule = {"from": [_namespaces("monitoring")], "ports": _ports(METRICS_PORT)}
    selected = {"msa-shop/kind": "function"}
    return _policy("metrics-in", selected, {"policyTypes": ["Ingress"], "ingress": [rule]})


def pod_monitor() -> Manifest:
    """The scrape target of the Prometheus operator."""
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


def _functions_ingress() -> Manifest:
    rule = {"from": [_namespaces(*PLATFORM_NAMESPACES)], "ports": _ports(*PROXY_PORTS)}
    selected = {"msa-shop/kind": "function"}
    return _policy("functions-in", selected, {"policyTypes": ["Ingress"], "ingress": [rule]})


def _rabbitmq() -> list[Manifest]:
    """Policies for RabbitMQ's ingress and dispatchers, which run in the shop's namespace."""
    selected = {"eventing.knative.dev/broker": "shop"}
    ingress: Manifest = {"from": [{"podSelector": {}}], "ports": _ports(8080)}
    peers = [_namespaces(*PLATFORM_NAMESPACES), _namespaces("rabbitmq")]
    return [
        _policy("rabbitmq-in", selected, {"policyTypes": ["Ingress"], "ingress": [ingress]}),
        _egress("rabbitmq", selected, peers),
    ]


def _egress(
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


def _reaches(target: str) -> dict[str, str]:
    return {f"msa-shop/reaches-{target}": "true"}


def _namespaces(*names: str) -> Manifest:
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(names)}
    return {"namespaceSelector": {"matchExpressions": [expression]}}


def _broker_pods() -> Manifest:
    return {"podSelector": {"matchLabels": {"eventing.knative.dev/broker": "shop"}}}


def _ports(*ports: int, protocols: tuple[str, ...] = ("TCP",)) -> list[Manifest]:
    return [{"port": port, "protocol": protocol} for port in ports for protocol in protocols]
