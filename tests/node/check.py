"""Installs the shop on a real Kubernetes node with Knative, and does there what the pages say.

    python -m tests.node.check FOLDER [STEP ...]

Without steps all of them run, in the order below, and the node is ended.  FOLDER keeps what was
built.  Needs root on a Linux machine for tests, Go, Docker, kubectl, and Debian's packages
containerd, runc, containernetworking-plugins, iptables, conntrack, openssl and iproute2.

Prints one line for each step; exits 1 when one failed, 2 for a step that does not exist.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from shop.runtime.config import Settings
from tests.manifests.check_with_clients import ClientMismatchError
from tests.node.customers import Customers
from tests.node.platform import (
    BAD,
    HERE,
    IMAGES,
    MANIFESTS,
    SERVERS,
    build_images,
    build_programs,
    keda_manifests,
    manifests,
)
from tools.manifest_rules.__main__ import ROOT
from tools.render.keda import due_schedules

Json = dict[str, Any]

NAMESPACE = "shop"
DEFINITIONS = {"Namespace", "CustomResourceDefinition"}
PLACE_ORDER = "ksvc/shop-place-order"
RATE = "600"
# fields of a revision's template that a pod does not have
REVISION_FIELDS = {"containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds"}
PROBES = {"livenessProbe", "readinessProbe"}
COMMAND_SECONDS = 1200
REST_SECONDS = 600
# until the last function is scaled to zero
AWAKE_SECONDS = 300
# A job that is due must be done by then: KEDA asks once in the longest interval, then a tick runs.
LATE_SECONDS = max(schedule.poll_seconds for _, schedule in due_schedules()) + 60
VALUES = (ROOT / "infra/kind/values.yaml", HERE / "values.yaml")
STRANGER = """
import socket, sys, time
time.sleep(5)  # policies reach the address of a new pod late
for each in sys.argv[1:]:
    name, _, port = each.partition(":")
    try:
        socket.create_connection((name, int(port)), 3)
        print(name)
    except OSError:
        pass
"""
PROBE = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
# per kind: how many are due within a time, and the seconds until the first and the last
DUE_WITHIN = """
select kind, count(*), ceil(extract(epoch from min(due_at) - now())),
  ceil(extract(epoch from max(due_at) - now()))
from shop.due_work where due_at < now() + interval '{seconds} seconds' group by kind order by kind
"""


class StepFailed(Exception):
    """What a step found wrong, or the end of the output of a command that failed."""


FAILURES = (StepFailed, ClientMismatchError, httpx.HTTPError, subprocess.SubprocessError)


@dataclass(frozen=True)
class Node:
    """The node whose state is in a folder."""

    folder: Path

    def run(self, *command: str, text: str | None = None, is_failure: bool = False) -> str:
        """The output of a command for this cluster; StepFailed unless it fails as expected."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.folder / "k/cfg/admin.kubeconfig"),
            "PATH": f"{self.folder / 'out'}:{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        }
        result = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        output = (result.stdout + result.stderr).strip()
        if (result.returncode != 0) is not is_failure:
            raise StepFailed(f"{' '.join(command)[:200]}: {output[-2000:]}")
        return output if is_failure else result.stdout

    def kubectl(self, *arguments: str, text: str | None = None, is_failure: bool = False) -> str:
        """The output of kubectl in the shop's namespace."""
        return self.run(
            "kubectl", f"--namespace={NAMESPACE}", *arguments, text=text, is_failure=is_failure
        )

    def objects(self, kind: str, *arguments: str) -> list[Json]:
        """The objects of a kind."""
        items: list[Json] = json.loads(self.kubectl("get", kind, "--output=json", *arguments))[
            "items"
        ]
        return items

    def apply(self, *objects: Json) -> None:
        """Applies objects as the server does it, with all fields."""
        text = "\n---\n".join(json.dumps(each) for each in objects)
        command = ("kubectl", "apply", "--server-side", "--force-conflicts", "--filename=-")
        self.run(*command, text=text)  # the objects name their namespaces

    def shop(self, *arguments: str) -> str:
        """The output of a command of ``shop`` in the operator's pod, which an upgrade ends."""
        self.kubectl("scale", "deploy/shop-tools", "--replicas=1")
        self.kubectl("rollout", "status", "deploy/shop-tools", "--timeout=120s")
        return self.kubectl("exec", "deploy/shop-tools", "--", "shop", *arguments)

    def upgrade(self, *options: str, is_failure: bool = False) -> str:
        """The output of ``scripts/helm-upgrade`` with this node's values."""
        values = [f"--values={path}" for path in VALUES]
        command = ["scripts/helm-upgrade", f"--namespace={NAMESPACE}", *values, "--timeout=10m"]
        both = ("sh", "-c", 'exec "$0" "$@" 2>&1')
        return self.run(*both, *command, *options, is_failure=is_failure)


