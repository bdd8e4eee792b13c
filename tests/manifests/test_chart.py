"""The Helm chart: lint, schema, every values file, and equality with what kustomize deploys."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator
from typer.core import TyperGroup
from typer.main import get_command

from shop.registry import all_specs
from shop.schema.grants import ROLE_SETTINGS
from tests.manifests.autoscaler import Decision, decide
from tools.cli import app
from tools.local_platform.clock import Cron
from tools.manifest_rules.__main__ import ROOT, findings
from tools.manifest_rules.manifests import Manifest, ManifestSet, parse, section
from tools.manifest_rules.serving import RELEASE_LABELS
from tools.render import gateway, network_policies
from tools.render.documents import Json
from tools.render.eventing import CLASSES, broker_objects
from tools.render.keda import due_query, due_schedules, patches
from tools.render.knative import COMPONENTS, FOLDER, base_files, component_objects, render
from tools.render.objects import name_of
from tools.render.operators import HOURS

CHART = ROOT / "helm" / "msa-shop"
DIGEST = "sha256:" + "1" * 64
HOST = "shop.co.kr"
OWN_HOST = {"gateway": {"host": HOST}, "settings": {"JWT_ISSUER": f"https://{HOST}"}}
PINNED = {
    "image": {"digest": DIGEST},
    "toolsImage": {"digest": DIGEST},
    "pgbouncer": {"image": {"digest": DIGEST}},
}
APIS = [
    "external-secrets.io/v1/ExternalSecret",
    "gateway.networking.k8s.io/v1/HTTPRoute",
    "keda.sh/v1alpha1/ScaledJob",
    "monitoring.coreos.com/v1/PodMonitor",
]
# the values that correspond to infra/knative
NETWORKS = {
    "networkPolicy": {"databaseNetworks": ["10.1.2.0/24"], "redisNetworks": ["10.1.3.0/24"]}
}
AS_KUSTOMIZED: dict[str, Any] = {
    "image": {"pullPolicy": ""},
    "profile": "prod",
    "settings": {"PAYMENT_PROVIDER": "stripe"},
    "postgresql": {"bundled": False},
    "redis": {"bundled": False},
    "sandbox": {"enabled": False},
    "migration": {"enabled": False},
    "tools": {"enabled": False},
    "audits": {"enabled": False},
    "test": {"enabled": False},
    **NETWORKS,
}
ENVOY_POLICIES = "gateway.envoyproxy.io/v1alpha1/BackendTrafficPolicy"
EVENT_POLICIES = "eventing.knative.dev/v1alpha1/EventPolicy"
EVENT_POLICY = {"broker": {"eventPolicy": True}}
CORE = ("v1", "apps/v1", "batch/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1")


def render_chart(*values: dict[str, Any], assume: list[str] | None = None) -> ManifestSet:
    """All objects that the chart renders with these values; later ones override."""
    whole = merged({"assumeApis": assume or []}, *values)
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(whole, name="shop", namespace="shop")
    manifests = [text for path, text in texts.items() if path.endswith(".yaml")]
    return parse("\n---\n".join(manifests))


def connections_max(**max_scales: int) -> int:
    """The connections of all functions at their maximum scale, with these scales changed."""
    return sum(
        spec.scale.concurrency * max_scales.get(spec.name, spec.scale.max_scale)
        for spec in all_specs()
        if spec.database_role is not None
    )


def values_of(name: str) -> dict[str, Any]:
    """A values file."""
    return yaml.safe_load((CHART / name).read_text("utf-8"))


def merged(*values: dict[str, Any]) -> dict[str, Any]:
    """One mapping; later values override, and mappings are merged."""
    whole: dict[str, Any] = {}
    for above in deepcopy(values):
        for key, value in above.items():
            if isinstance(value, dict) and isinstance(whole.get(key), dict):
                whole[key] = merged(section(whole, key), section(above, key))
            else:
                whole[key] = value
    return whole


ALL_APIS: dict[str, Any] = {"assumeApis": APIS}
OFFICE = {"start": "0 9 * * 1-5", "end": "0 18 * * 1-5", "timeZone": "Asia/Seoul", "minScale": 1}
# Files and values, of which later ones override; ``assumeApis`` has the APIs of the cluster.
CONFIGURATIONS: dict[str, tuple[str | dict[str, Any], ...]] = {
    "values": (),
    "values, all APIs": (ALL_APIS,),
    "Envoy Gateway": ({"assumeApis": [*APIS, ENVOY_POLICIES]},),
    "without KEDA": (ALL_APIS, {"keda": {"enabled": False}}),
    "ghcr": ("values-ghcr.yaml",),
    "kind": ("../../infra/kind/values.yaml",),
    "prod": ("values-prod.yaml", OWN_HOST, PINNED, NETWORKS, ALL_APIS),
    "observability": (ALL_APIS, {"observability": {"enabled": True}}),
    "rabbitmq": ({"broker": {"class": "rabbitmq"}},),
    "kafka, no pooler": (
        {"broker": {"class": "kafka"}, "pgbouncer": {"enabled": False}},
        {"postgresql": {"maxConnections": 5000}},
    ),
    "event policy": (EVENT_POLICY, {"assumeApis": [*APIS, EVENT_POLICIES]}),
    "warm hours": ({"functions": {"place_order": {"warmHours": [OFFICE]}}},),
}


@cache
def chart_manifests(configuration: str) -> ManifestSet:
    """The objects of the chart in a configuration."""
    return render_chart(configured_values(configuration))


def configured_values(configuration: str) -> dict[str, Any]:
    """The values of a configuration that differ from the chart's own."""
    parts = CONFIGURATIONS[configuration]
    return merged(*(values_of(each) if isinstance(each, str) else each for each in parts))


