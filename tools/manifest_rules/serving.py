"""Rules for Knative Services: what the webhook rejects, and what no tool reports."""

from __future__ import annotations

from collections.abc import Iterator

from shop.registry import all_specs
from tools.manifest_rules.manifests import (
    GO_DURATION,
    Manifest,
    ManifestSet,
    Rule,
    annotations_of,
    containers_of,
    describe,
    environment_of,
    is_whole,
    labels_of,
    section,
)

SCALING = "autoscaling.knative.dev/"
# every key that Knative reads; a misspelt key is ignored without an error
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


def annotation_keys_are_known(manifests: ManifestSet) -> Iterator[str]:
    """A misspelt key has no effect, and no tool reports it."""
    for manifest in manifests.objects:
        for part in (manifest, section(manifest, "spec", "template")):
            for key in (*annotations_of(part), *labels_of(part)):
                prefix, _, name = key.rpartition("/")
                known = KNOWN.get(f"{prefix}/")
                if known is not None and name not in known:
                    yield f"{describe(manifest)}: {key} is not an annotation of Knative"


def scaling_annotations_are_on_the_template(manifests: ManifestSet) -> Iterator[str]:
    """The webhook rejects scaling annotations on the Service itself."""
    for manifest in manifests.functions():
        for key in annotations_of(manifest):
            if key.startswith(SCALING):
                yield f"{describe(manifest)}: {key} belongs on spec.template"


def scaling_values_are_valid(manifests: ManifestSet) -> Iterator[str]:
    """Scales are whole numbers, durations are Go's (not ISO 8601), and min is below max."""
    for manifest in manifests.functions():
        values = {
            key.removeprefix(SCALING): value
            for key, value in annotations_of(manifest["spec"]["template"]).items()
            if key.startswith(SCALING)
        }
        wrong = [key for key in WHOLE if key in values and not is_whole(values[key])]
        wrong += [key for key in DURATIONS if key in values and not _is_whole_seconds(values[key])]
        for key in wrong:
            yield f"{describe(manifest)}: {key} cannot be {values[key]!r}"
        if not wrong:
            yield from (f"{describe(manifest)}: {fault}" for fault in _order_of_scales(values))


def _is_whole_seconds(text: str) -> bool:
    return bool(GO_DURATION.fullmatch(text)) and "ms" not in text


def _order_of_scales(values: dict[str, str]) -> Iterator[str]:
    low, high = int(values.get("min-scale", 0)), int(values.get("max-scale", 0))
    activation = int(values.get("activation-scale", 0))
    if high and low > high:
        yield f"min-scale {low} is more than max-scale {high}"
    if activation and (activation < 2 or (high and activation > high)):
        yield f"activation-scale {activation} is not between 2 and max-scale {high}"


def max_scale_is_set(manifests: ManifestSet) -> Iterator[str]:
    """Without max-scale the number of database connections has no limit."""
    for manifest in manifests.functions():
        max_scale = annotations_of(manifest["spec"]["template"]).get(f"{SCALING}max-scale", "0")
        if not is_whole(max_scale) or int(max_scale) == 0:
            yield f"{describe(manifest)}: has no max-scale"


def concurrency_equals_threads(manifests: ManifestSet) -> Iterator[str]:
    """THREADS sets threads and connection pool; further requests would wait in an unseen queue.

    Requests that may wait for a final response (``Scale.waiting_max``) need no thread.
    """
    for manifest in manifests.functions():
        pod = manifest["spec"]["template"]["spec"]
        limit = pod.get("containerConcurrency", 0)
        if not 1 <= limit <= CONCURRENCY_MAX:
            yield f"{describe(manifest)}: containerConcurrency {limit} exceeds {CONCURRENCY_MAX}"
        for container in containers_of(manifest["spec"]["template"]):
            threads = environment_of(container).get("THREADS")
            if threads != str(limit - _waiting_max(container)):
                yield f"{describe(manifest)}: THREADS is {threads}, containerConcurrency {limit}"


def _waiting_max(container: Manifest) -> int:
    names = {spec.name: spec.scale.waiting_max for spec in all_specs()}
    return sum(names.get(name, 0) for name in container.get("args", ()))