def build(node: Node) -> str:
    """Builds every program and image that is not in the folder."""
    build_programs(node.folder)
    if not (node.folder / "images/shop.tar").exists():
        build_images(node.folder)
    return f"{len(list((node.folder / 'out').iterdir()))} programs"


def up(node: Node) -> str:
    """Starts the node and loads the images."""
    script, folder = str(HERE / "node"), str(node.folder)
    node.run(script, "up", folder)
    archives = sorted(str(path) for path in (node.folder / "images").glob("*.tar"))
    node.run(script, "load", folder, *archives)
    version = json.loads(node.kubectl("version", "--output=json"))["serverVersion"]["gitVersion"]
    return f"Kubernetes {version}, {len(archives)} archives of images"


def definitions(node: Node) -> str:
    """Creates the namespaces and custom resources of Knative: the chart needs no more."""
    objects = [o for p in MANIFESTS for o in manifests(p) if o["kind"] in DEFINITIONS]
    for each in objects:  # their webhooks do not run yet
        each.get("spec", {}).pop("conversion", None)
    node.apply(*objects)
    node.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    return f"{len(objects)} objects"


def knative(node: Node) -> str:
    """Installs Serving with the ingress layer of the tests, and Eventing with its broker."""
    for project in MANIFESTS:
        node.apply(*manifests(project))
    program = f"--from-file={HERE / 'ingress.py'}"
    node.run("kubectl", "apply", f"--filename={HERE / 'ingress.yaml'}")
    map_ = ["configmap", "ingress", "--namespace=kourier-system"]
    node.run(
        *("kubectl", "apply", "--filename=-"),
        text=node.run("kubectl", "create", *map_, program, "--dry-run=client", "--output=yaml"),
    )
    for namespace in ("knative-serving", "knative-eventing", "kourier-system"):
        wait = ("wait", "--for=condition=Available", "deployment", "--all", "--timeout=300s")
        node.run("kubectl", "--namespace", namespace, *wait)
    patches = {
        "config-network": {"ingress-class": "test.ingress.networking.knative.dev"},
        "config-autoscaler": {"allow-zero-initial-scale": "true"},
    }
    for name, data in patches.items():
        patch = (
            "patch",
            "configmap",
            name,
            "--type=merge",
            f"--patch={json.dumps({'data': data})}",
        )
        node.run("kubectl", "--namespace=knative-serving", *patch)
    return "Serving and Eventing are available"


def install(node: Node) -> str:
    """Follows docs/deploy/helm.md: namespace, Secrets, chart."""
    node.run("kubectl", "apply", f"--filename={ROOT / 'infra/knative/base/namespace.yaml'}")
    keys = f"--keys={node.folder / 'keys'}"
    secrets = node.run(sys.executable, "-m", "tools.make_secrets", keys)
    node.kubectl("apply", "--filename=-", text=secrets)
    warnings = [line for line in node.upgrade().splitlines() if "arning" in line]
    if warnings:
        raise StepFailed("; ".join(warnings))
    volumes = [each["status"]["phase"] for each in node.objects("pvc")]
    return f"release deployed, volumes {', '.join(volumes)}"


