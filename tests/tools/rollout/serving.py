"""A Kubernetes API server and Knative Serving, as far as a roll-out sees them.

Holds Services, revisions and pods' logs, checks resourceVersion, and applies ``spec.traffic`` to
``status.traffic`` as Serving's controllers do.  ``kubectl`` itself talks to it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.tools.rollout.pod_exec import execute

Json = dict[str, Any]

GROUP = "/apis/serving.knative.dev/v1"
SERVICES = f"{GROUP}/namespaces/shop/services"
REVISIONS = f"{GROUP}/namespaces/shop/revisions/"
PODS = "/api/v1/namespaces/shop/pods"
TOOLS = "shop-tools"
TOOLS_POD = f"{TOOLS}-5d-x"
DEPLOYMENT = f"/apis/apps/v1/namespaces/shop/deployments/{TOOLS}"
RESOURCES = [
    {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}
    for name, kind in (("services", "Service"), ("revisions", "Revision"))
]
POD_RESOURCES = [
    {"name": name, "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get"]}
    for name in ("pods", "pods/exec", "pods/log")
]
APPS_RESOURCES = [
    {
        "name": "deployments",
        "singularName": "deployment",
        "shortNames": ["deploy"],
        "namespaced": True,
        "kind": "Deployment",
        "verbs": ["get"],
    }
]


@dataclass
class Revision:
    """A revision with one pod."""

    name: str
    url: str
    ready: str = "True"
    message: str = ""
    log: Callable[[], list[str]] = list[str]


@dataclass
class Serving:
    """The objects of one namespace, and what happens to a request."""

    services: dict[str, Json] = field(default_factory=dict[str, Json])
    revisions: dict[str, Revision] = field(default_factory=dict[str, Revision])
    # called before each patch is applied
    on_patch: Callable[[str], None] = lambda _name: None
    has_status_updates: bool = False
    prometheus: Callable[[str], list[Json]] = lambda _query: []
    has_tools_pod: bool = True
    # the requests of kubectl, in their order
    requests: list[str] = field(default_factory=list[str])
    lock: Any = field(default_factory=threading.RLock)

    def deploy(self, service: str, revision: Revision) -> None:
        """What ``helm upgrade`` causes: a new template, and so a new revision."""
        with self.lock:
            self.revisions[revision.name] = revision
            document = self.services.setdefault(service, _new_service(service))
            status = document["status"]
            status["latestCreatedRevisionName"] = revision.name
            self._reconcile(document)

    def targets(self, service: str) -> dict[str, int]:
        """The percent of each revision that receives requests."""
        with self.lock:
            observed = self.services[service]["status"]["traffic"]
            return {t["revisionName"]: t["percent"] for t in observed if t.get("percent")}

    def route(self, service: str, random: Random) -> Revision:
        """The revision that the ingress selects for a request."""
        shares = self.targets(service)
        (name,) = random.choices(list(shares), list(shares.values()))
        return self.revisions[name]

    def patch(self, name: str, patch: Json) -> tuple[int, Json]:
        """A merge patch; 409 when its resourceVersion is not the Service's."""
        self.on_patch(name)
        with self.lock:
            document = self.services[name]
            if self.has_status_updates:
                self.has_status_updates = False
                _bump(document)
            sent = patch["metadata"].get("resourceVersion")
            if sent not in (None, document["metadata"]["resourceVersion"]):
                return 409, _failure(409, "Conflict", "the object has been modified")
            for key, value in patch["metadata"]["annotations"].items():
                document["metadata"]["annotations"][key] = value
                if value is None:
                    del document["metadata"]["annotations"][key]
            document["spec"] |= patch["spec"]
            self._reconcile(document)
            return 200, document

    def replace(self, name: str, document: Json) -> tuple[int, Json]:
        """A PUT of a whole Service, as ``kn`` sends it; the status is Serving's own."""
        with self.lock:
            held = self.services[name]
            if document["metadata"]["resourceVersion"] != held["metadata"]["resourceVersion"]:
                return 409, _failure(409, "Conflict", "the object has been modified")
            held["spec"] = document["spec"]
            self._reconcile(held)
            return 200, held

    def ready_event(self, name: str) -> Json:
        """What a watch of a Service reports once its traffic is as specified."""
        with self.lock:
            document = self.services[name]
            ready = {"type": "Ready", "status": "True"}
            status = {**document["status"], "conditions": [ready]}
            return {"type": "MODIFIED", "object": {**document, "status": status}}

    def _reconcile(self, document: Json) -> None:
        status, latest = document["status"], document["status"]["latestCreatedRevisionName"]
        if self.revisions[latest].ready == "True":
            status["latestReadyRevisionName"] = latest
        default = [{"latestRevision": True, "percent": 100}]
        observed: list[Json] = []
        for target in document["spec"].get("traffic", default):
            revision = target.get("revisionName") or status.get("latestReadyRevisionName")
            url = {"url": self.revisions[revision].url} if target.get("tag") else {}
            observed.append({**target, "revisionName": revision, **url})
        status["traffic"] = observed
        _bump(document)


def _new_service(name: str) -> Json:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "resourceVersion": "1",
            "annotations": dict[str, str](),
        },
        "spec": {},
        "status": {},
    }


def _bump(document: Json) -> None:
    metadata = document["metadata"]
    metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)


def _failure(code: int, reason: str, message: str) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }


