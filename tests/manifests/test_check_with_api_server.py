"""The comparisons of check_with_api_server detect differences; the server itself needs Go."""

from __future__ import annotations

from typing import Any

import pytest

from tests.manifests import check_with_api_server
from tests.manifests.api_server import ApiServer, Rejected
from tests.manifests.check_with_api_server import FAULTS, UPGRADED, Fault
from tests.manifests.check_with_upstream_webhooks import PROGRAM, all_deployments
from tests.manifests.comparison import comparable, contents
from tests.manifests.definitions import PINNED, UNDEFINED, for_version
from tests.manifests.test_chart import CHART, CONFIGURATIONS, chart_manifests
from tools.manifest_rules.manifests import Manifest, ManifestSet
from tools.render.documents import Json


class RecordingServer(ApiServer):
    """Stores objects without the fields in ``pruned``, and knows no request."""

    def __init__(self, *pruned: str, warning: str = "") -> None:
        self.pruned, self.warning = pruned, warning
        self.objects: list[Manifest] = []

    def create(self, manifest: Manifest, *, is_dry_run: bool = False) -> None:
        if not is_dry_run:
            self.objects.append(manifest)
        if self.warning:
            raise Rejected(self.warning)

    def has(self, manifest: Manifest) -> bool:
        return manifest in self.objects

    def stored(self, manifest: Manifest) -> Manifest:
        spec = {key: value for key, value in manifest["spec"].items() if key not in self.pruned}
        return {**manifest, "spec": spec}

    def delete(self, manifest: Manifest) -> None:
        self.objects.remove(manifest)


def services() -> ManifestSet:
    (service, *_) = chart_manifests("values").kind("Service", api="v1")
    return ManifestSet((service,))


def test_object_that_is_stored_as_sent_is_no_problem_and_is_deleted() -> None:
    server = RecordingServer()

    assert check_with_api_server.check_objects(server, services()) == []
    assert server.objects == []


def test_field_that_the_server_prunes_is_a_problem() -> None:
    (problem,) = check_with_api_server.check_objects(RecordingServer("ports"), services())

    assert problem.endswith(".spec.ports is not stored")


def test_object_that_the_server_stores_with_a_warning_is_a_problem_and_is_deleted() -> None:
    server = RecordingServer(warning="would violate PodSecurity")

    assert check_with_api_server.check_objects(server, services()) == ["would violate PodSecurity"]
    assert server.objects == []


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({"cpu": "1000m"}, {"cpu": "1"}),
        ({"memory": "1024Mi"}, {"memory": "1Gi"}),
        ({"emptyDir": {}, "name": "", "items": None}, {}),
    ],
)
def test_values_of_equal_meaning_are_equal(sent: Json, stored: Json) -> None:
    assert comparable(sent) == comparable(stored)


def test_values_of_other_meaning_are_different() -> None:
    assert comparable({"cpu": "100m"}) != comparable({"cpu": "100"})
    assert comparable({"enabled": False}) != comparable({})


def test_definition_is_stored_in_the_version_that_is_used() -> None:
    definition: dict[str, Any] = {
        "spec": {
            "group": "eventing.knative.dev",
            "names": {"kind": "EventType"},
            "conversion": {"strategy": "Webhook"},
            "versions": [{"name": "v1beta3", "storage": False}, {"name": "v1", "storage": True}],
        }
    }

    used = {("EventType", "eventing.knative.dev/v1beta3")}
    changed = for_version(definition, used)

    assert [each["storage"] for each in changed["spec"]["versions"]] == [True, False]
    assert "conversion" not in changed["spec"]


def test_every_module_with_definitions_is_pinned() -> None:
    pinned = (PROGRAM / "go.mod").read_text("utf-8")

    assert all(f"\t{module} v" in pinned for module in PINNED)


def test_kinds_without_a_definition_are_deployed() -> None:
    deployed = {
        (each["kind"], each["apiVersion"])
        for manifests in all_deployments().values()
        for each in manifests.objects
    }

    assert deployed >= set(UNDEFINED.items())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind} {fault.path}")
def test_object_with_an_error_is_none_of_the_deployed_objects(fault: Fault) -> None:
    changed = check_with_api_server.with_fault(all_deployments(), fault)

    assert all(changed not in manifests.objects for manifests in all_deployments().values())


def test_error_whose_place_no_object_has_is_not_ignored() -> None:
    with pytest.raises(LookupError, match="Broker"):
        check_with_api_server.with_fault(all_deployments(), Fault("Broker", "spec.missing.key", 1))


def test_change_of_a_label_changes_the_contents_and_a_new_version_does_not() -> None:
    (service,) = services().objects
    metadata = {**service["metadata"], "resourceVersion": "2", "generation": 2}
    labelled = {**service["metadata"], "labels": {"app": "other"}}

    assert contents({**service, "metadata": metadata, "status": {}}) == contents(service)
    assert contents({**service, "metadata": labelled}) != contents(service)


def test_every_value_file_is_installed() -> None:
    files = {each for parts in CONFIGURATIONS.values() for each in parts if isinstance(each, str)}

    assert {path.name for path in CHART.glob("values-*.yaml")} <= files


def test_configurations_that_are_upgraded_exist() -> None:
    assert CONFIGURATIONS.keys() >= UPGRADED
