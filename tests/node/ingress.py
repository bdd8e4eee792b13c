"""The ingress layer that Knative Serving needs, for a node that can pull none: tests only.

Runs in a pod beside Envoy.  It watches Knative's internal Ingresses of the whole cluster, writes
the routes and clusters that Envoy reads from files, and declares an Ingress ready once Envoy has
its version.  HTTP/1.1 inside the cluster only: no TLS, no HTTP/2, no external visibility.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx

Json = dict[str, Any]

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PATH = "/apis/networking.internal.knative.dev/v1alpha1"
ADMIN = "http://127.0.0.1:9901"
ADDRESS = "kourier-internal.kourier-system.svc.cluster.local"
VERSIONS = ("cluster_manager.cds.version_text", "http.ingress.rds.routes.version_text")
TYPES = "type.googleapis.com/envoy.config"
HTTP_PORT = 80


def main(folder: Path) -> None:
    """Follows the Ingresses for ever; exits with the error of the API server."""
    token = (ACCOUNT / "token").read_text()
    with httpx.Client(
        base_url=f"https://{os.environ['KUBERNETES_SERVICE_HOST']}",
        headers={"authorization": f"Bearer {token}"},
        verify=str(ACCOUNT / "ca.crt"),
        timeout=httpx.Timeout(10, read=60),
    ) as api:
        clusters: dict[str, Json] = {}
        while True:
            listed = api.get(f"{PATH}/ingresses").raise_for_status().json()
            clusters |= clusters_of(listed["items"])
            publish(folder, list(clusters.values()), virtual_hosts_of(listed["items"]))
            for ingress in listed["items"]:
                if not is_ready(ingress):
                    declare_ready(api, ingress)
            wait_for_change(api, listed["metadata"]["resourceVersion"])


def virtual_hosts_of(ingresses: list[Json]) -> list[Json]:
    """One virtual host for each rule, with its routes in the order of the rule."""
    return [
        {
            "name": "/".join([i["metadata"]["namespace"], i["metadata"]["name"], str(number)]),
            "domains": [d for host in rule["hosts"] for d in (host, f"{host}:*")],
            "routes": [_route(path) for path in rule["http"]["paths"]],
        }
        for i in ingresses
        for number, rule in enumerate(i["spec"].get("rules", ()))
    ]


def clusters_of(ingresses: list[Json]) -> dict[str, Json]:
    """The clusters that the routes name; each is the Service of a revision."""
    splits = [
        split
        for ingress in ingresses
        for rule in ingress["spec"].get("rules", ())
        for path in rule["http"]["paths"]
        for split in path["splits"]
    ]
    return {_cluster_name(split): _cluster(split) for split in splits}


def _route(path: Json) -> Json:
    headers = [
        {"name": name, "string_match": match}
        for name, match in sorted(path.get("headers", {}).items())
    ]
    action: Json = {
        "timeout": "0s",
        "weighted_clusters": {
            "clusters": [
                {
                    "name": _cluster_name(split),
                    "weight": split.get("percent", 100),
                    "request_headers_to_add": _headers(split),
                }
                for split in path["splits"]
            ]
        },
    }
    if "rewriteHost" in path:
        action["host_rewrite_literal"] = path["rewriteHost"]
    return {
        "match": {"prefix": path.get("path", "/"), "headers": headers},
        "route": action,
        "request_headers_to_add": _headers(path),
    }


def _headers(part: Json) -> list[Json]:
    return [
        {
            "header": {"key": name, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
        for name, value in sorted(part.get("appendHeaders", {}).items())
    ]


def _cluster_name(split: Json) -> str:
    return f"{split['serviceNamespace']}/{split['serviceName']}:{split['servicePort']}"


def _cluster(split: Json) -> Json:
    host = f"{split['serviceName']}.{split['serviceNamespace']}.svc.cluster.local"
    address = {"address": host, "port_value": split["servicePort"]}
    endpoint = {"endpoint": {"address": {"socket_address": address}}}
    name = _cluster_name(split)
    return {
        "@type": f"{TYPES}.cluster.v3.Cluster",
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "dns_lookup_family": "V4_ONLY",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def publish(folder: Path, clusters: list[Json], hosts: list[Json]) -> None:
    """Writes both files, clusters first, and waits until Envoy has read each."""
    routes = {
        "@type": f"{TYPES}.route.v3.RouteConfiguration",
        "name": "routes",
        "virtual_hosts": hosts,
    }
    for name, statistic, resources in zip(
        ("clusters", "routes"), VERSIONS, (clusters, [routes]), strict=True
    ):
        version = hashlib.sha256(json.dumps(resources).encode()).hexdigest()[:12]
        text = json.dumps({"version_info": version, "resources": resources})
        target, new = folder / f"{name}.json", folder / f"{name}.new"
        if target.exists() and target.read_text() == text:
            continue
        new.write_text(text)
        new.replace(target)
        while version not in _statistic(statistic):
            time.sleep(0.02)


def _statistic(name: str) -> str:
    try:
        return httpx.get(f"{ADMIN}/stats", params={"filter": name}).text
    except httpx.TransportError:  # Envoy has not started yet
        return ""


def is_ready(ingress: Json) -> bool:
    """Whether the status is of the present generation, and says Ready."""
    status = ingress.get("status", {})
    is_current = status.get("observedGeneration") == ingress["metadata"]["generation"]
    conditions = status.get("conditions", ())
    return is_current and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def declare_ready(api: httpx.Client, ingress: Json) -> None:
    """Sets the status; an Ingress that changed or went meanwhile comes with the next change."""
    metadata = ingress["metadata"]
    address = {"ingress": [{"domainInternal": ADDRESS}]}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    status = {
        "observedGeneration": metadata["generation"],
        "conditions": [
            {"type": condition, "status": "True", "lastTransitionTime": now}
            for condition in ("LoadBalancerReady", "NetworkConfigured", "Ready")
        ],
        "privateLoadBalancer": address,
        "publicLoadBalancer": address,
    }
    response = api.patch(
        f"{PATH}/namespaces/{metadata['namespace']}/ingresses/{metadata['name']}/status",
        json={"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status},
        headers={"content-type": "application/merge-patch+json"},
    )
    if response.status_code not in (404, 409):
        response.raise_for_status()


def wait_for_change(api: httpx.Client, version: str) -> None:
    """Returns at the next change, or after 30 s."""
    query: dict[str, str | int] = {"watch": 1, "resourceVersion": version, "timeoutSeconds": 30}
    with api.stream("GET", f"{PATH}/ingresses", params=query) as response:
        for _ in response.iter_lines():
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