@contextmanager
def api_server(serving: Serving) -> Generator[str]:
    """The URL at which ``kubectl`` finds the objects."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            serving.requests.append(f"GET {url.path}")
            if url.path == f"{PODS}/{TOOLS_POD}/exec":
                return execute(self, parse_qs(url.query)["command"])
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            if "watch" in query:
                return watch(self, serving, query.get("fieldSelector", ""))
            self._answer(*answer_to(serving, url.path, query))
            return None

        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            name = urlsplit(self.path).path.rpartition("/")[2]
            serving.requests.append(f"PATCH {name}")
            assert self.headers["content-type"] == "application/merge-patch+json"
            self._answer(*serving.patch(name, json.loads(body)))

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            name = urlsplit(self.path).path.rpartition("/")[2]
            self._answer(*serving.replace(name, json.loads(body)))

        def _answer(self, status: int, document: Json | str) -> None:
            is_text = isinstance(document, str)
            content = (document if is_text else json.dumps(document)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if is_text else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serve(Handler) as url:
        yield url


def watch(handler: BaseHTTPRequestHandler, serving: Serving, selector: str) -> None:
    """One event of a Service that ``kn`` waits for; none of pods."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Connection", "close")
    handler.end_headers()
    if selector:
        event = serving.ready_event(selector.removeprefix("metadata.name="))
        handler.wfile.write(json.dumps(event).encode() + b"\n")


def write_kubeconfig(path: Path, url: str) -> Path:
    """The configuration with which ``kubectl`` and ``kn`` reach an API server."""
    cluster = {"name": "stand-in", "cluster": {"server": url}}
    context = {"name": "stand-in", "context": {"cluster": "stand-in", "user": ""}}
    document = {"clusters": [cluster], "contexts": [context], "current-context": "stand-in"}
    path.write_text(json.dumps(document), "utf-8")
    return path


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Generator[str]:
    """The URL of an HTTP server in threads of this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer_to(serving: Serving, path: str, query: dict[str, str]) -> tuple[int, Json | str]:
    """The response of the API server to a GET."""
    with serving.lock:
        if path == SERVICES:
            items = list(serving.services.values())
            kind = {"apiVersion": "serving.knative.dev/v1", "kind": "ServiceList"}
            return 200, {**kind, "metadata": {}, "items": items}
        if path.startswith(f"{SERVICES}/"):
            return 200, serving.services[path.rpartition("/")[2]]
        if path == REVISIONS.rstrip("/"):
            items = [_revision_document(each) for each in serving.revisions.values()]
            kind = {"apiVersion": "serving.knative.dev/v1", "kind": "RevisionList"}
            return 200, {**kind, "metadata": {}, "items": items}
        if path.startswith(REVISIONS):
            return 200, _revision_document(serving.revisions[path.removeprefix(REVISIONS)])
        if path == DEPLOYMENT:
            return 200, _tools_deployment()
        if path.startswith(PODS):
            return _pods(serving, path.removeprefix(PODS), query)
        if "/proxy/api/v1/query" in path:
            return 200, {
                "status": "success",
                "data": {"result": serving.prometheus(query["query"])},
            }
        return _discovery(path)


def _revision_document(revision: Revision) -> Json:
    condition = {"type": "Ready", "status": revision.ready, "message": revision.message}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {"name": revision.name, "namespace": "shop"},
        "status": {"conditions": [condition]},
    }


def _pods(serving: Serving, path: str, query: dict[str, str]) -> tuple[int, Json | str]:
    if path.endswith("/log"):
        revision = serving.revisions[path.strip("/").partition("-deployment-")[0]]
        since = datetime.fromisoformat(query["sinceTime"])
        return 200, "".join(f"{line}\n" for line in revision.log() if _at(line) >= since)
    if path == f"/{TOOLS_POD}":
        return 200, _pod(TOOLS_POD)
    if TOOLS in query["labelSelector"]:
        return 200, _pod_list([_pod(TOOLS_POD)] if serving.has_tools_pod else [])
    names = query["labelSelector"].partition("(")[2].rstrip(")").split(",")
    pods = [_pod(f"{name}-deployment-5d-x") for name in names if name in serving.revisions]
    return 200, _pod_list(pods)


def _pod_list(pods: list[Json]) -> Json:
    return {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods}


def _tools_deployment() -> Json:
    labels = {"app.kubernetes.io/name": TOOLS}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": TOOLS, "namespace": "shop"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}},
    }


def _at(line: str) -> datetime:
    return datetime.fromisoformat(json.loads(line)["at"]).astimezone(UTC)


def _pod(name: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"containers": [{"name": "user-container"}, {"name": "queue-proxy"}]},
        "status": {"phase": "Running"},
    }


def _discovery(path: str) -> tuple[int, Json]:
    version = {"groupVersion": "serving.knative.dev/v1", "version": "v1"}
    group = {"name": "serving.knative.dev", "versions": [version], "preferredVersion": version}
    apps_version = {"groupVersion": "apps/v1", "version": "v1"}
    apps = {"name": "apps", "versions": [apps_version], "preferredVersion": apps_version}
    match path:
        case "/api":
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        case "/apis":
            return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group, apps]}
        case "/api/v1":
            listed = {"kind": "APIResourceList", "groupVersion": "v1"}
            return 200, {**listed, "resources": POD_RESOURCES}
        case "/apis/apps/v1":
            listed = {"kind": "APIResourceList", "groupVersion": "apps/v1"}
            return 200, {**listed, "resources": APPS_RESOURCES}
        case "/apis/serving.knative.dev/v1":
            listed = {"kind": "APIResourceList", "groupVersion": "serving.knative.dev/v1"}
            return 200, {**listed, "resources": RESOURCES}
        case _:
            return 404, _failure(404, "NotFound", f"{path} does not exist")