def timeouts_leave_time_to_stop(manifests: ManifestSet) -> Iterator[str]:
    """SIGTERM follows 30 s of draining: with less than 60 s a function is killed while it stops."""
    for manifest in manifests.functions():
        pod = manifest["spec"]["template"]["spec"]
        total, first = pod.get("timeoutSeconds", 300), pod.get("responseStartTimeoutSeconds", 300)
        if not SECONDS_MIN <= total <= SECONDS_MAX:
            limits = f"{SECONDS_MIN} to {SECONDS_MAX}"
            yield f"{describe(manifest)}: timeoutSeconds {total} is not {limits}"
        if first >= total:
            yield f"{describe(manifest)}: responseStartTimeoutSeconds {first} is too long"


def readiness_probe_is_fast(manifests: ManifestSet) -> Iterator[str]:
    """With a period, a command or a startup probe Knative does not probe every 50 ms."""
    for manifest in manifests.functions():
        for container in containers_of(manifest["spec"]["template"]):
            probe = container.get("readinessProbe", {})
            slow = {"periodSeconds", "failureThreshold", "timeoutSeconds", "exec"} & probe.keys()
            if slow or "startupProbe" in container:
                slowed_by = ", ".join(sorted(slow)) or "a startupProbe"
                yield f"{describe(manifest)}: readiness has {slowed_by}"


def reserved_names_are_not_used(manifests: ManifestSet) -> Iterator[str]:
    """Queue-proxy and Knative reserve names, ports and paths."""
    for manifest in manifests.functions():
        for container in containers_of(manifest["spec"]["template"]):
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
            for each in taken:
                yield f"{describe(manifest)}: {each} is reserved"


def pod_fields_are_supported(manifests: ManifestSet) -> Iterator[str]:
    """The webhook rejects these fields, or accepts them only with a feature flag."""
    for manifest in manifests.functions():
        pod = manifest["spec"]["template"]["spec"]
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
            yield f"{describe(manifest)}: {field} is not allowed in a Knative Service"


def volumes_are_mounted(manifests: ManifestSet) -> Iterator[str]:
    """The webhook rejects a volume without a mount and a mount without a volume."""
    for manifest, template in manifests.pods():
        volumes = {volume["name"] for volume in template["spec"].get("volumes", ())}
        claims: list[Manifest] = section(manifest, "spec").get("volumeClaimTemplates", [])
        volumes |= {claim["metadata"]["name"] for claim in claims}
        mounts = {
            mount["name"] for c in containers_of(template) for mount in c.get("volumeMounts", ())
        }
        for name in sorted(volumes ^ mounts):
            yield f"{describe(manifest)}: volume {name} is not both declared and mounted"


def template_has_no_release_labels(manifests: ManifestSet) -> Iterator[str]:
    """A label that changes with each release would create a revision of every function."""
    for manifest in manifests.functions():
        for label in RELEASE_LABELS:
            if label in labels_of(manifest["spec"]["template"]):
                yield f"{describe(manifest)}: {label} on the template changes with each release"


def traffic_adds_up_to_100_percent(manifests: ManifestSet) -> Iterator[str]:
    """Percentages add up to 100, and a target is the latest or a named revision, not both."""
    for manifest in manifests.functions():
        traffic = manifest["spec"].get("traffic")
        if traffic is None:
            continue
        if sum(target.get("percent", 0) for target in traffic) != 100:
            yield f"{describe(manifest)}: traffic is not 100 percent"
        if any(bool(t.get("latestRevision")) == ("revisionName" in t) for t in traffic):
            yield f"{describe(manifest)}: a target must be either the latest or a named revision"


def functions_are_cluster_local(manifests: ManifestSet) -> Iterator[str]:
    """Functions are reachable through the edge only; event endpoints are not public."""
    for manifest in manifests.functions():
        if labels_of(manifest).get("networking.knative.dev/visibility") != "cluster-local":
            yield f"{describe(manifest)}: is not cluster-local"


RULES: tuple[Rule, ...] = (
    annotation_keys_are_known,
    scaling_annotations_are_on_the_template,
    scaling_values_are_valid,
    max_scale_is_set,
    concurrency_equals_threads,
    timeouts_leave_time_to_stop,
    readiness_probe_is_fast,
    reserved_names_are_not_used,
    pod_fields_are_supported,
    volumes_are_mounted,
    template_has_no_release_labels,
    traffic_adds_up_to_100_percent,
    functions_are_cluster_local,
)
