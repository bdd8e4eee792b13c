"""Builds what the node runs; Knative comes with the manifests in its modules.

Nothing is pulled: programs come from Go modules, the shop's images from its Dockerfile, and the
servers that the chart bundles from Debian's packages (``Dockerfile`` of this folder).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import envoy
import yaml

from tests.manifests.check_with_clients import PACKAGES as CLIENTS
from tests.manifests.check_with_clients import TOOLS, run
from tests.node.images import write_image
from tools.manifest_rules.__main__ import ROOT

Json = dict[str, Any]

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
IMAGES = {"functions": "dev.local/msa-shop/functions:dev", "tools": "dev.local/msa-shop/tools:dev"}
SERVERS = "dev.local/servers:1"
# a version of the functions in which placing an order fails
BAD = "dev.local/msa-shop/functions:bad"
KEDA = "github.com/kedacore/keda/v2"
PLATFORM = {
    "etcd": (TOOLS / "etcd", "go.etcd.io/etcd/server/v3"),
    **{
        name: (TOOLS / "kubernetes", f"k8s.io/kubernetes/cmd/{name}")
        for name in (
            *("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
            *("kubelet", "kube-proxy"),
        )
    },
    "kube-router": (
        PROGRAMS / "kube-router",
        "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
    ),
    "helm": (TOOLS / "helm", CLIENTS["helm"]),
    "kn": (TOOLS / "kn", CLIENTS["kn"]),
}
COMMANDS = {
    "serving": ("activator", "autoscaler", "controller", "queue", "webhook"),
    "eventing": (
        *("broker/filter", "broker/ingress", "controller", "in_memory/channel_controller"),
        *("in_memory/channel_dispatcher", "mtchannel_broker", "webhook"),
    ),
}


def image_name(command: str) -> str:
    """The name of a Knative program: ``knative.dev/eventing/cmd/broker/filter`` without slashes."""
    project, _, path = command.removeprefix("knative.dev/").partition("/cmd/")
    return f"{project}-{path}".replace("/", "-").replace("_", "-")


# These run in pods.
CONTAINERS = {
    "pause": (PROGRAMS / "pause", "."),
    "coredns": (PROGRAMS / "coredns", "."),
    **{
        image_name(f"knative.dev/{project}/cmd/{command}"): (
            PROGRAMS / "knative",
            f"knative.dev/{project}/cmd/{command}",
        )
        for project, commands in COMMANDS.items()
        for command in commands
    },
    # their manifests start them by these names
    "keda": (PROGRAMS / "keda", f"{KEDA}/cmd/operator"),
    "keda-adapter": (PROGRAMS / "keda", f"{KEDA}/cmd/adapter"),
}
# Where each module has its manifests; what needs the programs that are left out is not applied.
MANIFESTS = {
    "serving": (
        ("knative.dev/networking", "config"),
        ("knative.dev/caching", "config"),
        ("knative.dev/serving", "config/core"),
    ),
    "eventing": (
        ("knative.dev/eventing", "config/core"),
        ("knative.dev/eventing", "config/channels/in-memory-channel"),
        ("knative.dev/eventing", "config/brokers/mt-channel-broker"),
    ),
}
KEDA_IMAGES = {"keda": "keda", "keda-metrics-apiserver": "keda-adapter"}
# kubelet and API server compare the versions that they are linked with
VERSIONED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
LEFT_OUT = {"HorizontalPodAutoscaler", "PodDisruptionBudget", "Kustomization"}
LEFT_OUT_DEPLOYMENTS = {"job-sink", "pingsource-mt-adapter"}
FIRST = ("Namespace", "CustomResourceDefinition", "ServiceAccount")
# a node with two CPUs has no room for what the manifests request
REQUESTS = {"cpu": "10m", "memory": "40Mi"}


def build_programs(folder: Path) -> None:
    """Builds into ``out`` and ``images`` what is not there yet; half an hour of CPU at first."""
    out, images = folder / "out", folder / "images"
    for name, (module, package) in (PLATFORM | CONTAINERS).items():
        if not (out / name).exists():
            print(f"building {name}", flush=True)
            _build(module, package, out / name)
        if name in CONTAINERS and not (images / f"{name}.tar").exists():
            images.mkdir(exist_ok=True)
            write_image(images / f"{name}.tar", f"dev.local/{name}:1", out / name)


def _build(module: Path, package: str, program: Path) -> None:
    requirements = (TOOLS / "kubernetes" / "go.mod").read_text("utf-8")
    version = requirements.partition("k8s.io/kubernetes ")[2].split()[0]
    flags = ["-s -w", *(f"-X {each}.gitVersion={version}" for each in VERSIONED)]
    command = ["go", "build", "-buildvcs=false", "-ldflags", " ".join(flags)]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run([*command, "-o", str(program), package], cwd=module, env=environment, check=True)


def build_images(folder: Path) -> None:
    """Builds the shop's images and that of the servers with Docker, as archives in ``images``.

    ``PYTHON_IMAGE`` and ``DEBIAN_IMAGE`` name other base images.
    """
    arguments = [
        f"--build-arg={name}={os.environ[name]}"
        for name in ("PYTHON_IMAGE", "DEBIAN_IMAGE")
        if name in os.environ
    ]
    docker = ["docker", "build", "--quiet", *arguments]
    for target, name in IMAGES.items():
        run([*docker, "--target", target, "--tag", name, str(ROOT)])
    with TemporaryDirectory() as context:
        for file in (
            HERE / "Dockerfile",
            HERE / "start-postgresql",
            Path(envoy.__file__).parent / "_bin" / "envoy",
        ):
            shutil.copy(file, context)
        run([*docker, "--tag", SERVERS, context])
    run([*docker, "--tag", BAD, "--file", str(HERE / "bad.Dockerfile"), str(HERE)])
    archive = str(folder / "images" / "shop.tar")
    run(["docker", "save", "--output", archive, *IMAGES.values(), SERVERS, BAD])


def manifests(project: str) -> list[Json]:
    """The objects of a project with this node's images, in an order in which they can be made."""
    text = "---\n".join(_read(_source(module) / folder) for module, folder in MANIFESTS[project])
    text = re.sub(r"ko://([\w./]+)", lambda found: f"dev.local/{image_name(found[1])}:1", text)
    objects = [each for each in yaml.safe_load_all(text) if each and _is_applied(each)]
    for each in objects:
        if each["kind"] == "Deployment":
            _fit(each)
    return sorted(objects, key=_position)