def test_helm_lint_reports_nothing() -> None:
    report = helm_python.lint(CHART, {}, strict=True)

    assert [m for m in report["messages"] if m["severity"] > 1] == []
    assert report["errors"] == []


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_rendered_chart_has_no_findings(configuration: str) -> None:
    assert findings(chart_manifests(configuration)) == []


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_core_objects_match_the_kubernetes_schema(configuration: str) -> None:
    checked = 0
    for manifest in chart_manifests(configuration).objects:
        if manifest["apiVersion"] in CORE:
            kubernetes_validate.validate(manifest, "1.33", strict=True)
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("kind", CLASSES)
def test_chart_and_kustomize_deploy_equal_objects(kind: str) -> None:
    chart = render_chart(
        AS_KUSTOMIZED,
        OWN_HOST,
        {
            "broker": {"class": kind},
            "pgbouncer": {"enabled": False},
            "postgresql": {"maxConnections": 2010},
        },
        assume=APIS,
    )
    replaced = {(patch["kind"], patch["metadata"]["name"]) for patch in patches()}
    base = [each for objects in base_files().values() for each in objects]
    base = [t for t in base if (t["kind"], t["metadata"]["name"]) not in replaced]
    parts = component_objects()
    others = [*parts["keda"], *parts["gateway"], *parts["monitoring"], *broker_objects(kind)]

    # the placeholders, which the chart rejects in this profile
    text = json.dumps([*base, *others]).replace(gateway.HOST, HOST)
    own = json.loads(text.replace(network_policies.SETTING_VALUES["JWT_ISSUER"], f"https://{HOST}"))

    expected = _comparable(own, kind)
    assert _comparable(chart.objects, kind) == expected


@pytest.mark.parametrize(
    ("component", "values"),
    [
        ("tools", {"tools": {"enabled": True}}),
        ("audits", {"audits": {"enabled": True}}),
        ("warm-hours", {"functions": {"place_order": {"warmHours": HOURS["shop-place-order"]}}}),
    ],
)
def test_component_of_kustomize_has_the_objects_that_a_value_adds(
    component: str, values: dict[str, Any]
) -> None:
    kustomized = {"toolsImage": {"pullPolicy": ""}, "pgbouncer": {"enabled": False}}
    kustomized |= {"postgresql": {"maxConnections": 2010}}
    without = render_chart(AS_KUSTOMIZED, OWN_HOST, kustomized)
    chart = render_chart(AS_KUSTOMIZED, OWN_HOST, kustomized, values)
    before = {(each["kind"], each["metadata"]["name"]) for each in without.objects}
    added = _comparable(chart.objects, "imc")
    # Helm's own: the database's network, and what runs after a release
    only_of_helm = {("NetworkPolicy", "shop-tools-out"), ("Job", "shop-warm-hours")}
    if component == "audits":
        only_of_helm.add(("ServiceAccount", "shop-tools"))

    expected = _comparable(component_objects()[component], "imc")
    found = {k: v for k, v in added.items() if k not in before | only_of_helm}
    assert found == expected


def test_chart_renders_the_policies_of_envoy_gateway_where_it_is_installed() -> None:
    chart = render_chart(OWN_HOST, assume=[*APIS, ENVOY_POLICIES])

    rendered = {(o["kind"], o["metadata"]["name"]): o.get("spec") for o in chart.objects}
    own = {key for key in rendered if key[0].endswith(("TrafficPolicy", "HTTPRouteFilter"))}
    text = json.dumps(gateway.envoy_gateway_objects()).replace(gateway.HOST, HOST)
    expected = {(o["kind"], o["metadata"]["name"]): o["spec"] for o in json.loads(text)}

    assert own | {("HTTPRoute", "shop-unmatched")} == expected.keys()
    assert {key: rendered[key] for key in expected} == expected