def ready(node: Node) -> str:
    """Every Service, Trigger and Broker becomes Ready, and ``helm test`` succeeds."""
    counts: list[str] = []
    for kind in ("ksvc", "broker", "trigger"):
        began = time.monotonic()
        node.kubectl("wait", "--for=condition=Ready", kind, "--all", "--timeout=300s")
        counts.append(f"{len(node.objects(kind))} {kind} in {time.monotonic() - began:.0f} s")
    node.run("helm", "test", "shop", "--namespace", NAMESPACE)
    return ", ".join(counts)


def operators_pod(node: Node) -> str:
    """Follows docs/how-to/operate.md in the operator's pod."""
    check = node.shop("check").splitlines()[-1]
    node.shop("status")
    node.shop("doctor")
    return f"shop check: {check}; shop status and shop doctor find nothing"


def policies(node: Node) -> str:
    """A pod without labels reaches no server; the operator's pod reaches PostgreSQL."""
    servers = {"shop-postgresql": 5432, "shop-pgbouncer": 6432, "shop-redis": 6379}
    servers |= {"shop-sandbox": 8099}
    node.shop("--version")  # starts the operator's pod
    node.kubectl(
        "exec", "deploy/shop-tools", "--", "python", "-c", PROBE, "shop-postgresql", "5432"
    )
    stranger = _stranger(servers)
    node.apply(stranger)
    name = stranger["metadata"]["name"]
    node.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=120s"
    )
    reached = node.kubectl("logs", name).split()
    node.kubectl("delete", "pod", name)
    if reached:
        raise StepFailed(f"a pod without labels reaches {', '.join(reached)}")
    return f"a pod without labels reaches none of {len(servers)} servers"


