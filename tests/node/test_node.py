"""What of the check on a node runs without one: its images, its ingress layer with a real Envoy."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import envoy
import httpx
import psycopg
import pytest
import yaml

from tests.harness import ShopHarness
from tests.node import check, ingress
from tests.node.images import write_image
from tests.node.platform import CONTAINERS, image_name
from tools.local_platform.servers import free_port, start_server, stop_server

Json = dict[str, Any]

HERE = Path(__file__).parent
HOST = "shop-a.shop.svc.cluster.local"
PROGRAM = Path(envoy.__file__).parent / "_bin" / "envoy"


def knative_ingress(percent: int = 10) -> Json:
    """As Serving writes one for a Service with a candidate and a tag."""

    def split(revision: str, percent: int) -> Json:
        return {
            "serviceNamespace": "shop",
            "serviceName": revision,
            "servicePort": 80,
            "percent": percent,
            "appendHeaders": {"Knative-Serving-Revision": revision},
        }

    tagged = {"Knative-Serving-Tag": {"exact": "candidate"}}
    paths = [
        {"headers": tagged, "splits": [split("a-2", 100)]},
        {"splits": [split("a-1", 100 - percent), split("a-2", percent)]},
    ]
    rule = {"hosts": [HOST, "shop-a.shop"], "visibility": "ClusterLocal", "http": {"paths": paths}}
    metadata = {"name": "shop-a", "namespace": "shop", "generation": 2, "resourceVersion": "7"}
    return {"metadata": metadata, "spec": {"rules": [rule]}}


@pytest.fixture
def running_envoy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """Envoy with the configuration of the pod; its folder and its address."""
    port, admin = free_port(), free_port()
    (deployed,) = (
        each["data"]["envoy.yaml"]
        for each in yaml.safe_load_all((HERE / "ingress.yaml").read_text("utf-8"))
        if each["kind"] == "ConfigMap"
    )
    text = deployed.replace("/shared", str(tmp_path)).replace("0.0.0.0", "127.0.0.1")
    text = text.replace("8080", str(port)).replace("9901", str(admin))
    (tmp_path / "envoy.yaml").write_text(text, "utf-8")
    for name in ("clusters", "routes"):
        (tmp_path / f"{name}.json").write_text("{}", "utf-8")
    monkeypatch.setattr(ingress, "ADMIN", f"http://127.0.0.1:{admin}")
    command = [str(PROGRAM), "--config-path", str(tmp_path / "envoy.yaml"), "--disable-hot-restart"]
    with (tmp_path / "log").open("wb") as log:
        process = start_server([*command, "--concurrency", "1", "--log-level", "warn"], log)
    try:
        yield tmp_path, f"http://127.0.0.1:{port}"
    finally:
        stop_server(process, 15, 9)


def publish(folder: Path, *ingresses: Json) -> None:
    clusters = list(ingress.clusters_of(list(ingresses)).values())
    ingress.publish(folder, clusters, ingress.virtual_hosts_of(list(ingresses)))


def test_envoy_accepts_routes_and_knows_only_the_hosts_of_ingresses(
    running_envoy: tuple[Path, str],
) -> None:
    folder, url = running_envoy

    publish(folder, knative_ingress())
    # the revisions do not exist here, so a known host has no backend and an unknown one no route
    known = httpx.get(url, headers={"host": HOST}).status_code
    unknown = httpx.get(url, headers={"host": "elsewhere"}).status_code
    publish(folder)
    removed = httpx.get(url, headers={"host": HOST}).status_code

    assert (known, unknown, removed) == (503, 404, 404)


def test_requests_are_divided_between_the_revisions_and_a_tag_has_all_of_its_own() -> None:
    (host,) = ingress.virtual_hosts_of([knative_ingress(percent=10)])
    tagged, divided = (
        {c["name"]: c["weight"] for c in route["route"]["weighted_clusters"]["clusters"]}
        for route in host["routes"]
    )

    assert host["routes"][0]["match"]["headers"][0]["name"] == "Knative-Serving-Tag"
    assert tagged == {"shop/a-2:80": 100}
    assert divided == {"shop/a-1:80": 90, "shop/a-2:80": 10}


@pytest.mark.parametrize(("observed", "is_ready"), [(2, True), (1, False)])
def test_an_ingress_is_ready_only_for_the_generation_that_was_configured(
    observed: int, is_ready: bool
) -> None:
    declared: list[Json] = []

    def answer(request: httpx.Request) -> httpx.Response:
        declared.append(json.loads(request.content)["status"])
        return httpx.Response(200)

    before = knative_ingress()
    with httpx.Client(base_url="http://api", transport=httpx.MockTransport(answer)) as api:
        ingress.declare_ready(api, before)
    status = {**declared[0], "observedGeneration": observed}

    assert not ingress.is_ready(before)
    assert ingress.is_ready({**before, "status": status}) == is_ready


def test_image_has_the_program_and_the_digest_of_its_layer(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"text")

    write_image(tmp_path / "image.tar", "dev.local/program:1", program)

    with tarfile.open(tmp_path / "image.tar") as image:
        parts = {name: image.extractfile(name) for name in image.getnames()}
        content = {name: part.read() for name, part in parts.items() if part}
    (manifest,) = json.loads(content["manifest.json"])
    config = json.loads(content[manifest["Config"]])
    layer = content[manifest["Layers"][0]]
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        assert files.getmember("program").mode == 0o755
    assert manifest["RepoTags"] == ["dev.local/program:1"]
    assert config["config"]["Entrypoint"] == ["/program"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]


def test_name_of_an_image_is_the_path_of_its_command() -> None:
    name = image_name("knative.dev/eventing/cmd/in_memory/channel_dispatcher")

    assert name == "eventing-in-memory-channel-dispatcher"
    assert name in CONTAINERS


def test_unknown_step_is_rejected_before_anything_runs(tmp_path: Path) -> None:
    assert check.main(tmp_path / "node", ["build", "destroy"]) == 2
    assert not (tmp_path / "node").exists()


def test_jobs_that_are_due_soon_are_found_and_those_that_were_not_done(
    shop: ShopHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def psql(_: check.Node, query: str) -> str:
        with psycopg.connect(shop.admin_url) as connection:
            rows = connection.execute(query.encode()).fetchall()
        return "\n".join("|".join(map(str, row)) for row in rows)

    def expiring() -> list[check.DueJobs]:
        return [jobs for jobs in check.due(check.Node(tmp_path), 1000) if jobs.kind == "expire"]

    monkeypatch.setattr(check, "psql", psql)
    shop.person().order(shop.product())
    shop.sql("update shop.orders set charge_at = null")
    (soon,) = expiring()
    shop.sql("update shop.orders set expires_at = now() - interval '1 hour'")
    (late,) = expiring()

    assert (soon.count, soon.is_late) == (1, False)
    assert 0 < soon.first <= soon.last <= 900
    assert late.is_late
    assert "expire" not in [jobs.kind for jobs in check.due(check.Node(tmp_path), -3700)]


def test_failed_command_is_reported_and_the_next_step_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ready(node: check.Node) -> str:
        return node.run("false")

    def down(node: check.Node) -> str:
        return node.run("echo", "ended").strip()

    monkeypatch.setattr(check, "STEPS", (ready, down))

    assert check.main(tmp_path, []) == 1
    lines = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["FAILED: false: ", "ended", ""]
