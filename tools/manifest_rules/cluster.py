"""Rules for pods, network policies, service accounts, scalers, routes and settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields

from shop.runtime.config import Settings
from shop.runtime.setting_checks import is_placeholder
from tools.manifest_rules.manifests import (
    Manifest,
    ManifestSet,
    Rule,
    annotations_of,
    containers_of,
    describe,
    environment_of,
    is_true,
    is_whole,
    labels_of,
    name_of,
    section,
)
from tools.manifest_rules.serving import RESERVED_PORTS, SCALING
from tools.render.eventing import clock_name
from tools.render.gateway import HOST
from tools.render.keda import due_query, due_schedules

CONNECTIONS = "msa-shop/database-connections-max"
QUERY_KEYS = {"activationTargetQueryValue", "query", "targetQueryValue"}
SECRET_NAME = re.compile(r"(PASSWORD|SECRET|TOKEN|API_KEY|PRIVATE_KEY|SIGNING_KEY|_URL)$")
WITH_PASSWORD = re.compile(r"://[^/@\s:]*:[^/@\s]+@")
SCALED_NAME_MAX, NAME_MAX = 54, 63
MUTABLE_TAG = "latest"
# servers that only the operator can name, as networks, which the chart's prod profile requires; and
# the Kubernetes API, which no selector names
WITHOUT_PEERS = {
    "shop-database-out",
    "shop-migration-out",
    "shop-observability",
    "shop-pgbouncer",
    "shop-redis-out",
    "shop-tools-api-out",
    "shop-warm-hours-out",
}
# read by the OpenTelemetry library
TELEMETRY = "OTEL_"


def pods_are_restricted(manifests: ManifestSet) -> Iterator[str]:
    """Pod Security "restricted", and a read-only root file system."""
    for manifest, template in manifests.pods():
        for container in containers_of(template):
            context = section(container, "securityContext")
            required = {
                "runAsNonRoot": True,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
            for field, value in required.items():
                if context.get(field) != value:
                    yield f"{describe(manifest)}: {field} is {context.get(field)!r}"


def pods_mount_no_service_account_token(manifests: ManifestSet) -> Iterator[str]:
    """Pods and service accounts do not mount tokens automatically."""
    for manifest, template in manifests.pods():
        if template["spec"].get("automountServiceAccountToken") is not False:
            yield f"{describe(manifest)}: mounts a token automatically"
    for manifest in manifests.kind("ServiceAccount"):
        if manifest.get("automountServiceAccountToken") is not False:
            yield f"{describe(manifest)}: mounts tokens automatically"


def service_accounts_exist(manifests: ManifestSet) -> Iterator[str]:
    """The ServiceAccount that a pod names exists."""
    accounts = {name_of(manifest) for manifest in manifests.kind("ServiceAccount")}
    for manifest, template in manifests.pods():
        name = template["spec"].get("serviceAccountName")
        if name and name not in accounts:
            yield f"{describe(manifest)}: there is no ServiceAccount {name}"


def pods_have_resource_limits(manifests: ManifestSet) -> Iterator[str]:
    """Each container has requests and a memory limit; a function may use a whole CPU to start."""
    for manifest, template in manifests.pods():
        for container in containers_of(template):
            requests = section(container, "resources", "requests")
            limits = section(container, "resources", "limits")
            if not {"cpu", "memory"} <= requests.keys() or "memory" not in limits:
                yield f"{describe(manifest)}: has no requests or no memory limit"
            elif manifest.get("apiVersion", "").startswith("serving") and str(
                limits.get("cpu", "1")
            ).endswith("m"):
                yield f"{describe(manifest)}: less than one CPU makes a cold start slow"


def images_have_a_version(manifests: ManifestSet) -> Iterator[str]:
    """An image without a tag or digest, or with the tag latest, can change."""
    for manifest, template in manifests.pods():
        for container in containers_of(template):
            image = container.get("image", "")
            tag = image.rpartition("/")[2].partition(":")[2]
            if "@sha256:" not in image and tag in ("", MUTABLE_TAG):
                yield f"{describe(manifest)}: {image or 'no image'} has no version"


def secrets_are_not_in_the_environment(manifests: ManifestSet) -> Iterator[str]:
    """Secrets are files: environment variables are visible in every description of the pod."""
    for manifest, template in manifests.pods():
        for container in containers_of(template):
            for name, value in environment_of(container).items():
                if value and (SECRET_NAME.search(name) and "://" not in value):
                    yield f"{describe(manifest)}: {name} has a literal value"
                elif WITH_PASSWORD.search(value):
                    yield f"{describe(manifest)}: {name} holds a password"


def secrets_are_not_arguments(manifests: ManifestSet) -> Iterator[str]:
    """Every process of the node's pod can read a command line, so none contains a secret."""
    for manifest, template in manifests.pods():
        for container in containers_of(template):
            secret = {
                variable["name"]
                for variable in container.get("env", ())
                if "secretKeyRef" in variable.get("valueFrom", {})
            }
            words = " ".join([*container.get("command", ()), *container.get("args", ())])
            for name in sorted(secret & set(re.findall(r"\$\((\w+)\)", words))):
                yield f"{describe(manifest)}: {name} is part of the command line"