def _stranger(servers: dict[str, int]) -> Json:
    """A pod that prints each server that it reaches."""
    container = {
        "name": "stranger",
        "image": IMAGES["functions"],
        "command": [
            "python",
            "-c",
            STRANGER,
            *(f"{name}:{port}" for name, port in servers.items()),
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stranger", "namespace": NAMESPACE},
        "spec": {"restartPolicy": "Never", "containers": [container], "securityContext": security},
    }


def function_pod(node: Node) -> str:
    """A pod from a function's template alone: seconds from its creation to its first answer."""
    service = json.loads(node.kubectl("get", "ksvc/shop-list-products", "--output=json"))
    template = service["spec"]["template"]
    spec: Json = {k: v for k, v in template["spec"].items() if k not in REVISION_FIELDS}
    container: Json = {**spec["containers"][0], "name": "function"}
    for probe in PROBES & container.keys():  # Knative gives probes the port
        container[probe] = {
            **container[probe],
            "httpGet": {"port": 8080, "path": "/health/readiness"},
        }
    metadata = {"name": "try-function", "labels": template["metadata"]["labels"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "namespace": NAMESPACE}}
    began = time.monotonic()
    node.apply({**pod, "spec": {**spec, "containers": [container]}})
    node.kubectl("wait", "--for=condition=Ready", "pod/try-function", "--timeout=120s")
    address = node.kubectl("get", "pod/try-function", "--output=jsonpath={.status.podIP}")
    response = httpx.get(f"http://{address}:8080/products", timeout=60)
    seconds = time.monotonic() - began
    node.kubectl("delete", "pod/try-function")
    if not response.is_success:
        raise StepFailed(f"GET /products is answered with {response.status_code}")
    return f"{len(response.json())} fields of GET /products after {seconds:.1f} s"


def edge(node: Node) -> str:
    """Deploys infra/edge, and waits for the first products: every pod on the way is cold."""
    objects = node.run("kubectl", "kustomize", str(ROOT / "infra/edge"))
    image = "envoyproxy/envoy:v1.40.0"
    node.kubectl("apply", "--filename=-", text=objects.replace(image, SERVERS))
    node.kubectl("rollout", "status", "deploy/shop-edge", "--timeout=120s")
    began = time.monotonic()
    products(node)
    return f"GET /products after {time.monotonic() - began:.1f} s"


def products(node: Node) -> None:
    """Reads the list of products; StepFailed unless it is there."""
    # kube-proxy learns late that the edge is ready
    with httpx.Client(transport=httpx.HTTPTransport(retries=6), timeout=60) as client:
        response = client.get(f"{url(node)}/products")
    if not response.is_success:
        raise StepFailed(f"GET /products is answered with {response.status_code}")


def url(node: Node) -> str:
    """The edge's address on this machine."""
    address = node.kubectl("get", "service", "shop-edge", "--output=jsonpath={.spec.clusterIP}")
    return f"http://{address}"


def e2e(node: Node) -> str:
    """All end-to-end scenarios through the edge, then every invariant."""
    result = node.run("shop", "e2e", "--url", url(node)).splitlines()[-1]
    return f"{result}; shop check: {node.shop('check').splitlines()[-1]}"


def ticks(node: Node) -> str:
    """A Job made from each CronJob succeeds."""
    names = [each["metadata"]["name"] for each in node.objects("cronjob")]
    for name in names:
        node.kubectl("create", "job", f"try-{name}", f"--from=cronjob/{name}")
    for name in names:
        node.kubectl("wait", "--for=condition=Complete", f"job/try-{name}", "--timeout=300s")
        node.kubectl("delete", "job", f"try-{name}")
    return f"{len(names)} CronJobs"


def upgrade(node: Node) -> str:
    """A changed setting changes the template of every function."""
    before = _templates(node)
    node.upgrade(f"--set-string=settings.RATE_LIMIT_PER_MINUTE={RATE}")
    after = _templates(node)
    if unchanged := [name for name, template in after.items() if before[name] == template]:
        raise StepFailed(f"no new revision of {', '.join(unchanged)}")
    return f"{len(after)} new revisions"


def _templates(node: Node) -> dict[str, Json]:
    return {each["metadata"]["name"]: each["spec"]["template"] for each in node.objects("ksvc")}


def divide_with_kn(node: Node) -> str:
    """The lines of docs/how-to/upgrade-and-roll-back.md that divide requests by hand."""
    page = (ROOT / "docs/how-to/upgrade-and-roll-back.md").read_text("utf-8")
    lines = [line for line in page.splitlines() if line.startswith("kn service update")]
    for line in lines:
        node.run(*shlex.split(line))
    service = json.loads(node.kubectl("get", "ksvc/shop-charge", "--output=json"))
    traffic = [(t["revisionName"], t["percent"]) for t in service["spec"]["traffic"]]
    node.run("kn", "service", "update", "shop-charge", "-n", NAMESPACE, "--traffic", "@latest=100")
    if traffic != [("shop-charge-00001", 100)]:
        raise StepFailed(f"the requests of charge are divided as {traffic}")
    return f"{len(lines)} lines"


def failed_upgrade(node: Node) -> str:
    """An upgrade whose migration fails changes nothing, and leaves the release as it was."""
    before = _templates(node)
    wrong = ("--set=toolsImage.tag=missing", "--set=toolsImage.pullPolicy=Never")
    node.upgrade(*wrong, "--set=migration.deadlineSeconds=30", is_failure=True)
    last = json.loads(node.run("helm", "history", "shop", "-n", NAMESPACE, "-o", "json"))[-1]
    if last["status"] != "deployed" or before != _templates(node):
        raise StepFailed(f"the release is {last['status']}: {last['description']}")
    return f"rejected, then: {last['description']}"


def rollback(node: Node) -> str:
    """``helm rollback`` returns to the first release with its settings."""
    node.run("helm", "rollback", "shop", "1", "-n", NAMESPACE, "--wait", "--timeout=10m")
    settings = json.loads(node.kubectl("get", "configmap/shop-settings", "--output=json"))["data"]
    if settings["RATE_LIMIT_PER_MINUTE"] == RATE:
        raise StepFailed("the changed setting is still there")
    return "first release again"


def good_rollout(node: Node) -> str:
    """A new revision of place_order that works gets all requests; no order is lost."""
    node.shop("--version")  # starts the operator's pod, which sends the smoke requests
    node.run("shop", "rollout", "pin")
    _new_revision(node, IMAGES["functions"])
    return _rollout(node, is_failure=False)


def bad_rollout(node: Node) -> str:
    """A revision whose orders fail loses its requests again; no order is lost."""
    _new_revision(node, BAD)
    return _rollout(node, is_failure=True)


def _new_revision(node: Node, image: str) -> None:
    """Gives place_order a template with another image, or only with another annotation."""
    template = "/spec/template"
    patch = [
        {
            "op": "add",
            "path": f"{template}/metadata/annotations/check-at",
            "value": str(time.time()),
        },
        {"op": "replace", "path": f"{template}/spec/containers/0/image", "value": image},
    ]
    node.kubectl("patch", PLACE_ORDER, "--type=json", f"--patch={json.dumps(patch)}")


def _rollout(node: Node, *, is_failure: bool) -> str:
    began = time.monotonic()
    options = ("--step-seconds=20", "--step-seconds-max=60", "--cold-start-seconds=30")
    with Customers(url(node)) as customers:
        command = ("shop", "rollout", "run", "place_order", *options)
        output = node.run(*command, is_failure=is_failure)
        seconds = time.monotonic() - began
    if customers.lost:
        raise StepFailed(f"lost: {'; '.join(customers.lost[:5])}")
    statuses = ", ".join(f"{n} x {status}" for status, n in sorted(customers.statuses.items()))
    check = node.shop("check").splitlines()[-1]
    last = output.strip().splitlines()[-1] if output.strip() else ""
    return f"{seconds:.0f} s, {customers.paid} orders paid, {statuses}; {last}; shop check: {check}"


def keda(node: Node) -> str:
    """Installs KEDA, and upgrades the release: ticks start while work is due, and no CronJob."""
    node.apply(*keda_manifests())
    wait = ("wait", "--for=condition=Available", "deployment", "--all", "--timeout=300s")
    node.run("kubectl", "--namespace=keda", *wait)
    node.upgrade()
    node.kubectl("wait", "--for=condition=Ready", "scaledjob", "--all", "--timeout=120s")
    if clock := [each["metadata"]["name"] for each in node.objects("cronjob")]:
        raise StepFailed(f"CronJobs are left: {', '.join(clock)}")
    return f"{len(node.objects('scaledjob'))} ScaledJobs are Ready"


def at_rest(node: Node) -> str:
    """Once nothing is due and the last function has gone, no pod of ours starts.

    What was ordered before has jobs due for as long as an order may stay unpaid.
    """
    began, limit = time.monotonic(), _expiry_seconds(node) + AWAKE_SECONDS
    at_first = due(node, limit)
    while awake := [*due(node, REST_SECONDS), *_pods(node, "msa-shop/kind in (function,tick)")]:
        if time.monotonic() - began > limit:
            raise StepFailed(f"still awake after {limit} s: {', '.join(map(str, awake))}")
        if late := [job for job in awake if isinstance(job, DueJobs) and job.is_late]:
            raise StepFailed(f"due, and not done: {', '.join(map(str, late))}")
        time.sleep(5)
    waited, before, transactions = time.monotonic() - began, _scheduled(node), _transactions(node)
    ends = time.monotonic() + REST_SECONDS
    while time.monotonic() < ends:
        if started := _scheduled(node) - before:
            raise StepFailed(f"started: {', '.join(sorted(started))}")
        time.sleep(5)
    count = _transactions(node) - transactions
    return (
        f"at first {', '.join(map(str, at_first)) or 'nothing is due'}; no pod of ours after "
        f"{waited:.0f} s, none started in {REST_SECONDS} s, {count} transactions of the database"
    )


@dataclass(frozen=True)
class DueJobs:
    """The jobs of a kind that are due soon, and the seconds until the first and the last is due."""

    kind: str
    count: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.count} x {self.kind} within {self.last} s"

    @property
    def is_late(self) -> bool:
        """Whether a job is due that a tick should have done."""
        return self.first < -LATE_SECONDS