def test_gateway_responds_to_each_known_path_with_405_and_to_any_other_with_404() -> None:
    methods: dict[str, set[str]] = {}
    for spec in all_specs():
        for match in gateway.matches(spec):
            methods.setdefault(match["path"]["value"], set()).add(match["method"])
    responses = gateway.own_responses()
    found: dict[str, set[str]] = {}
    *others, last = gateway.unmatched_rules()
    for rule in others:
        response = responses[rule["filters"][0]["extensionRef"]["name"]]["directResponse"]
        if response["statusCode"] == 405:
            fields = {each["name"]: each["value"] for each in response["header"]["set"]}
            for match in rule["matches"]:
                # without a method: the routes' own matches take precedence
                assert "method" not in match
                found[match["path"]["value"]] = set(fields["Allow"].split(", "))

    assert found == methods
    assert last["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert responses[gateway.NOT_FOUND]["directResponse"]["statusCode"] == 404
    # limits of the Gateway API
    assert len(others) < 16
    assert all(len(rule["matches"]) <= 64 for rule in others)


def test_policies_of_envoy_gateway_follow_the_scale_of_a_function() -> None:
    scaled = {"functions": {"place_order": {"maxScale": 2, "concurrency": 3}}}
    chart = render_chart(OWN_HOST, scaled, assume=[*APIS, ENVOY_POLICIES])

    (policy,) = [
        each
        for each in chart.objects
        if each["kind"] == "BackendTrafficPolicy" and each["metadata"]["name"] == "shop-place-order"
    ]

    assert policy["spec"]["circuitBreaker"]["maxParallelRequests"] == 2 * 3 * 11


def _comparable(objects: Iterable[Manifest], kind: str) -> dict[tuple[str, str], Manifest]:
    """Objects by kind and name, without release labels and what only one of the two has."""
    found: dict[tuple[str, str], Manifest] = {}
    for manifest in objects:
        key = (manifest["kind"], manifest["metadata"]["name"])
        if manifest["kind"] == "Namespace" or (kind != "rabbitmq" and "rabbitmq" in key[1]):
            continue
        copy = deepcopy(manifest)
        labels = copy["metadata"]["labels"]
        copy["metadata"]["labels"] = {k: v for k, v in labels.items() if k not in RELEASE_LABELS}
        if key[1] in ("shop-database-out", "shop-redis-out"):
            # only the chart's values name the networks
            copy["spec"]["egress"][0].pop("to", None)
        if key == ("ConfigMap", "shop-settings"):
            # patched in kustomize; another test compares the values
            patched = ("BROKER_CLASS", "BROKER_URL", "METRICS_PORT")
            copy["data"] = {k: v for k, v in copy["data"].items() if k not in patched}
        template = copy.get("spec", {}).get("template", {}).get("metadata", {})
        template.get("annotations", {}).pop("msa-shop/settings", None)
        if template.get("annotations") == {}:
            del template["annotations"]
        found[key] = copy
    return found


@pytest.mark.parametrize("kind", CLASSES)
def test_chart_has_the_settings_that_kustomize_patches(kind: str) -> None:
    chart = render_chart({"broker": {"class": kind}}, assume=APIS)
    (settings,) = (t for t in chart.kind("ConfigMap") if t["metadata"]["name"] == "shop-settings")
    files = render()
    name = "patch-configmap-shop-settings.yaml"

    changes = [
        yaml.safe_load(files[folder / name])["data"]
        for folder in (FOLDER / kind, COMPONENTS / "monitoring")
    ]

    for patch in changes:
        assert patch.items() <= settings["data"].items()


# ---------------------------------------------------------------- values


def test_misspelt_value_is_rejected_at_every_depth() -> None:
    for path in _paths(values_of("values.yaml")):
        wrong: dict[str, Any] = {}
        inner = wrong
        for key in path:
            inner = inner.setdefault(key, {})
        inner["misspelt"] = {"x": 1}
        with pytest.raises(helm_python.HelmError, match=r"misspelt|settings"):
            render_chart(wrong)


def _paths(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if path != ("secrets", "names"):
        yield path
    for key, value in values.items():
        if isinstance(value, dict) and path != ("secrets",):
            yield from _paths(section(values, key), (*path, key))


def test_the_schema_is_strict_and_describes_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    Draft7Validator.check_schema(schema)

    for part in _objects_of(schema):
        assert part.get("additionalProperties") is not True
        assert "additionalProperties" in part, part
    described = schema["properties"].keys() - {"global"}
    assert described == values_of("values.yaml").keys()


def _objects_of(schema: Json) -> Iterator[dict[str, Json]]:
    if isinstance(schema, dict):
        for value in schema.values():
            yield from _objects_of(value)
        # `global` is Helm's, for parent charts
        if schema.get("type") == "object" and schema != {"type": "object"}:
            yield schema


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"gateway": {"host": "shop.example.com"}}, "/gateway/host"),
        ({"gateway": {"host": "Shop.Example.COM"}}, "/gateway/host"),
        ({"gateway": {"host": ""}}, "/gateway/host"),
        ({"gateway": {"tls": False}}, "gateway.tls=false"),
        ({"settings": {"JWT_ISSUER": "https://id.example.org/"}}, "/settings/JWT_ISSUER"),
        ({"settings": {"PAYMENT_PROVIDER": "sandbox"}}, "/settings/PAYMENT_PROVIDER"),
        ({"settings": {"RATE_LIMIT_PER_MINUTE": "0"}}, "RATE_LIMIT_PER_MINUTE=0"),
        ({"settings": {"SETTLEMENTS_AUTH": "customer"}}, "SETTLEMENTS_AUTH other than finance"),
        ({"sandbox": {"enabled": True}}, "/sandbox/enabled"),
        ({"migration": {"seed": True}}, "migration.seed"),
        ({"pgbouncer": {"serverTls": "require"}}, "serverTls other than verify-full"),
        ({"networkPolicy": {"databaseNetworks": []}}, "an empty networkPolicy.databaseNetworks"),
        ({"databaseReplica": {"enabled": True}}, "an empty databaseReplica.networks"),
        ({"networkPolicy": {"redisNetworks": []}}, "an empty networkPolicy.redisNetworks"),
    ],
)
def test_production_values_reject(values: dict[str, Any], why: str) -> None:
    with pytest.raises(helm_python.HelmError, match=why):
        render_chart(values_of("values-prod.yaml"), OWN_HOST, PINNED, NETWORKS, values, assume=APIS)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (
            {"functions": {"login": {"maxScale": 200}}},
            f"may open {connections_max(login=200)} database connections",
        ),
        ({"functions": {"no_such": {"maxScale": 2}}}, "there is no such function"),
        ({"functions": {"login": {"minScale": 9}}}, "minScale 9 is more than maxScale 5"),
        ({"requireDigests": True}, "has no digest"),
        ({"secrets": {"source": "externalSecrets"}}, "install the External Secrets Operator"),
        ({"broker": {"class": "nats"}}, "/broker/class"),
        ({"image": {"digest": "sha256:1"}}, "/image/digest"),
        (EVENT_POLICY, "this cluster has no EventPolicy"),
        ({"broker": {"eventPolicy": True, "class": "rabbitmq"}}, "class rabbitmq check no tokens"),
        ({"broker": {"eventPolicy": True, "url": "http://b"}}, "broker.url is not one of this"),
    ],
)
def test_invalid_value_is_rejected_with_its_name(values: dict[str, Any], why: str) -> None:
    with pytest.raises(helm_python.HelmError, match=why):
        render_chart(values)


