"""Reads the manifests with the clients of their platforms.

    python -m tests.manifests.check_with_clients

``helm`` lints and renders the chart with every values file, ``kustomize`` builds the folders of
``infra/knative`` as a user would, ``faas-cli`` reads ``stack.yml`` and deploys it to a gateway that
only records requests, ``kn`` writes every Knative Service to a folder (its GitOps mode), and runs
the lines of docs/how-to/upgrade-and-roll-back.md against a stand-in of Serving.  Each is asked for
the options of the pages about deploying.  All are built from the sources that ``tools/`` pins;
needs Go 1.24 or newer.

Exits 1 when a client rejects a manifest or changes it; 2 without Go.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.manifests.documented_commands import PAGES, lines_of, rejection_of, words_of
from tests.manifests.test_chart import APIS
from tests.tools.rollout.serving import Revision, Serving, api_server, write_kubeconfig
from tools.manifest_rules.__main__ import ROOT, deployed_manifests, findings
from tools.manifest_rules.manifests import ManifestSet, parse
from tools.render.documents import Json

TOOLS = Path(__file__).parent / "tools"
PACKAGES = {
    "helm": "helm.sh/helm/v3/cmd/helm",
    "faas-cli": "github.com/openfaas/faas-cli",
    "kn": "knative.dev/client/cmd/kn",
    "kustomize": "sigs.k8s.io/kustomize/kustomize/v5",
}
CHART = ROOT / "helm" / "msa-shop"
DIGEST = "sha256:" + "1" * 64
# The production values require digests, which a pipeline sets.
PINNED = ("image", "toolsImage", "pgbouncer.image")
KN_SERVICE = "shop-charge"
EDGES = (ROOT / "infra" / "edge", ROOT / "infra" / "edge-traces")
KUSTOMIZE_PAGE = ROOT / "docs" / "deploy" / "kustomize.md"
KN_PAGE = ROOT / "docs" / "how-to" / "upgrade-and-roll-back.md"
HOST = "shop.co.kr"
# `go build` links a program there only when its sources changed
PROGRAMS = ROOT / "build" / "programs"
VALUES = ("values.yaml", "values-ghcr.yaml", "values-prod.yaml")
# each name of ``deployed_manifests`` with its folder and components
KUSTOMIZED = {
    "infra/knative/imc": ("imc", "gateway"),
    "infra/knative/kafka": ("kafka", "gateway"),
    "infra/knative/rabbitmq": ("rabbitmq", "gateway"),
    "infra/knative/imc with every component": (
        "imc",
        *("gateway", "keda", "migration", "monitoring", "tools", "audits", "warm-hours"),
    ),
}
OWN_IMAGES = {
    f"dev.local/msa-shop/{image}": f"registry.example/msa-shop/{image}"
    for image in ("functions", "tools")
}
IMAGE = f"{OWN_IMAGES['dev.local/msa-shop/functions']}:1.0"
# settings that faas-cli takes from its environment, with the types that YAML might make of them
SETTINGS = {
    "CORS_ORIGINS": "https://a.co.kr, https://b.co.kr",
    "IDEMPOTENCY_KEY_REQUIRED": "true",
    "PAYMENT_PROVIDER": "stripe",
    "RATE_LIMIT_PER_MINUTE": "60",
}


class ClientMismatchError(Exception):
    """A client rejected or changed a manifest; the text is the difference."""


def main() -> int:
    """Prints a line for each client and returns the exit status."""
    if shutil.which("go") is None:
        print("go is missing", file=sys.stderr)
        return 2
    failed = 0
    checks = {
        "helm": check_helm,
        "kustomize": check_kustomize,
        "faas-cli": check_faas_cli,
        "kn": check_kn,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, check in checks.items():
            try:
                program = build(TOOLS / name, PACKAGES[name], PROGRAMS / name)
                result = f"{check(program, Path(folder))}; {check_lines(name, program)}"
            except ClientMismatchError as error:
                failed += 1
                result = f"FAILED: {error}"
            print(f"{name}: {result}", flush=True)
    return 1 if failed else 0


def build(module: Path, package: str, program: Path, *, tags: str = "") -> Path:
    """Builds a statically linked program from the sources that a Go module pins.

    All checks use the same options, so that they share Go's cache.
    Raises ``CalledProcessError`` when Go cannot download or build the sources.
    """
    options = ["-buildvcs=false", "-ldflags=-s -w", "-tags", tags]
    command = ["go", "build", *options, "-o", str(program), package]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run(command, cwd=module, env=environment, check=True)
    return program


def check_lines(client: str, program: Path) -> str:
    """Asks a client whether it has the commands and options that the pages show."""
    lines = [line for page in PAGES for line in lines_of(page)]
    found = [words for line in lines for words in words_of(line, client)]
    if client == "helm":
        script = "scripts/helm-upgrade"
        shown = [words[1:] for line in lines for words in words_of(line, script)]
        found += [["helm", "upgrade", "shop", "helm/msa-shop", *words] for words in shown]
    for words in found:
        if rejection := rejection_of(str(program), words):
            raise ClientMismatchError(f"{' '.join(words)}: {rejection}")
    return f"{len(found)} documented lines accepted"


def check_helm(helm: Path, _: Path) -> str:
    """Lints strictly and renders with each values file."""
    counts: list[str] = []
    for values in VALUES:
        options = ["--values", str(CHART / values)]
        if values == "values-prod.yaml":
            options += [f"--set={path}.digest={DIGEST}" for path in PINNED]
            options += [
                f"--set=networkPolicy.{n}Networks={{10.1.2.0/24}}" for n in ("database", "redis")
            ]
            options += [f"--set=gateway.host={HOST}", f"--set=settings.JWT_ISSUER=https://{HOST}"]
        run([str(helm), "lint", "--strict", str(CHART), *options])
        command = [str(helm), "template", "shop", str(CHART), "--namespace=shop"]
        rendered = run([*command, *options, *(f"--api-versions={api}" for api in APIS)])
        objects = [each for each in yaml.safe_load_all(rendered) if each]
        if not any(each["kind"] == "Service" for each in objects):
            raise ClientMismatchError(f"{values} renders no Service")
        counts.append(f"{len(objects)} objects with {values}")
    return ", ".join(counts)


def check_kustomize(kustomize: Path, folder: Path) -> str:
    """Builds the folder of each broker with components and another image, as in the README."""
    counts: list[str] = []
    manifest_sets = deployed_manifests()
    for number, (name, parts) in enumerate(KUSTOMIZED.items()):
        user = folder / f"kustomized-{number}"
        user.mkdir()
        (user / "kustomization.yaml").write_text(_kustomization(user, *parts), "utf-8")
        built = parse(run([str(kustomize), "build", str(user)]))
        if different := _names(built) ^ _names(manifest_sets[name]):
            raise ClientMismatchError(
                f"{name}: differs from the expected objects: {sorted(different)[:5]}"
            )
        if found := findings(built):
            raise ClientMismatchError(f"{name}: {'; '.join(found[:5])}")
        images = {c["image"] for _, pod in built.pods() for c in pod["spec"]["containers"]}
        if not images <= {f"{image}@{DIGEST}" for image in OWN_IMAGES.values()}:
            raise ClientMismatchError(f"{name}: has the images {sorted(images)}")
        counts.append(f"{len(built.objects)} objects with {' + '.join(parts)}")
    for edge in EDGES:
        built = parse(run([str(kustomize), "build", str(edge)]))
        (config,) = (each for each in built.objects if each["kind"] == "ConfigMap")
        if config["data"]["envoy.yaml"] != (edge / "envoy.yaml").read_text("utf-8"):
            raise ClientMismatchError(f"{edge.name}: has another configuration of Envoy")
        counts.append(f"{len(built.objects)} objects of {edge.name}")
    return ", ".join(counts)


def _kustomization(user: Path, broker: str, *components: str) -> str:
    there = os.path.relpath(ROOT / "infra" / "knative", user.resolve())
    return yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{there}/{broker}"],
            "components": [f"{there}/components/{each}" for each in components],
            "patches": documented_patches(),
            "images": [
                {"name": name, "newName": image, "digest": DIGEST}
                for name, image in OWN_IMAGES.items()
            ],
        }
    )


def documented_patches() -> list[Json]:
    """The patches with which the page about kustomize gives the shop its host."""
    page = KUSTOMIZE_PAGE.read_text("utf-8")
    block = page.partition("```yaml\n")[2].partition("```")[0]
    patches: list[Json] = yaml.safe_load(block)["patches"]
    return patches


def _names(manifests: ManifestSet) -> set[tuple[str, str, str]]:
    return {(o["apiVersion"], o["kind"], o["metadata"]["name"]) for o in manifests.objects}


def check_faas_cli(faas_cli: Path, folder: Path) -> str:
    """Generates the custom resources, and deploys to a gateway that records requests."""
    stack = ROOT / "stack.yml"
    wanted = yaml.safe_load(stack.read_text("utf-8"))["functions"]
    environment = {**SETTINGS, "IMAGE": IMAGE, "SHOP_PROFILE": "prod", "HOME": str(folder)}
    generated = run(
        [str(faas_cli), "generate", "--yaml", str(stack), "--api=openfaas.com/v1"], environment
    )
    resources = [each for each in yaml.safe_load_all(generated) if each]
    names = {each["spec"]["name"] for each in resources}
    if names != set(wanted):
        raise ClientMismatchError(f"faas-cli read {sorted(names)} of {sorted(wanted)}")
    with _gateway() as (url, deployed):
        command = [str(faas_cli), "deploy", "--yaml", str(stack), "--gateway", url]
        run([*command, "--read-template=false"], environment)
    for name, function in wanted.items():
        _compare(name, function, deployed.get(name))
    return f"{len(resources)} functions read and deployed"


def _compare(name: str, wanted: dict[str, Any], deployed: dict[str, Any] | None) -> None:
    """Raises ClientMismatchError unless the deployed function is the one of the stack."""
    if deployed is None:
        raise ClientMismatchError(f"{name} was not deployed")
    expected = {
        "image": IMAGE,
        "secrets": wanted.get("secrets", []),
        "readOnlyRootFilesystem": wanted["readonly_root_filesystem"],
        "labels": wanted["labels"],
        "memory": wanted["limits"]["memory"],
    }
    sent = {key: deployed.get(key) for key in expected} | {"memory": deployed["limits"]["memory"]}
    if sent != expected:
        raise ClientMismatchError(f"{name} was deployed as {sent}, but expected {expected}")
    given = {key: text for key, text in SETTINGS.items() if key in wanted["environment"]}
    expected = {"FUNCTION_NAME": wanted["environment"]["FUNCTION_NAME"], **given}
    if {key: deployed["envVars"].get(key) for key in expected} != expected:
        raise ClientMismatchError(f"{name} was deployed without its environment")


def check_kn(kn: Path, folder: Path) -> str:
    """Creates every Service in a folder, as for a GitOps repository (``kn apply`` cannot)."""
    target, single = folder / "gitops", folder / "service.yaml"
    target.mkdir()
    services = [
        document
        for path in sorted((ROOT / "infra/knative/base").glob("shop-*.yaml"))
        for document in yaml.safe_load_all(path.read_text("utf-8"))
        if document["apiVersion"] == "serving.knative.dev/v1"
    ]
    for service in services:
        name = service["metadata"]["name"]
        single.write_text(yaml.safe_dump(service), "utf-8")
        command = [str(kn), "service", "create", name, "--filename", str(single)]
        run([*command, "--namespace", "shop", "--target", str(target)], {"HOME": str(folder)})
        written = list(target.rglob(f"{name}.yaml"))
        if len(written) != 1:
            raise ClientMismatchError(f"{name} was written to {len(written)} files")
        kept = yaml.safe_load(written[0].read_text("utf-8"))
        if lost := list(lost_values(service["spec"], kept["spec"], "spec")):
            raise ClientMismatchError(f"{name} was written without {', '.join(lost[:5])}")
    return f"{len(services)} Services created, {check_kn_traffic(kn, folder)}"


def check_kn_traffic(kn: Path, folder: Path) -> str:
    """Runs the page's lines one after another; each must leave the division that it states."""
    serving = Serving()
    for number in (1, 2):
        name = f"{KN_SERVICE}-0000{number}"
        serving.deploy(KN_SERVICE, Revision(name, f"http://{name}.example"))
        if number == 1:
            serving.services[KN_SERVICE]["spec"]["traffic"] = [
                {"revisionName": name, "percent": 100}
            ]
    lines = [line for line in KN_PAGE.read_text("utf-8").splitlines() if line.startswith("kn ")]
    divisions: list[dict[str, int]] = []
    with api_server(serving) as url:
        kubeconfig = write_kubeconfig(folder / "kubeconfig", url)
        for line in lines:
            command = [str(kn), *shlex.split(line)[1:]]
            run(command, {"HOME": str(folder), "KUBECONFIG": str(kubeconfig)})
            divisions.append(serving.targets(KN_SERVICE))
    first, second = f"{KN_SERVICE}-00001", f"{KN_SERVICE}-00002"
    everything = {first: 100}
    if divisions != [everything, everything, {first: 90, second: 10}, everything]:
        raise ClientMismatchError(f"the lines of {KN_PAGE.name} divide requests as {divisions}")
    if any("tag" in target for target in serving.services[KN_SERVICE]["spec"]["traffic"]):
        raise ClientMismatchError(f"a tag is left after the lines of {KN_PAGE.name}")
    return f"{len(lines)} lines of {KN_PAGE.name} executed"