def due(node: Node, seconds: int) -> list[DueJobs]:
    """The jobs that are due within a time."""
    rows = psql(node, DUE_WITHIN.format(seconds=seconds)).splitlines()
    cells = (row.split("|") for row in rows)
    return [DueJobs(kind, int(count), int(first), int(last)) for kind, count, first, last in cells]


def _expiry_seconds(node: Node) -> int:
    """How long an order may stay unpaid, by the settings of the release."""
    settings = json.loads(node.kubectl("get", "configmap/shop-settings", "--output=json"))["data"]
    return int(settings.get("ORDER_HARD_EXPIRY_SECONDS", Settings().order_hard_expiry_seconds))


def _pods(node: Node, labels: str) -> list[str]:
    """The pods with these labels that have not ended."""
    left = "--field-selector=status.phase!=Succeeded,status.phase!=Failed"
    return [each["metadata"]["name"] for each in node.objects("pod", f"--selector={labels}", left)]


def _scheduled(node: Node) -> set[str]:
    """The events by which pods got their node."""
    events = node.objects("events", "--field-selector=reason=Scheduled")
    return {each["metadata"]["name"] for each in events}


def _transactions(node: Node) -> int:
    query = "select xact_commit + xact_rollback from pg_stat_database where datname = 'shop'"
    return int(psql(node, query))


