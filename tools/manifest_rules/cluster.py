"""Rules for what surrounds the functions: pods, networks, identities, scalers, routes, settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields

from shop.registry import spec_of
from shop.runtime.config import Settings
from tools.manifest_rules.manifests import (
    Manifest,
    Rule,
    World,
    annotations_of,
    containers_of,
    environment_of,
    is_true,
    is_whole,
    labels_of,
    name_of,
    shown,
)
from tools.manifest_rules.serving import RESERVED_PORTS, SCALING
from tools.render.keda import due_query

CONNECTIONS = "msa-shop/database-connections-max"
QUERY_KEYS = {"activationTargetQueryValue", "query", "targetQueryValue"}
SECRET_NAME = re.compile(r"(PASSWORD|SECRET|TOKEN|API_KEY|PRIVATE_KEY|SIGNING_KEY|_URL)$")
WITH_PASSWORD = re.compile(r"://[^/@\s:]*:[^/@\s]+@")
SCALED_NAME_MAX, NAME_MAX = 54, 63
MOVING = "latest"
# read by OpenTelemetry's own library, when it is turned on
TELEMETRY = "OTEL_"


def pods_are_restricted(world: World) -> Iterator[str]:
    """Pod Security "restricted", and a root that cannot be written."""
    for thing, template in world.pods():
        for container in containers_of(template):
            context = container.get("securityContext") or {}
            wanted = {
                "runAsNonRoot": True,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
            for field, value in wanted.items():
                if context.get(field) != value:
                    yield f"{shown(thing)}: {field} is {context.get(field)!r}"


def pods_have_no_token(world: World) -> Iterator[str]:
    """No pod of the shop talks to Kubernetes with a token it did not ask for by name."""
    for thing, template in world.pods():
        if template["spec"].get("automountServiceAccountToken") is not False:
            yield f"{shown(thing)}: gets a token"
    for thing in world.kind("ServiceAccount"):
        if thing.get("automountServiceAccountToken") is not False:
            yield f"{shown(thing)}: gives tokens away"


def accounts_are_there(world: World) -> Iterator[str]:
    """A pod that names an identity has one."""
    accounts = {name_of(thing) for thing in world.kind("ServiceAccount")}
    for thing, template in world.pods():
        name = template["spec"].get("serviceAccountName")
        if name and name not in accounts:
            yield f"{shown(thing)}: there is no ServiceAccount {name}"


def pods_know_their_limits(world: World) -> Iterator[str]:
    """Requests and a memory limit everywhere; a function may use a whole CPU to wake up."""
    for thing, template in world.pods():
        for container in containers_of(template):
            resources = container.get("resources") or {}
            asked, limits = resources.get("requests") or {}, resources.get("limits") or {}
            if not {"cpu", "memory"} <= asked.keys() or "memory" not in limits:
                yield f"{shown(thing)}: has no requests or no memory limit"
            elif thing.get("apiVersion", "").startswith("serving") and str(
                limits.get("cpu", "1")
            ).endswith("m"):
                yield f"{shown(thing)}: less than one CPU makes a cold start slow"


def images_have_a_version(world: World) -> Iterator[str]:
    """An image without a tag or digest, or of tag latest, is another one tomorrow."""
    for thing, template in world.pods():
        for container in containers_of(template):
            image = container.get("image", "")
            tag = image.rpartition("/")[2].partition(":")[2]
            if "@sha256:" not in image and tag in ("", MOVING):
                yield f"{shown(thing)}: {image or 'no image'} has no version"


def secrets_are_not_in_the_environment(world: World) -> Iterator[str]:
    """Secrets are files; a variable shows in every description of the pod."""
    for thing, template in world.pods():
        for container in containers_of(template):
            for name, value in environment_of(container).items():
                if value and (SECRET_NAME.search(name) and "://" not in value):
                    yield f"{shown(thing)}: {name} is given in so many words"
                elif WITH_PASSWORD.search(value):
                    yield f"{shown(thing)}: {name} holds a password"


def networks_are_closed_first(world: World) -> Iterator[str]:
    """One policy denies everything in and out, for all pods; the others open what is needed."""
    for thing in world.kind("NetworkPolicy"):
        spec = thing["spec"]
        is_both = set(spec.get("policyTypes", ())) == {"Ingress", "Egress"}
        opens = spec.get("ingress") or spec.get("egress")
        if not spec.get("podSelector") and is_both and not opens:
            return
    if next(world.functions(), None):
        yield "no NetworkPolicy denies everything by default"


def functions_can_be_reached(world: World) -> Iterator[str]:
    """Each function's pods are let in to by a policy: behind a closed network it is never ready."""
    opened = [
        thing["spec"]["podSelector"].get("matchLabels", {})
        for thing in world.kind("NetworkPolicy")
        if thing["spec"].get("ingress")
    ]
    if not opened:
        return
    for thing in world.functions():
        labels = labels_of(thing["spec"]["template"]).items()
        if not any(selected.items() <= labels for selected in opened if selected):
            yield f"{shown(thing)}: no NetworkPolicy lets anybody in"


