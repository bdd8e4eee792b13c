"""Shows what we deploy to the owners' own clients: ``python -m tests.manifests.with_the_clients``.

``helm`` lints and renders the chart with every values file, ``kustomize`` builds the folders of
``infra/knative`` as a user would, ``faas-cli`` reads ``stack.yml`` and deploys it to a gateway that
only listens, ``kn`` writes every Knative Service to a folder (its GitOps mode).  All are built from
the sources that ``tools/`` pins; needs Go 1.24 or newer.

Exits 1 when a client refuses something, or makes something else of it; 2 without Go.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.manifests.test_chart import APIS
from tools.manifest_rules.__main__ import ROOT, findings, own_worlds
from tools.manifest_rules.manifests import World, of_text

TOOLS = Path(__file__).parent / "tools"
PACKAGES = {
    "helm": "helm.sh/helm/v3/cmd/helm",
    "faas-cli": "github.com/openfaas/faas-cli",
    "kn": "knative.dev/client/cmd/kn",
    "kustomize": "sigs.k8s.io/kustomize/kustomize/v5",
}
CHART = ROOT / "helm" / "msa-shop"
DIGEST = "sha256:" + "1" * 64
# The production values demand digests: what a pipeline would fill in.
PINNED = ("image", "toolsImage", "pgbouncer.image")
VALUES = ("values.yaml", "values-ghcr.yaml", "values-prod.yaml")
# the names of ``own_worlds`` with the folder and the components that they are made of
KUSTOMIZED = {
    "infra/knative/imc": ("imc", "gateway"),
    "infra/knative/kafka": ("kafka", "gateway"),
    "infra/knative/rabbitmq": ("rabbitmq", "gateway"),
    "infra/knative/imc with every component": ("imc", "gateway", "keda", "monitoring"),
}
OWN_IMAGE = "registry.example/msa-shop/functions"
IMAGE = f"{OWN_IMAGE}:1.0"


class Wrong(Exception):
    """A client refused, or made something else of it; the text says what."""


def main() -> int:
    """The exit status; prints a line for each client."""
    if shutil.which("go") is None:
        print("go is missing", file=sys.stderr)
        return 2
    wrong = 0
    asks = {
        "helm": ask_helm,
        "kustomize": ask_kustomize,
        "faas-cli": ask_faas_cli,
        "kn": ask_kn,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, ask in asks.items():
            try:
                program = build(TOOLS / name, PACKAGES[name], Path(folder) / name)
                said = ask(program, Path(folder))
            except Wrong as error:
                wrong += 1
                said = f"WRONG: {error}"
            print(f"{name}: {said}", flush=True)
    return 1 if wrong else 0


def build(module: Path, package: str, program: Path, *, tags: str = "") -> Path:
    """A program, built from the sources that a Go module pins; it needs no library of the system's.

    Raises ``CalledProcessError`` when Go cannot have them or build them.
    """
    command = ["go", "build", "-buildvcs=false", "-tags", tags, "-o", str(program), package]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run(command, cwd=module, env=environment, check=True)
    return program


def ask_helm(helm: Path, _: Path) -> str:
    """Lints strictly and renders with each values file."""
    counts = []
    for values in VALUES:
        options = ["--values", str(CHART / values)]
        if values == "values-prod.yaml":
            options += [f"--set={path}.digest={DIGEST}" for path in PINNED]
        run([str(helm), "lint", "--strict", str(CHART), *options])
        command = [str(helm), "template", "shop", str(CHART), "--namespace=shop"]
        rendered = run([*command, *options, *(f"--api-versions={api}" for api in APIS)])
        objects = [each for each in yaml.safe_load_all(rendered) if each]
        if not any(each["kind"] == "Service" for each in objects):
            raise Wrong(f"{values} renders no Service")
        counts.append(f"{len(objects)} objects with {values}")
    return ", ".join(counts)


def ask_kustomize(kustomize: Path, folder: Path) -> str:
    """Builds every broker's folder with components, and an image of one's own, as README tells."""
    counts, worlds = [], own_worlds()
    for number, (name, parts) in enumerate(KUSTOMIZED.items()):
        user = folder / f"kustomized-{number}"
        user.mkdir()
        (user / "kustomization.yaml").write_text(_kustomization(user, *parts), "utf-8")
        built = of_text(run([str(kustomize), "build", str(user)]))
        if different := _names(built) ^ _names(worlds[name]):
            raise Wrong(f"{name}: built or expected alone: {sorted(different)[:5]}")
        if found := findings(built):
            raise Wrong(f"{name}: {'; '.join(found[:5])}")
        images = {c["image"] for _, pod in built.pods() for c in pod["spec"]["containers"]}
        if images != {f"{OWN_IMAGE}@{DIGEST}"}:
            raise Wrong(f"{name}: has the images {sorted(images)}")
        counts.append(f"{len(built.objects)} objects with {' + '.join(parts)}")
    return ", ".join(counts)


def _kustomization(user: Path, broker: str, *components: str) -> str:
    there = os.path.relpath(ROOT / "infra" / "knative", user.resolve())
    return yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{there}/{broker}"],
            "components": [f"{there}/components/{each}" for each in components],
            "images": [
                {
                    "name": "dev.local/msa-shop/functions",
                    "newName": OWN_IMAGE,
                    "digest": DIGEST,
                }
            ],
        }
    )


def _names(world: World) -> set[tuple[str, str, str]]:
    return {(o["apiVersion"], o["kind"], o["metadata"]["name"]) for o in world.objects}


def ask_faas_cli(faas_cli: Path, folder: Path) -> str:
    """Generates the custom resources, and deploys to a gateway that writes down what it is sent."""
    stack = ROOT / "stack.yml"
    wanted = yaml.safe_load(stack.read_text("utf-8"))["functions"]
    environment = {"IMAGE": IMAGE, "SHOP_PROFILE": "prod", "HOME": str(folder)}
    generated = run(
        [str(faas_cli), "generate", "--yaml", str(stack), "--api=openfaas.com/v1"], environment
    )
    resources = [each for each in yaml.safe_load_all(generated) if each]
    names = {each["spec"]["name"] for each in resources}
    if names != set(wanted):
        raise Wrong(f"it read {sorted(names)} of {sorted(wanted)}")
    with _gateway() as (url, deployed):
        command = [str(faas_cli), "deploy", "--yaml", str(stack), "--gateway", url]
        run([*command, "--read-template=false"], environment)
    for name, function in wanted.items():
        _compare(name, function, deployed.get(name))
    return f"{len(resources)} functions read and deployed"


def _compare(name: str, wanted: dict[str, Any], deployed: dict[str, Any] | None) -> None:
    """What a gateway is sent is what the stack says."""
    if deployed is None:
        raise Wrong(f"{name} was not deployed")
    said = {
        "image": IMAGE,
        "secrets": wanted.get("secrets", []),
        "readOnlyRootFilesystem": wanted["readonly_root_filesystem"],
        "labels": wanted["labels"],
        "memory": wanted["limits"]["memory"],
    }
    sent = {key: deployed.get(key) for key in said} | {"memory": deployed["limits"]["memory"]}
    if sent != said:
        raise Wrong(f"{name} was deployed as {sent}, and should be {said}")
    if deployed["envVars"].get("FUNCTION_NAME") != wanted["environment"]["FUNCTION_NAME"]:
        raise Wrong(f"{name} lost its environment")


def ask_kn(kn: Path, folder: Path) -> str:
    """Creates every Service in a folder, as a GitOps repository would have it (apply cannot)."""
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
            raise Wrong(f"{name} became {len(written)} files")
        kept = yaml.safe_load(written[0].read_text("utf-8"))
        if lost := list(_lost(service["spec"], kept["spec"], "spec")):
            raise Wrong(f"{name} came out without {', '.join(lost[:5])}")
    return f"{len(services)} Services created"


def _lost(wanted: Any, kept: Any, path: str) -> Iterator[str]:
    """Where ``kept`` lacks something of ``wanted``; what a client adds of its own is no loss."""
    if isinstance(wanted, dict) and isinstance(kept, dict):
        for key, value in wanted.items():
            yield from _lost(value, kept.get(key), f"{path}.{key}")
    elif isinstance(wanted, list) and isinstance(kept, list) and len(wanted) == len(kept):
        for number, (one, other) in enumerate(zip(wanted, kept, strict=True)):
            yield from _lost(one, other, f"{path}[{number}]")
    elif wanted != kept:
        yield path


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """What a program prints; ``Wrong`` with what it complains of when it fails."""
    result = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if result.returncode != 0:
        raise Wrong(f"{' '.join(command[1:])}: {result.stderr or result.stdout}"[:2000])
    return result.stdout


@contextmanager
def _gateway() -> Iterator[tuple[str, dict[str, Any]]]:
    """A gateway's address, and the functions that it is told to deploy, by name."""
    deployed: dict[str, Any] = {}

    class Gateway(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._take()

        def do_POST(self) -> None:
            self._take()

        def do_GET(self) -> None:
            self._answer(200, b"[]")

        def _take(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            deployed[body["service"]] = body
            self._answer(202, b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the report says it all."""

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
