"""The Job that migrates the database is the same with Helm and without."""

from __future__ import annotations

from typing import Any

from tests.manifests.test_chart import PINNED, render_chart
from tools.manifest_rules.manifests import ManifestSet
from tools.render import migration

SECRETS = {"admin": "secrets", "roles": "roles"}  # volumes of the chart and of the component
CHART_VALUES = {"profile": "prod", "sandbox": {"enabled": False}, "gateway": {"enabled": False}}
PROD = {"settings": {"PAYMENT_PROVIDER": "stripe", "JWT_ISSUER": "https://shop.co.kr"}}


def pod_of(manifests: ManifestSet) -> dict[str, Any]:
    (job,) = [
        each
        for each in manifests.objects
        if each["kind"] == "Job" and "migration" in each["metadata"]["name"]
    ]
    return job["spec"]


def test_component_has_the_same_job_as_the_chart() -> None:
    _, ours = migration.objects()
    chart = pod_of(render_chart(CHART_VALUES, PROD, PINNED))

    for name in ("backoffLimit", "activeDeadlineSeconds"):
        assert ours["spec"][name] == chart[name]
    expected, found = chart["template"]["spec"], ours["spec"]["template"]["spec"]
    (theirs,), (container,) = expected["containers"], found["containers"]
    for name in ("args", "env", "resources", "securityContext"):
        assert container[name] == theirs[name], name
    assert found["restartPolicy"] == expected["restartPolicy"]
    mounted = {SECRETS.get(m["name"], m["name"]): m["mountPath"] for m in theirs["volumeMounts"]}
    assert {m["name"]: m["mountPath"] for m in container["volumeMounts"]} == mounted
    secrets = {SECRETS.get(v["name"], v["name"]): v.get("secret") for v in expected["volumes"]}
    assert {v["name"]: v.get("secret") for v in found["volumes"]} == secrets