def database_connections_fit(world: World) -> Iterator[str]:
    """Σ(max-scale × pool) of all functions with a database is at most what the settings declare."""
    total = sum(_connections(thing) for thing in world.functions())
    for thing in world.kind("ConfigMap"):
        declared = annotations_of(thing).get(CONNECTIONS)
        if declared is not None and total > int(declared):
            yield f"{shown(thing)}: functions may open {total} connections of {declared}"


def _connections(function: Manifest) -> int:
    template = function["spec"]["template"]
    if not is_true(labels_of(template).get("msa-shop/reaches-database")):
        return 0
    most = annotations_of(template).get(f"{SCALING}max-scale", "0")
    pool = template["spec"].get("containerConcurrency", 0)
    return int(most) * pool if is_whole(most) else 0


def keda_leaves_functions_alone(world: World) -> Iterator[str]:
    """A Knative Service has no /scale, and a revision's Deployment has a scaler already."""
    functions = {name_of(thing) for thing in world.functions()}
    for thing in world.kind("ScaledObject"):
        target = thing["spec"]["scaleTargetRef"]
        is_function = target["name"] in functions or target.get("kind") == "Service"
        if is_function or re.search(r"-\d{5}-deployment$", target["name"]):
            yield f"{shown(thing)}: {target['name']} is scaled by Knative"


def keda_counts_what_is_due(world: World) -> Iterator[str]:
    """Metadata is free text to the schema: a misspelt key fails at run time only."""
    query = due_query(spec_of("sweep"))
    for thing in world.kind("ScaledObject"):
        if len(name_of(thing)) > SCALED_NAME_MAX:
            yield f"{shown(thing)}: the name is longer than {SCALED_NAME_MAX}"
        for trigger in thing["spec"]["triggers"]:
            metadata = trigger["metadata"]
            for key in metadata.keys() ^ QUERY_KEYS:
                yield f"{shown(thing)}: {key} is missing or no key of the postgresql scaler"
            if metadata.get("query", query) != query:
                yield f"{shown(thing)}: does not count the due_work of sweep"


def nothing_else_scales(world: World) -> Iterator[str]:
    """Knative scales functions, KEDA the sweeper: a HorizontalPodAutoscaler would fight them."""
    for thing in world.kind("HorizontalPodAutoscaler"):
        yield f"{shown(thing)}: Knative and KEDA scale, nobody else"


def routes_lead_to_functions(world: World) -> Iterator[str]:
    """Each route ends at a function that is there, by its host name; none leads to /events."""
    for thing in world.kind("HTTPRoute"):
        for rule in thing["spec"]["rules"]:
            rewrites = [f["urlRewrite"] for f in rule.get("filters", ()) if "urlRewrite" in f]
            host = rewrites[0].get("hostname", "") if rewrites else ""
            if world.function(host.partition(".")[0]) is None:
                yield f"{shown(thing)}: {host or 'no host'} is no function's"
            for match in rule.get("matches", ()):
                if re.match(match["path"]["value"] + r"\Z", "/events"):
                    yield f"{shown(thing)}: leads to /events"