def egress_names_its_peers(manifests: ManifestSet) -> Iterator[str]:
    """A rule without peers allows every address: the metadata service, other tenants, the API."""
    for manifest in manifests.kind("NetworkPolicy"):
        is_known = name_of(manifest) in WITHOUT_PEERS
        for rule in manifest["spec"].get("egress", ()):
            if not rule.get("to") and not is_known:
                yield f"{describe(manifest)}: allows egress to any address"


def network_traffic_is_denied_by_default(manifests: ManifestSet) -> Iterator[str]:
    """One policy denies all traffic of all pods; the others allow what is needed."""
    for manifest in manifests.kind("NetworkPolicy"):
        spec = manifest["spec"]
        is_both = set(spec.get("policyTypes", ())) == {"Ingress", "Egress"}
        allows = spec.get("ingress") or spec.get("egress")
        if not spec.get("podSelector") and is_both and not allows:
            return
    if next(manifests.functions(), None):
        yield "no NetworkPolicy denies everything by default"


def functions_accept_ingress(manifests: ManifestSet) -> Iterator[str]:
    """A policy allows ingress to each function; otherwise it never becomes ready."""
    selectors = [
        manifest["spec"]["podSelector"].get("matchLabels", {})
        for manifest in manifests.kind("NetworkPolicy")
        if manifest["spec"].get("ingress")
    ]
    if not selectors:
        return
    for manifest in manifests.functions():
        labels = labels_of(manifest["spec"]["template"]).items()
        if not any(selected.items() <= labels for selected in selectors if selected):
            yield f"{describe(manifest)}: no NetworkPolicy allows ingress"


def database_connections_fit(manifests: ManifestSet) -> Iterator[str]:
    """Σ(max-scale × connections) of all functions with a database is within the maximum.

    A process has a connection for each request, and with the broker class ``imc`` one more for the
    events that it delivers.
    """
    for manifest in manifests.kind("ConfigMap"):
        declared = annotations_of(manifest).get(CONNECTIONS)
        delivers = manifest.get("data", {}).get("BROKER_CLASS") == "imc"
        total = sum(_connections(each, delivers=delivers) for each in manifests.functions())
        if declared is not None and total > int(declared):
            yield f"{describe(manifest)}: functions may open {total} connections of {declared}"


def _connections(function: Manifest, *, delivers: bool) -> int:
    template = function["spec"]["template"]
    if not is_true(labels_of(template).get("msa-shop/reaches-database")):
        return 0
    max_scale = annotations_of(template).get(f"{SCALING}max-scale", "0")
    pool = template["spec"].get("containerConcurrency", 0)
    emits = is_true(labels_of(template).get("msa-shop/reaches-broker"))
    return int(max_scale) * (pool + (delivers and emits)) if is_whole(max_scale) else 0


