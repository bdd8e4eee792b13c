"""Rules for Knative Services: what the webhook would refuse, and what nobody would notice."""

from __future__ import annotations

from collections.abc import Iterator

from tools.manifest_rules.manifests import (
    GO_DURATION,
    Rule,
    World,
    annotations_of,
    containers_of,
    environment_of,
    is_whole,
    labels_of,
    shown,
)

SCALING = "autoscaling.knative.dev/"
# every key that Knative reads; one that is misspelt is read by nobody, and nobody says so
KNOWN = {
    SCALING: {
        "activation-scale",
        "class",
        "initial-scale",
        "max-scale",
        "metric",
        "metric-aggregation-algorithm",
        "min-scale",
        "panic-threshold-percentage",
        "panic-window-percentage",
        "scale-down-delay",
        "scale-to-zero-pod-retention-period",
        "target",
        "target-burst-capacity",
        "target-utilization-percentage",
        "window",
    },
    "serving.knative.dev/": {"progress-deadline", "rollout-duration"},
    "networking.knative.dev/": {"visibility"},
    "queue.sidecar.serving.knative.dev/": {
        f"{what}-resource-{side}"
        for what in ("cpu", "memory", "ephemeral-storage")
        for side in ("request", "limit")
    },
    "eventing.knative.dev/": {"broker.class"},
    "kafka.eventing.knative.dev/": {"delivery.order"},
    "rabbitmq.eventing.knative.dev/": {"parallelism"},
}
WHOLE = ("activation-scale", "initial-scale", "max-scale", "min-scale")
DURATIONS = ("scale-down-delay", "scale-to-zero-pod-retention-period", "window")
RESERVED_PORTS = {8008, 8012, 8013, 8022, 9090, 9091}
RESERVED_NAMES = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}
RESERVED_PATHS = {"/", "/dev", "/dev/log"}
RELEASE_LABELS = (
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
)
FORBIDDEN = (
    "affinity",
    "hostNetwork",
    "initContainers",
    "nodeSelector",
    "priorityClassName",
    "restartPolicy",
    "securityContext",
    "terminationGracePeriodSeconds",
    "tolerations",
)
SECONDS_MIN, SECONDS_MAX = 60, 600
CONCURRENCY_MAX = 1000


def annotation_keys_are_spelt_right(world: World) -> Iterator[str]:
    """A misspelt key has no effect, and no tool says so."""
    for thing in world.objects:
        template = (thing.get("spec") or {}).get("template")
        for part in (thing, template if isinstance(template, dict) else {}):
            for key in (*annotations_of(part), *labels_of(part)):
                prefix, _, name = key.rpartition("/")
                known = KNOWN.get(f"{prefix}/")
                if known is not None and name not in known:
                    yield f"{shown(thing)}: {key} is no annotation of Knative's"


def scaling_is_said_on_the_template(world: World) -> Iterator[str]:
    """On the Service itself the webhook refuses it."""
    for thing in world.functions():
        for key in annotations_of(thing):
            if key.startswith(SCALING):
                yield f"{shown(thing)}: {key} belongs on spec.template"


def scaling_has_values_knative_takes(world: World) -> Iterator[str]:
    """Whole numbers, Go's durations (not ISO 8601), and min below max."""
    for thing in world.functions():
        said = {
            key.removeprefix(SCALING): value
            for key, value in annotations_of(thing["spec"]["template"]).items()
            if key.startswith(SCALING)
        }
        wrong = [key for key in WHOLE if key in said and not is_whole(said[key])]
        wrong += [key for key in DURATIONS if key in said and not _is_whole_seconds(said[key])]
        for key in wrong:
            yield f"{shown(thing)}: {key} cannot be {said[key]!r}"
        if not wrong:
            yield from (f"{shown(thing)}: {fault}" for fault in _order_of_scales(said))


def _is_whole_seconds(text: str) -> bool:
    return bool(GO_DURATION.fullmatch(text)) and "ms" not in text


def _order_of_scales(said: dict[str, str]) -> Iterator[str]:
    low, high = int(said.get("min-scale", 0)), int(said.get("max-scale", 0))
    wakes = int(said.get("activation-scale", 0))
    if high and low > high:
        yield f"min-scale {low} is more than max-scale {high}"
    if wakes and (wakes < 2 or (high and wakes > high)):
        yield f"activation-scale {wakes} is not between 2 and max-scale {high}"


def most_pods_are_known(world: World) -> Iterator[str]:
    """Without max-scale nobody can say how many database connections there will be."""
    for thing in world.functions():
        most = annotations_of(thing["spec"]["template"]).get(f"{SCALING}max-scale", "0")
        if not is_whole(most) or int(most) == 0:
            yield f"{shown(thing)}: has no max-scale"


def concurrency_is_the_number_of_threads(world: World) -> Iterator[str]:
    """Threads and pool are THREADS; more requests than those would wait where nobody sees them."""
    for thing in world.functions():
        pod = thing["spec"]["template"]["spec"]
        limit = pod.get("containerConcurrency", 0)
        if not 1 <= limit <= CONCURRENCY_MAX:
            yield f"{shown(thing)}: containerConcurrency {limit} is not 1 to {CONCURRENCY_MAX}"
        for container in containers_of(thing["spec"]["template"]):
            threads = environment_of(container).get("THREADS")
            if threads != str(limit):
                yield f"{shown(thing)}: THREADS is {threads}, containerConcurrency {limit}"