# ---------------------------------------------------------------- APIs of the cluster


def test_kinds_without_an_api_are_not_rendered() -> None:
    optional = {"ExternalSecret", "Gateway", "HTTPRoute", "PodMonitor", "ReferenceGrant"}
    optional |= {"ScaledJob", "TriggerAuthentication"}

    bare = {manifest["kind"] for manifest in chart_manifests("values").objects}
    whole = {manifest["kind"] for manifest in chart_manifests("prod").objects}

    assert bare & optional == set()
    assert optional <= whole


# what can start a pod or keep one although nothing is due, by kind and name
def woken_without_work(manifests: ManifestSet) -> set[tuple[str, str]]:
    """CronJobs and PingSources, minimum scales, and scalers that are active without a due row."""
    found = {(o["kind"], o["metadata"]["name"]) for o in manifests.kind("CronJob", "PingSource")}
    for manifest in manifests.functions():
        scale = manifest["spec"]["template"]["metadata"]["annotations"]
        if scale["autoscaling.knative.dev/min-scale"] != "0":
            found.add(("Service", manifest["metadata"]["name"]))
    queries = [due_query(schedule) for _, schedule in due_schedules()]
    for manifest in manifests.kind("ScaledJob", "ScaledObject"):
        spec = manifest["spec"]
        triggers = [trigger["metadata"] for trigger in spec["triggers"]]
        is_asleep = spec["minReplicaCount"] == 0 and all(
            trigger["query"] in queries and trigger["activationTargetQueryValue"] == "0"
            for trigger in triggers
        )
        if not is_asleep:
            found.add((manifest["kind"], manifest["metadata"]["name"]))
    return found


def test_with_keda_nothing_wakes_a_pod_while_nothing_is_due() -> None:
    manifests = chart_manifests("values, all APIs")

    assert woken_without_work(manifests) == set()
    assert {each["metadata"]["name"] for each in manifests.kind("ScaledJob")} == {
        "shop-clock-sweep",
        "shop-clock-close-days",
        "shop-clock-send-mails",
        "shop-clock-send-webhooks",
    }


def test_with_keda_due_work_is_queried_at_most_once_a_minute_in_all() -> None:
    intervals = [
        each["spec"]["pollingInterval"]
        for each in chart_manifests("values, all APIs").kind("ScaledJob")
    ]

    assert sum(60 / seconds for seconds in intervals) <= 1


def ticks_a_day(manifest: Manifest) -> int:
    """How often a CronJob starts a pod in a day."""
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    cron, moment, count = Cron.parse(manifest["spec"]["schedule"]), midnight, 0
    while (moment := cron.next_after(moment)) <= midnight + timedelta(days=1):
        count += 1
    return count


def test_without_keda_the_clock_alone_wakes_pods_and_as_often_as_documented() -> None:
    manifests = chart_manifests("values")

    per_day = sum(ticks_a_day(manifest) for manifest in manifests.kind("CronJob"))
    documented = (ROOT / "docs/KNATIVE.md").read_text("utf-8")

    assert woken_without_work(manifests) == {
        ("CronJob", "shop-clock-sweep"),
        ("CronJob", "shop-clock-close-days"),
        ("CronJob", "shop-clock-send-mails"),
        ("CronJob", "shop-clock-send-webhooks"),
    }
    assert f"{per_day} tick pods a day" in documented


def test_every_function_is_one_service_with_keda_and_without() -> None:
    for configuration in ("values", "values, all APIs"):
        names = {each["metadata"]["name"] for each in chart_manifests(configuration).functions()}
        assert names == {name_of(spec) for spec in all_specs()}


def test_schedules_follow_the_values() -> None:
    own = {"keda": {"pollSeconds": {"sweep": 10}}, "clock": {"close-days": "0 * * * *"}}
    with_keda, without = render_chart(own, assume=APIS), render_chart(own)

    assert {
        each["metadata"]["name"]: each["spec"]["pollingInterval"]
        for each in with_keda.kind("ScaledJob")
    } == {
        "shop-clock-sweep": 10,
        "shop-clock-close-days": 900,
        "shop-clock-send-mails": 900,
        "shop-clock-send-webhooks": 300,
    }
    assert {
        each["metadata"]["name"]: each["spec"]["schedule"] for each in without.kind("CronJob")
    } == {
        "shop-clock-sweep": "*/5 * * * *",
        "shop-clock-close-days": "0 * * * *",
        "shop-clock-send-mails": "4,14,24,34,44,54 * * * *",
        "shop-clock-send-webhooks": "*/5 * * * *",
    }