def lost_values(wanted: Json, kept: Json, path: str) -> Iterator[str]:
    """The paths at which ``kept`` lacks a value of ``wanted``; a client may add others."""
    if isinstance(wanted, dict) and isinstance(kept, dict):
        for key, value in wanted.items():
            yield from lost_values(value, kept.get(key), f"{path}.{key}")
    elif isinstance(wanted, list) and isinstance(kept, list) and len(wanted) == len(kept):
        for number, (one, other) in enumerate(zip(wanted, kept, strict=True)):
            yield from lost_values(one, other, f"{path}[{number}]")
    elif wanted != kept:
        yield path


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """The output of a program; raises ClientMismatchError with its error message on failure."""
    result = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if result.returncode != 0:
        raise ClientMismatchError(
            f"{' '.join(command[1:])}: {result.stderr or result.stdout}"[:2000]
        )
    return result.stdout


@contextmanager
def _gateway() -> Generator[tuple[str, dict[str, Any]]]:
    """Runs a gateway; yields its address and the functions deployed to it, by name."""
    deployed: dict[str, Any] = {}

    class Gateway(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._record()

        def do_POST(self) -> None:
            self._record()

        def do_GET(self) -> None:
            self._respond(200, b"[]")

        def _record(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            deployed[body["service"]] = body
            self._respond(202, b"")

        def _respond(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Discards the line: the report has the result."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", deployed
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    sys.exit(main())
