"""The comparisons of check_with_api_server detect differences; the server itself needs Go."""

# Tests the comparisons without a server, which needs Go.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import Any

import pytest

from tests.manifests import check_with_api_server
from tests.manifests.api_server import ApiServer
from tests.manifests.check_with_api_server import DEFINITIONS, UNDEFINED
from tests.manifests.check_with_upstream_webhooks import PROGRAM
from tests.manifests.test_chart import chart_manifests
from tools.manifest_rules.manifests import Manifest, ManifestSet
from tools.render.documents import Json


class RecordingServer(ApiServer):
    """Stores objects without the fields in ``pruned``, and knows no request."""

    def __init__(self, *pruned: str) -> None:
        self.pruned = pruned
        self.objects: list[Manifest] = []

    def create(self, manifest: Manifest, *, is_dry_run: bool = False) -> None:
        if not is_dry_run:
            self.objects.append(manifest)

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


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({"cpu": "1000m"}, {"cpu": "1"}),
        ({"memory": "1024Mi"}, {"memory": "1Gi"}),
        ({"emptyDir": {}, "name": "", "items": None}, {}),
    ],
)
def test_values_of_equal_meaning_are_equal(sent: Json, stored: Json) -> None:
    comparable = check_with_api_server._comparable

    assert comparable(sent) == comparable(stored)


def test_values_of_other_meaning_are_different() -> None:
    comparable = check_with_api_server._comparable

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
    changed = check_with_api_server._for_version(definition, used)

    assert [each["storage"] for each in changed["spec"]["versions"]] == [True, False]
    assert "conversion" not in changed["spec"]


def test_every_module_with_definitions_is_pinned() -> None:
    pinned = (PROGRAM / "go.mod").read_text("utf-8")

    assert all(f"\t{module} v" in pinned for module in DEFINITIONS)


def test_kinds_without_a_definition_are_deployed() -> None:
    deployed = {
        each["kind"]
        for manifests in check_with_api_server._deployments().values()
        for each in manifests.objects
    }

    assert deployed >= UNDEFINED