def test_new_release_keeps_the_pod_templates() -> None:
    def templates(manifests: ManifestSet) -> dict[str, Any]:
        return {t["metadata"]["name"]: t["spec"]["template"] for t in manifests.functions()}

    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render({}, name="other", namespace="shop", revision=7, is_upgrade=True)
    again = parse("\n---\n".join(t for path, t in texts.items() if path.endswith(".yaml")))

    assert templates(again) == templates(chart_manifests("values"))


def test_changed_setting_changes_every_pod_template() -> None:
    def checksums(manifests: ManifestSet) -> dict[str, str]:
        return {
            t["metadata"]["name"]: t["spec"]["template"]["metadata"]["annotations"][
                "msa-shop/settings"
            ]
            for t in manifests.functions()
        }

    before = checksums(chart_manifests("values"))
    after = checksums(render_chart({"settings": {"OPEN_ORDERS_MAX": "11"}}))

    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())


def test_function_values_set_threads_and_resources() -> None:
    manifests = render_chart(
        {"functions": {"login": {"concurrency": 3, "resources": {"limits": {"memory": "1Gi"}}}}}
    )

    pod = manifests.function("shop-login")["spec"]["template"]["spec"]  # type: ignore[index]

    assert pod["containerConcurrency"] == 3
    assert pod["containers"][0]["env"] == [{"name": "THREADS", "value": "3"}]
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}


def test_production_images_are_pinned_by_digest() -> None:
    images = {
        container["image"]
        for _, template in chart_manifests("prod").pods()
        for container in template["spec"]["containers"]
    }

    assert images
    assert all(image.endswith(f"@{DIGEST}") for image in images)
    assert Path(CHART / "files/functions.yaml").is_file()


# ---------------------------------------------------------------- scale


def decisions(manifests: ManifestSet, *, observed: float, ready: int) -> dict[str, Decision]:
    """The autoscaler's decision for each function at this concurrency."""
    return {
        manifest["metadata"]["name"]: decide(
            manifest["spec"]["template"]["metadata"]["annotations"],
            manifest["spec"]["template"]["spec"]["containerConcurrency"],
            observed=observed,
            ready=ready,
        )
        for manifest in manifests.functions()
    }


@pytest.mark.parametrize("ready", [0, 1])
@pytest.mark.parametrize("configuration", ["values", "values, all APIs", "prod"])
def test_one_tick_or_request_needs_one_pod_and_no_panic(configuration: str, ready: int) -> None:
    manifests = chart_manifests(configuration)
    activated = {"shop-place-order": 2} if configuration == "prod" else {}

    for name, decision in decisions(manifests, observed=1, ready=ready).items():
        assert decision == Decision(activated.get(name, 1), is_panic=False), name


def test_at_seventy_percent_of_one_request_the_autoscaler_panics() -> None:
    annotations = {"autoscaling.knative.dev/target-utilization-percentage": "70"}

    assert decide(annotations, 1, observed=1, ready=1) == Decision(2, is_panic=True)


def test_no_initial_pod_is_asked_for_only_where_the_cluster_allows_zero() -> None:
    def initial(manifests: ManifestSet) -> set[str | None]:
        templates = [each["spec"]["template"] for each in manifests.functions()]
        key = "autoscaling.knative.dev/initial-scale"
        return {template["metadata"]["annotations"].get(key) for template in templates}

    assert initial(chart_manifests("values")) == {None}
    assert initial(render_chart({"initialScale": 0})) == {"0"}


def test_revision_may_wait_for_a_node_for_half_an_hour() -> None:
    deadlines = {
        each["spec"]["template"]["metadata"]["annotations"]["serving.knative.dev/progress-deadline"]
        for each in chart_manifests("values").functions()
    }

    assert deadlines == {"1800s"}


# what a kind node with 2 CPUs has left, in thousandths: its own pods request 950, the 16 of Knative
# and Kourier 20 each as scripts/kind-up sets them, Envoy Gateway and its Envoy 210
KIND_NODE_FREE = 2000 - 950 - 16 * 20 - 210
# half of such a node, where something else than kind runs it
FRESH_INSTALL_MAX = 1000


def cpu_millis(manifests: ManifestSet, *, function_pods: int) -> int:
    """What the pods of an installed release request, with this many pods of each function."""
    total = 0
    for manifest, template in manifests.pods():
        if manifest["kind"] not in ("Service", "Deployment", "StatefulSet", "Job"):
            continue
        requests = [c["resources"]["requests"]["cpu"] for c in template["spec"]["containers"]]
        is_function = manifest["kind"] == "Service"
        if is_function:
            sidecar = "queue.sidecar.serving.knative.dev/cpu-resource-request"
            requests.append(template["metadata"]["annotations"][sidecar])
        pods = function_pods if is_function else manifest["spec"].get("replicas", 1)
        total += pods * sum(int(request.removesuffix("m")) for request in requests)
    return total


def test_fresh_install_fits_a_node_with_two_cpus_beside_knative() -> None:
    assert cpu_millis(chart_manifests("values"), function_pods=1) <= FRESH_INSTALL_MAX
    # all functions awake, with an end-to-end run
    assert cpu_millis(chart_manifests("kind"), function_pods=1) <= KIND_NODE_FREE


def test_page_about_kind_states_what_the_shop_requests_of_what_its_node_has_left() -> None:
    page = (ROOT / "infra/kind/README.md").read_text("utf-8")
    stated = re.search(
        r"leaves the shop (0\.\d+) vCPU.*?request (0\.\d+) vCPU of it", page, re.DOTALL
    )

    assert stated is not None
    left, requested = (round(1000 * float(text)) for text in stated.groups())
    assert left == KIND_NODE_FREE
    assert requested == cpu_millis(chart_manifests("kind"), function_pods=1)