def routes_may_use_the_gateway(world: World) -> Iterator[str]:
    """A backend in another namespace needs that namespace's leave."""
    granted = {
        (g["metadata"]["namespace"], to["name"])
        for g in world.kind("ReferenceGrant")
        for to in g["spec"]["to"]
    }
    for thing in world.kind("HTTPRoute"):
        for rule in thing["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                if (backend.get("namespace"), backend["name"]) not in granted:
                    yield f"{shown(thing)}: no ReferenceGrant lets it use {backend['name']}"


def clocks_never_overlap(world: World) -> Iterator[str]:
    """One tick at a time, with an end, in a time zone that is written down."""
    for thing in world.kind("CronJob"):
        spec = thing["spec"]
        job = spec["jobTemplate"]["spec"]
        if spec.get("concurrencyPolicy") != "Forbid" or not job.get("activeDeadlineSeconds"):
            yield f"{shown(thing)}: two ticks may run at once"
        if not spec.get("timeZone"):
            yield f"{shown(thing)}: has no timeZone"


def settings_are_known(world: World) -> Iterator[str]:
    """A misspelt setting is read by nobody; what prod refuses is refused here already."""
    names = {field.name.upper() for field in fields(Settings)} | {"SHOP_PROFILE"}
    for thing in world.kind("ConfigMap"):
        if name_of(thing) != "shop-settings":
            continue
        data = thing["data"]
        for name in sorted(data.keys() - names):
            if not name.startswith(TELEMETRY):
                yield f"{shown(thing)}: {name} is no setting"
        is_prod = data.get("SHOP_PROFILE") == "prod"
        refused = {"PAYMENT_PROVIDER": "sandbox", "SETTLEMENTS_AUTH": "public"}
        for name, value in refused.items():
            if is_prod and data.get(name) == value:
                yield f"{shown(thing)}: {name}={value} is refused in the prod profile"


def metrics_have_a_port_of_their_own(world: World) -> Iterator[str]:
    """Through queue-proxy's ports a scrape would be traffic, and keep pods awake."""
    for thing in world.kind("PodMonitor"):
        for endpoint in thing["spec"]["podMetricsEndpoints"]:
            if endpoint.get("portNumber") in RESERVED_PORTS | {8080, None}:
                yield f"{shown(thing)}: scrapes {endpoint.get('portNumber')}"


def names_are_short_enough(world: World) -> Iterator[str]:
    """A name is a label's value in many places: 63 characters."""
    for thing in world.objects:
        if len(name_of(thing)) > NAME_MAX:
            yield f"{shown(thing)}: the name is longer than {NAME_MAX}"


def names_are_there_once(world: World) -> Iterator[str]:
    """Two objects of one name: the second wins, and nobody says so."""
    seen: set[tuple[str, ...]] = set()
    for thing in world.objects:
        group = thing["apiVersion"].rpartition("/")[0]
        key = (group, thing["kind"], thing["metadata"].get("namespace", ""), name_of(thing))
        if key in seen:
            yield f"{shown(thing)}: is there twice"
        seen.add(key)


RULES: tuple[Rule, ...] = (
    pods_are_restricted,
    pods_have_no_token,
    accounts_are_there,
    pods_know_their_limits,
    images_have_a_version,
    secrets_are_not_in_the_environment,
    networks_are_closed_first,
    functions_can_be_reached,
    database_connections_fit,
    keda_leaves_functions_alone,
    keda_counts_what_is_due,
    nothing_else_scales,
    routes_lead_to_functions,
    routes_may_use_the_gateway,
    clocks_never_overlap,
    settings_are_known,
    metrics_have_a_port_of_their_own,
    names_are_short_enough,
    names_are_there_once,
)