def keda_does_not_scale_functions(manifests: ManifestSet) -> Iterator[str]:
    """A Knative Service has no scale subresource, and Knative scales its revisions' Deployments."""
    functions = {name_of(manifest) for manifest in manifests.functions()}
    for manifest in manifests.kind("ScaledObject"):
        target = manifest["spec"]["scaleTargetRef"]
        is_function = target["name"] in functions or target.get("kind") == "Service"
        if is_function or re.search(r"-\d{5}-deployment$", target["name"]):
            yield f"{describe(manifest)}: {target['name']} is scaled by Knative"


def keda_query_counts_due_work(manifests: ManifestSet) -> Iterator[str]:
    """The schema does not check trigger metadata: a misspelt key fails at run time only."""
    queries = {clock_name(schedule): due_query(schedule) for _, schedule in due_schedules()}
    for manifest in manifests.kind("ScaledJob"):
        if len(name_of(manifest)) > SCALED_NAME_MAX:
            yield f"{describe(manifest)}: the name is longer than {SCALED_NAME_MAX}"
        query = queries.get(name_of(manifest))
        for trigger in manifest["spec"]["triggers"]:
            metadata = trigger["metadata"]
            for key in metadata.keys() ^ QUERY_KEYS:
                yield f"{describe(manifest)}: {key} is missing or unknown to the postgresql scaler"
            if metadata.get("query", query) != query:
                yield f"{describe(manifest)}: does not count the due_work of its schedule"


def no_other_autoscaler_is_used(manifests: ManifestSet) -> Iterator[str]:
    """Knative scales functions; a HorizontalPodAutoscaler of a revision conflicts with it."""
    for manifest in manifests.kind("HorizontalPodAutoscaler"):
        yield f"{describe(manifest)}: conflicts with the autoscaler of Knative"


def routes_lead_to_functions(manifests: ManifestSet) -> Iterator[str]:
    """Each route ends at the host name of an existing function; none leads to /events."""
    for manifest in manifests.kind("HTTPRoute"):
        for rule in manifest["spec"]["rules"]:
            if "backendRefs" not in rule:  # the gateway responds itself
                continue
            rewrites = [f["urlRewrite"] for f in rule.get("filters", ()) if "urlRewrite" in f]
            host = rewrites[0].get("hostname", "") if rewrites else ""
            if manifests.function(host.partition(".")[0]) is None:
                yield f"{describe(manifest)}: {host or 'no host'} is not the host of a function"
            for match in rule.get("matches", ()):
                if re.match(match["path"]["value"] + r"\Z", "/events"):
                    yield f"{describe(manifest)}: leads to /events"


def reference_grants_exist(manifests: ManifestSet) -> Iterator[str]:
    """A backend in another namespace needs a ReferenceGrant there."""
    granted = {
        (g["metadata"]["namespace"], to["name"])
        for g in manifests.kind("ReferenceGrant")
        for to in g["spec"]["to"]
    }
    for manifest in manifests.kind("HTTPRoute"):
        for rule in manifest["spec"]["rules"]:
            for backend in rule.get("backendRefs", ()):
                if (backend.get("namespace"), backend["name"]) not in granted:
                    yield f"{describe(manifest)}: no ReferenceGrant for {backend['name']}"


def cron_jobs_do_not_overlap(manifests: ManifestSet) -> Iterator[str]:
    """The ticks of a CronJob do not overlap, have a deadline, and state their time zone."""
    for manifest in manifests.kind("CronJob"):
        spec = manifest["spec"]
        job = spec["jobTemplate"]["spec"]
        if spec.get("concurrencyPolicy") != "Forbid" or not job.get("activeDeadlineSeconds"):
            yield f"{describe(manifest)}: two ticks may overlap"
        if not spec.get("timeZone"):
            yield f"{describe(manifest)}: has no timeZone"