def test_kind_installs_no_function_pod() -> None:
    values = yaml.safe_load((ROOT / "infra/kind/values.yaml").read_text("utf-8"))

    assert values["initialScale"] == 0
    assert "allow-zero-initial-scale" in (ROOT / "scripts/kind-up").read_text("utf-8")


def test_warm_hours_are_set_at_each_start_and_end_and_after_a_release() -> None:
    windows = {"place_order": {"warmHours": [OFFICE]}, "login": {"warmHours": [OFFICE]}}
    manifests = render_chart({"functions": windows})
    jobs = [
        each
        for each in manifests.kind("CronJob", "Job")
        if each["metadata"]["name"].startswith("shop-warm-hours")
    ]
    crons = {
        (each["spec"]["schedule"], each["spec"]["timeZone"])
        for each in jobs
        if each["kind"] == "CronJob"
    }
    templates = [t for manifest, t in manifests.pods() if manifest in jobs]
    (hook,) = (each for each in jobs if each["kind"] == "Job")

    assert findings(manifests) == []
    assert crons == {("0 9 * * 1-5", "Asia/Seoul"), ("0 18 * * 1-5", "Asia/Seoul")}
    assert "post-upgrade" in hook["metadata"]["annotations"]["helm.sh/hook"]
    for template in templates:
        namespace, hours = template["spec"]["containers"][0]["args"]
        assert (namespace, json.loads(hours)) == (
            "shop",
            {"shop-login": [OFFICE], "shop-place-order": [OFFICE]},
        )
    # no revision changes at the start or the end of a window
    services = [each["spec"] for each in manifests.functions()]
    assert services == [each["spec"] for each in chart_manifests("values").functions()]


def test_without_warm_hours_no_object_of_them_exists() -> None:
    names = [each["metadata"]["name"] for each in chart_manifests("values, all APIs").objects]

    assert [name for name in names if "warm-hours" in name] == []


def test_traffic_moves_step_by_step_in_production_and_at_once_elsewhere() -> None:
    def durations(configuration: str) -> set[str | None]:
        return {
            each["metadata"].get("annotations", {}).get("serving.knative.dev/rollout-duration")
            for each in chart_manifests(configuration).functions()
        }

    assert durations("values") == {None}
    assert durations("prod") == {"120s"}


# ---------------------------------------------------------------- operators


def test_operators_pod_is_at_zero_and_has_the_roles_of_operators_only() -> None:
    manifests = chart_manifests("prod")
    (tools,) = [d for d in manifests.kind("Deployment") if d["metadata"]["name"] == "shop-tools"]

    pod = tools["spec"]["template"]["spec"]

    assert tools["spec"]["replicas"] == 0
    (secrets,) = [v["projected"]["sources"] for v in pod["volumes"] if v["name"] == "secrets"]
    assert [source["secret"]["name"] for source in secrets] == [
        "shop-auditor",
        "shop-ops",
        "shop-accounts",
        "shop-links",
        "shop-redis",
        "shop-payment-provider",
    ]
    files = [item["path"] for source in secrets for item in source["secret"].get("items", [])]
    assert files == ["auditor-database-url", "ops-database-url", "accounts-database-url"]
    for job in (each for each in manifests.kind("CronJob") if "audit" in json.dumps(each)):
        assert "shop-accounts" not in json.dumps(job), job["metadata"]["name"]
        assert "shop-links" not in json.dumps(job), job["metadata"]["name"]