def _position(each: Json) -> int:
    """Where an object is in the order: webhooks last, since they do not answer yet."""
    kind = each["kind"]
    if kind in FIRST:
        return FIRST.index(kind)
    return len(FIRST) + kind.endswith("WebhookConfiguration")


def keda_manifests() -> list[Json]:
    """The objects of KEDA without its webhooks, with this node's images."""
    text = run(["kubectl", "kustomize", str(_source(KEDA, "keda") / "config/minimal")])
    for image, program in KEDA_IMAGES.items():
        text = re.sub(rf"ghcr\.io/kedacore/{image}:\S+", f"dev.local/{program}:1", text)
    objects = [each for each in yaml.safe_load_all(text) if each]
    for each in objects:
        if each["kind"] == "Deployment":
            _fit(each)
            if each["metadata"]["name"] == "keda-operator":
                (container,) = each["spec"]["template"]["spec"]["containers"]
                container["args"].append("--enable-webhook-patching=false")
    return sorted(objects, key=_position)


def _fit(deployment: Json) -> None:
    """Makes the Deployment use the loaded images, and request what the node has."""
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        container |= {"resources": {"requests": REQUESTS}, "imagePullPolicy": "Never"}


def _read(folder: Path) -> str:
    """The manifests of a folder, as one text."""
    return "\n---\n".join(path.read_text("utf-8") for path in sorted(folder.rglob("*.yaml")))


def _source(module: str, program: str = "knative") -> Path:
    command = ["go", "-C", str(PROGRAMS / program), "list", "-m", "-f", "{{.Dir}}", module]
    return Path(run(command).strip())


def _is_applied(each: Json) -> bool:
    return each["kind"] not in LEFT_OUT and each["metadata"]["name"] not in LEFT_OUT_DEPLOYMENTS