def settings_are_known(manifests: ManifestSet) -> Iterator[str]:
    """A misspelt setting is ignored; values that the prod profile rejects are reported here."""
    names = {field.name.upper() for field in fields(Settings)} | {"SHOP_PROFILE"}
    for manifest in manifests.kind("ConfigMap"):
        if name_of(manifest) != "shop-settings":
            continue
        data = manifest["data"]
        for name in sorted(data.keys() - names):
            if not name.startswith(TELEMETRY):
                yield f"{describe(manifest)}: {name} is not a setting"
        is_prod = data.get("SHOP_PROFILE") == "prod"
        rejected = {
            "PAYMENT_PROVIDER": "sandbox",
            "SETTLEMENTS_AUTH": "public",
            "RATE_LIMIT_PER_MINUTE": "0",
            "COMMON_PASSWORDS_ALLOWED": "true",
        }
        for name, value in rejected.items():
            if is_prod and data.get(name) == value:
                yield f"{describe(manifest)}: {name}={value} is rejected by the prod profile"


def gateways_have_a_host(manifests: ManifestSet) -> Iterator[str]:
    """Without a host a Gateway serves every name, and with one for examples no client of a shop.

    The API server rejects the placeholder of ``infra/knative``, but no other of these.
    """
    profiles = {each.get("data", {}).get("SHOP_PROFILE") for each in manifests.kind("ConfigMap")}
    if "local" in profiles:
        return
    for manifest in manifests.kind("Gateway", "HTTPRoute"):
        spec = manifest["spec"]
        listeners = [each.get("hostname", "") for each in spec.get("listeners", ())]
        for host in (*listeners, *spec.get("hostnames", ())):
            if host in ("", HOST) or is_placeholder(host):
                yield f"{describe(manifest)}: the host {host!r} is not one of your own"


def metrics_use_a_separate_port(manifests: ManifestSet) -> Iterator[str]:
    """A scrape through queue-proxy's ports counts as traffic and prevents scaling to zero."""
    for manifest in manifests.kind("PodMonitor"):
        for endpoint in manifest["spec"]["podMetricsEndpoints"]:
            if endpoint.get("portNumber") in RESERVED_PORTS | {8080, None}:
                yield f"{describe(manifest)}: scrapes {endpoint.get('portNumber')}"


def names_are_short_enough(manifests: ManifestSet) -> Iterator[str]:
    """Names are used as label values, which have at most 63 characters."""
    for manifest in manifests.objects:
        if len(name_of(manifest)) > NAME_MAX:
            yield f"{describe(manifest)}: the name is longer than {NAME_MAX}"


def names_are_unique(manifests: ManifestSet) -> Iterator[str]:
    """Of two objects with one name the second replaces the first without an error."""
    seen: set[tuple[str, ...]] = set()
    for manifest in manifests.objects:
        group = manifest["apiVersion"].rpartition("/")[0]
        key = (
            group,
            manifest["kind"],
            manifest["metadata"].get("namespace", ""),
            name_of(manifest),
        )
        if key in seen:
            yield f"{describe(manifest)}: is defined twice"
        seen.add(key)


RULES: tuple[Rule, ...] = (
    pods_are_restricted,
    pods_mount_no_service_account_token,
    service_accounts_exist,
    pods_have_resource_limits,
    images_have_a_version,
    secrets_are_not_in_the_environment,
    secrets_are_not_arguments,
    egress_names_its_peers,
    network_traffic_is_denied_by_default,
    functions_accept_ingress,
    database_connections_fit,
    keda_does_not_scale_functions,
    keda_query_counts_due_work,
    no_other_autoscaler_is_used,
    routes_lead_to_functions,
    reference_grants_exist,
    cron_jobs_do_not_overlap,
    settings_are_known,
    gateways_have_a_host,
    metrics_use_a_separate_port,
    names_are_short_enough,
    names_are_unique,
)