def test_audits_run_existing_commands_once_a_day_and_store_their_results() -> None:
    shop = get_command(app)
    audits = {
        job["metadata"]["name"]: job["spec"]
        for job in chart_manifests("prod").kind("CronJob")
        if job["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"].get(
            "app.kubernetes.io/name"
        )
        == "shop-audit"
    }

    assert set(audits) == {"shop-check", "shop-reconcile", "shop-ledger-verify"}
    for spec in audits.values():
        (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        *words, option = container["args"]
        command: object = shop
        for word in words:
            assert isinstance(command, TyperGroup)
            command = command.commands[word]
        assert container["command"] == ["shop"]
        assert option in {name for one in getattr(command, "params", ()) for name in one.opts}
        assert spec["schedule"].endswith(" * * *")
        assert spec["timeZone"] == "Asia/Seoul"
        assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_nothing_for_operators_is_rendered_when_it_is_off() -> None:
    off = render_chart({"tools": {"enabled": False}, "audits": {"enabled": False}})

    names = {manifest["metadata"]["name"] for manifest in off.objects}

    assert not names & {"shop-tools", "shop-tools-out", "shop-smoke-out", "shop-check"}


def test_operators_pod_reaches_the_functions_for_smoke_requests() -> None:
    manifests = chart_manifests("prod")

    (functions,) = policy(manifests, "shop-ticks-out")["egress"]

    assert policy(manifests, "shop-smoke-out")["egress"] == [functions]
    assert policy(manifests, "shop-smoke-out")["podSelector"] == {
        "matchLabels": {"app.kubernetes.io/name": "shop-tools"}
    }


# ---------------------------------------------------------------- network, TLS, secrets


def policy(manifests: ManifestSet, name: str) -> dict[str, Any]:
    (found,) = (p for p in manifests.kind("NetworkPolicy") if p["metadata"]["name"] == name)
    spec: dict[str, Any] = found["spec"]
    return spec


def pods_of(rules: list[dict[str, Any]], key: str) -> list[str]:
    """The names of the pods that rules select as peers."""
    peers = [peer for rule in rules for peer in rule[key] if "podSelector" in peer]
    return [next(iter(peer["podSelector"]["matchLabels"].values())) for peer in peers]


def test_functions_reach_bundled_servers_only() -> None:
    manifests = chart_manifests("values")

    reached = {
        name: pods_of(policy(manifests, f"shop-{name}-out")["egress"], "to")
        for name in ("database", "redis", "provider")
    }

    assert reached == {
        "database": ["shop-pgbouncer"],
        "redis": ["shop-redis"],
        "provider": ["shop-sandbox"],
    }
    assert pods_of(policy(manifests, "shop-migration-out")["egress"], "to") == ["shop-postgresql"]
    assert pods_of(policy(manifests, "shop-postgresql-in")["ingress"], "from") == [
        "shop-pgbouncer",
        "shop-migration",
        "tools",
    ]
    assert pods_of(policy(manifests, "shop-tools-out")["egress"], "to") == ["shop-postgresql"]


def test_external_servers_are_reached_in_their_networks_and_the_provider_on_the_internet() -> None:
    manifests = chart_manifests("prod")

    (pooler,) = policy(manifests, "shop-pgbouncer")["egress"]
    (redis,) = policy(manifests, "shop-redis-out")["egress"]
    (provider,) = policy(manifests, "shop-provider-out")["egress"]

    assert pooler["to"] == [{"ipBlock": {"cidr": "10.1.2.0/24"}}]
    assert redis["to"] == [{"ipBlock": {"cidr": "10.1.3.0/24"}}]
    assert provider == {
        "to": [network_policies.INTERNET],
        "ports": [{"port": 443, "protocol": "TCP"}],
    }
    assert "169.254.0.0/16" in provider["to"][0]["ipBlock"]["except"]


def test_replica_is_reached_by_its_readers_only_with_their_own_roles() -> None:
    replica = {"enabled": True, "lagSeconds": 5, "networks": ["10.1.4.0/24"]}
    values = values_of("values-prod.yaml"), OWN_HOST, PINNED, NETWORKS, {"databaseReplica": replica}

    manifests = render_chart(*values, assume=APIS)

    out = policy(manifests, "shop-replica-out")
    label, readers = (
        out["podSelector"]["matchLabels"],
        ("shop-list-products", "shop-read-settlements"),
    )
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]
        for each in (*manifests.kind("Service"), *manifests.kind("Deployment"))
        if "template" in each["spec"]
    }
    assert [rule["to"] for rule in out["egress"]] == [[{"ipBlock": {"cidr": "10.1.4.0/24"}}]]
    assert {
        name for name, pod in pods.items() if label.items() <= pod["metadata"]["labels"].items()
    } == {*readers, "shop-tools"}
    assert {
        each["metadata"]["name"]
        for each in manifests.kind("ExternalSecret")
        if "database-replica-url" in [item["secretKey"] for item in each["spec"]["data"]]
    } == {"shop-catalog-ro", "shop-settlement", "shop-auditor"}
    secrets = json.dumps(pods["shop-tools"]["spec"]["volumes"])
    assert '{"key": "database-replica-url", "path": "auditor-database-replica-url"}' in secrets
    assert "shop-replica-out" not in {
        each["metadata"]["name"] for each in chart_manifests("prod").kind("NetworkPolicy")
    }


def pooler_settings(manifests: ManifestSet) -> dict[str, str]:
    (found,) = (
        c["data"]["pgbouncer.ini"]
        for c in manifests.kind("ConfigMap")
        if c["metadata"]["name"] == "shop-pgbouncer"
    )
    lines = (line.partition(" = ") for line in found.splitlines())
    return {name: value for name, _, value in lines}


def test_pooler_verifies_the_certificate_of_an_external_database() -> None:
    public = pooler_settings(chart_manifests("prod"))
    own = render_chart({"pgbouncer": {"serverTls": "verify-full", "serverCaSecret": "ca"}})

    assert public["server_tls_sslmode"] == "verify-full"
    assert public["server_tls_ca_file"] == "/etc/ssl/certs/ca-certificates.crt"
    assert pooler_settings(own)["server_tls_ca_file"] == "/run/secrets/database-ca/ca.crt"


def test_restarted_database_is_tried_after_a_second_and_keeps_its_files() -> None:
    manifests = chart_manifests("values")
    (database,) = manifests.kind("StatefulSet")

    assert pooler_settings(manifests)["server_login_retry"] == "1"
    context = database["spec"]["template"]["spec"]["securityContext"]
    assert context["fsGroupChangePolicy"] == "OnRootMismatch"


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_volumes_keep_the_mode_that_their_program_needs(configuration: str) -> None:
    """Otherwise a restart makes PostgreSQL's folder readable for its group, and it exits."""
    contexts = [
        context
        for manifest in chart_manifests(configuration).objects
        for context in [
            manifest.get("spec", {}).get("template", {}).get("spec", {}).get("securityContext", {})
        ]
        if "fsGroup" in context
    ]

    assert {context.get("fsGroupChangePolicy") for context in contexts} <= {"OnRootMismatch"}