def there_is_time_to_stop(world: World) -> Iterator[str]:
    """SIGTERM comes after 30 s of draining: with less than 60 s a function is killed first."""
    for thing in world.functions():
        pod = thing["spec"]["template"]["spec"]
        whole, first = pod.get("timeoutSeconds", 300), pod.get("responseStartTimeoutSeconds", 300)
        if not SECONDS_MIN <= whole <= SECONDS_MAX:
            yield f"{shown(thing)}: timeoutSeconds {whole} is not {SECONDS_MIN} to {SECONDS_MAX}"
        if first >= whole:
            yield f"{shown(thing)}: responseStartTimeoutSeconds {first} leaves no time to stop"


def readiness_is_asked_every_50_ms(world: World) -> Iterator[str]:
    """A period, a startup probe or a command takes the fast way away from a cold start."""
    for thing in world.functions():
        for container in containers_of(thing["spec"]["template"]):
            probe = container.get("readinessProbe", {})
            slow = {"periodSeconds", "failureThreshold", "timeoutSeconds", "exec"} & probe.keys()
            if slow or "startupProbe" in container:
                why = ", ".join(sorted(slow)) or "a startupProbe"
                yield f"{shown(thing)}: readiness has {why}"


def nothing_reserved_is_taken(world: World) -> Iterator[str]:
    """Names, ports and paths that are queue-proxy's and Knative's own."""
    for thing in world.functions():
        for container in containers_of(thing["spec"]["template"]):
            ports = container.get("ports", ())
            taken = [name for name in environment_of(container) if name in RESERVED_NAMES]
            taken += [
                str(p["containerPort"]) for p in ports if p["containerPort"] in RESERVED_PORTS
            ]
            taken += [p["name"] for p in ports if p.get("name") not in (None, "", "http1", "h2c")]
            mounts = container.get("volumeMounts", ())
            taken += [m["mountPath"] for m in mounts if m["mountPath"] in RESERVED_PATHS]
            taken += ["queue-proxy"] if container.get("name") == "queue-proxy" else []
            taken += ["a second port"] if len(ports) > 1 else []
            for what in taken:
                yield f"{shown(thing)}: {what} is not a function's to use"


def fields_are_those_knative_takes(world: World) -> Iterator[str]:
    """What the webhook refuses, or only takes behind a feature flag."""
    for thing in world.functions():
        pod = thing["spec"]["template"]["spec"]
        found = [field for field in FORBIDDEN if field in pod]
        for container in pod.get("containers", ()):
            found += ["lifecycle"] if "lifecycle" in container else []
            found += ["hostPort" for port in container.get("ports", ()) if "hostPort" in port]
            found += [
                "valueFrom.fieldRef"
                for e in container.get("env", ())
                if "fieldRef" in e.get("valueFrom", {})
            ]
        for field in found:
            yield f"{shown(thing)}: {field} is refused in a Knative Service"


def every_volume_is_mounted(world: World) -> Iterator[str]:
    """A volume without a mount, or a mount without a volume, is refused."""
    for thing, template in world.pods():
        volumes = {volume["name"] for volume in template["spec"].get("volumes", ())}
        claims = (thing.get("spec") or {}).get("volumeClaimTemplates", ())
        volumes |= {claim["metadata"]["name"] for claim in claims}
        mounts = {
            mount["name"] for c in containers_of(template) for mount in c.get("volumeMounts", ())
        }
        for name in sorted(volumes ^ mounts):
            yield f"{shown(thing)}: volume {name} is not both there and mounted"


def a_release_makes_no_revision(world: World) -> Iterator[str]:
    """A label that changes with each release would restart every function with each release."""
    for thing in world.functions():
        for label in RELEASE_LABELS:
            if label in labels_of(thing["spec"]["template"]):
                yield f"{shown(thing)}: {label} on the template makes a revision of each release"


def traffic_is_whole(world: World) -> Iterator[str]:
    """100 percent, each target named once."""
    for thing in world.functions():
        traffic = thing["spec"].get("traffic")
        if traffic is None:
            continue
        if sum(target.get("percent", 0) for target in traffic) != 100:
            yield f"{shown(thing)}: traffic is not 100 percent"
        if any(bool(t.get("latestRevision")) == ("revisionName" in t) for t in traffic):
            yield f"{shown(thing)}: a target is not either the latest or a named revision"


def functions_are_private(world: World) -> Iterator[str]:
    """The edge is the only door; event endpoints are nobody's from outside."""
    for thing in world.functions():
        if labels_of(thing).get("networking.knative.dev/visibility") != "cluster-local":
            yield f"{shown(thing)}: is not cluster-local"


RULES: tuple[Rule, ...] = (
    annotation_keys_are_spelt_right,
    scaling_is_said_on_the_template,
    scaling_has_values_knative_takes,
    most_pods_are_known,
    concurrency_is_the_number_of_threads,
    there_is_time_to_stop,
    readiness_is_asked_every_50_ms,
    nothing_reserved_is_taken,
    fields_are_those_knative_takes,
    every_volume_is_mounted,
    a_release_makes_no_revision,
    traffic_is_whole,
    functions_are_private,
)