def psql(node: Node, query: str) -> str:
    """The rows of a query in the bundled database, whose columns are separated by ``|``."""
    command = ("psql", "-qXAt", "-U", "postgres", "-d", "shop", "-c", query)
    return node.kubectl("exec", "statefulset/shop-postgresql", "--", *command)


def back_up(node: Node) -> str:
    """The three lines of docs/deploy/helm.md: a dump, dropping the schema, and the restore."""
    dump = node.folder / "shop.dump"
    exec_ = f"kubectl -n {NAMESPACE} exec -i statefulset/shop-postgresql --"
    node.run("bash", "-c", f"{exec_} pg_dump -U postgres -Fc shop > {dump}")
    count = f"{exec_} psql -U postgres -Atc 'select count(*) from shop.orders' shop"
    before = node.run("bash", "-c", count)
    quiet, drop = "set client_min_messages = warning", "drop schema if exists shop cascade"
    node.run("bash", "-c", f"{exec_} psql -qX -U postgres -d shop -c '{quiet}' -c '{drop}'")
    restore = f"{exec_} pg_restore -U postgres --single-transaction -d shop < {dump}"
    node.run("bash", "-c", restore)
    if (after := node.run("bash", "-c", count)) != before:
        raise StepFailed(f"{before} orders before, {after} after")
    check = node.shop("check").splitlines()[-1]
    return f"{dump.stat().st_size} bytes, {before.strip()} orders; shop check: {check}"


def uninstall(node: Node) -> str:
    """``helm uninstall`` leaves the volume, the Secrets and what was created beside the chart."""
    node.run("helm", "uninstall", "shop", "-n", NAMESPACE, "--wait", "--timeout=5m")
    left = node.kubectl("get", "ksvc,trigger,broker,cronjob,statefulset", "--output=name").split()
    if left:
        raise StepFailed(f"left: {', '.join(left)}")
    return f"{len(node.objects('pvc'))} volume and {len(node.objects('secret'))} Secrets left"


def down(node: Node) -> str:
    """Ends the node."""
    return node.run(str(HERE / "node"), "down", str(node.folder)).strip()


STEPS: tuple[Callable[[Node], str], ...] = (
    *(build, up, definitions, knative, install, ready, operators_pod, policies, function_pod),
    *(edge, e2e, ticks, upgrade, ready, divide_with_kn, failed_upgrade, rollback, ready),
    *(good_rollout, bad_rollout, keda, at_rest, back_up, uninstall, down),
)


def main(folder: Path, names: list[str]) -> int:
    """Runs the steps; the status."""
    steps = {each.__name__: each for each in STEPS}
    if unknown := set(names) - steps.keys():
        print(f"no such step: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    node, failed, at = Node(folder.resolve()), 0, time.monotonic()
    node.folder.mkdir(parents=True, exist_ok=True)
    names = names or [each.__name__ for each in STEPS]
    for name in names:
        began = time.monotonic()
        try:
            result = steps[name](node)
        except FAILURES as error:
            failed += 1
            result = f"FAILED: {error}"
        print(f"{name} ({time.monotonic() - began:.0f} s): {result}", flush=True)
    print(f"{len(names)} steps, {failed} failed ({time.monotonic() - at:.0f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