def test_pooler_ends_a_query_whose_role_lifted_its_statement_timeout() -> None:
    limit = int(pooler_settings(chart_manifests("values"))["query_timeout"])

    assert int(ROLE_SETTINGS["statement_timeout"].removesuffix("s")) < limit <= 5


def test_password_of_redis_is_read_from_its_file_by_the_shell(tmp_path: Path) -> None:
    (redis,) = (
        d
        for d in chart_manifests("values").kind("Deployment")
        if d["metadata"]["name"] == "shop-redis"
    )
    (container,) = redis["spec"]["template"]["spec"]["containers"]
    (tmp_path / "password").write_text("p4ss-w_rd\n")
    (tmp_path / "valkey-server").write_text('#!/bin/sh\necho "$@"; cat\n')
    (tmp_path / "valkey-server").chmod(0o755)
    script = container["args"][0].replace("/run/secrets/redis", str(tmp_path))

    done = subprocess.run(
        [*container["command"], script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "env" not in container
    assert done.stdout.splitlines()[:2] == ["-", 'requirepass "p4ss-w_rd"']


def test_metrics_port_is_open_only_where_something_scrapes_it() -> None:
    def is_open(*values: dict[str, Any], assume: list[str] | None = None) -> bool:
        manifests = render_chart(*values, assume=assume)
        (settings,) = (
            c for c in manifests.kind("ConfigMap") if c["metadata"]["name"] == "shop-settings"
        )
        names = {p["metadata"]["name"] for p in manifests.kind("NetworkPolicy")}
        is_allowed = bool(names & {"shop-metrics-in", "shop-functions-scraped"})
        assert ("METRICS_PORT" in settings["data"]) == is_allowed
        return is_allowed

    own: dict[str, Any] = {"observability": {"enabled": True}}
    pushed: dict[str, Any] = {"observability": {"enabled": True, "kubernetesApi": False}}
    assert not is_open()
    assert not is_open(pushed)
    assert not is_open({"podMonitor": {"enabled": False}}, assume=APIS)
    assert is_open(own)
    assert is_open(assume=APIS)


def test_browsers_are_asked_for_https_where_the_gateway_has_it() -> None:
    def answered(manifests: ManifestSet) -> list[Any]:
        return [
            filter_["responseHeaderModifier"]["set"]
            for route in manifests.kind("HTTPRoute")
            for filter_ in route["spec"]["rules"][0]["filters"]
            if filter_["type"] == "ResponseHeaderModifier"
        ]

    routes = list(chart_manifests("prod").kind("HTTPRoute"))

    assert answered(chart_manifests("prod")) == [[gateway.HSTS]] * len(routes)
    assert answered(render_chart({"gateway": {"tls": False}}, assume=APIS)) == []


# ---------------------------------------------------------------- EventPolicy


def broker_tokens(manifests: ManifestSet) -> dict[str, dict[str, Any]]:
    """The projected tokens by path in the folder of secrets, by the pod's owner."""
    return {
        manifest["metadata"]["name"]: source["serviceAccountToken"]
        for manifest, template in manifests.pods()
        for volume in template["spec"]["volumes"]
        if volume["name"] == "secrets"
        for source in section(volume, "projected").get("sources", [])
        if "serviceAccountToken" in source
    }


@pytest.mark.parametrize("assumed", [APIS, []], ids=["with KEDA", "without KEDA"])
def test_event_policy_admits_the_functions_that_emit_events_and_replays(
    assumed: list[str],
) -> None:
    manifests = render_chart(EVENT_POLICY, assume=[*assumed, EVENT_POLICIES])
    (event_policy,) = manifests.kind("EventPolicy")
    senders = {name_of(spec) for spec in all_specs() if spec.emits} | {"shop-tools"}
    accounts = {
        template["spec"]["serviceAccountName"]
        for manifest, template in manifests.pods()
        if manifest["metadata"]["name"] in senders
    }

    assert event_policy["spec"]["to"] == [
        {"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "shop"}}
    ]
    assert event_policy["spec"]["from"] == [
        {"sub": f"system:serviceaccount:shop:{account}"} for account in sorted(accounts)
    ]
    assert "shop-clock" not in accounts
    assert broker_tokens(manifests).keys() == senders


def test_token_of_a_sender_is_for_the_broker_and_where_the_setting_says() -> None:
    manifests = chart_manifests("event policy")
    (settings,) = (
        c for c in manifests.kind("ConfigMap") if c["metadata"]["name"] == "shop-settings"
    )
    folder, _, file = settings["data"]["BROKER_TOKEN_PATH"].rpartition("/")
    (mounted,) = (
        mount["mountPath"]
        for _, template in manifests.pods()
        if template["metadata"]["labels"].get("app.kubernetes.io/name") == "shop-place-order"
        for mount in template["spec"]["containers"][0]["volumeMounts"]
        if mount["name"] == "secrets"
    )

    assert folder == mounted
    for token in broker_tokens(manifests).values():
        assert token == {
            "path": file,
            "audience": "eventing.knative.dev/broker/shop/shop",
            "expirationSeconds": 3600,
        }


@pytest.mark.parametrize("configuration", ["values", "prod"])
def test_no_token_is_mounted_or_sent_by_default(configuration: str) -> None:
    manifests = chart_manifests(configuration)
    (settings,) = (
        c for c in manifests.kind("ConfigMap") if c["metadata"]["name"] == "shop-settings"
    )

    assert list(manifests.kind("EventPolicy")) == []
    assert broker_tokens(manifests) == {}
    assert "BROKER_TOKEN_PATH" not in settings["data"]
