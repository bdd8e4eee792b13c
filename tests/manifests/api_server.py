"""A Kubernetes API server with etcd, without a node: it admits, defaults and stores objects.

Neither controllers nor kubelets run, so no pod starts and no custom resource becomes ready.
"""

from __future__ import annotations

import secrets
import ssl
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tools.local_platform.servers import ServerFailed, free_port, start_server, stop_server
from tools.manifest_rules.manifests import Manifest

HOST = "127.0.0.1"
START_SECONDS = 300.0
POLL_SECONDS = 0.1
REQUEST_SECONDS = 30.0
# The address that the server announces to nodes, of which there are none (RFC 5737).
ADVERTISED = "192.0.2.1"
SERVICE_NETWORK = "10.96.0.0/16"
NAMESPACE = "shop"


class Rejected(Exception):
    """The API server did not accept an object without objection; the text is its reason."""


class Resource(NamedTuple):
    """Where the objects of a kind are: the path of its API, its plural, and its scope."""

    path: str
    plural: str
    is_namespaced: bool


class ApiServer:
    """A client of the running server with all rights."""

    def __init__(self, url: str, certificate: Path, token: str) -> None:
        self.url, self.certificate, self.token = url, certificate, token
        self._http = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cafile=str(certificate)),
            timeout=REQUEST_SECONDS,
        )
        self._resources: dict[tuple[str, str], Resource] = {}

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def create(self, manifest: Manifest, *, is_dry_run: bool = False) -> None:
        """Creates an object; raises ``Rejected`` for unknown fields and for every warning."""
        parameters = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if is_dry_run else {})
        url = self._collection(manifest)
        self._accepted(self._http.post(url, json=manifest, params=parameters), manifest)

    def apply(self, manifest: Manifest) -> None:
        """Creates or changes an object (server-side apply); raises ``Rejected``."""
        response = self._http.patch(
            self._object(manifest),
            json=manifest,
            params={"fieldValidation": "Strict", "fieldManager": "check", "force": "true"},
            headers={"content-type": "application/apply-patch+yaml"},
        )
        self._accepted(response, manifest)

    def stored(self, manifest: Manifest) -> Manifest:
        """The object as it is stored; raises ``Rejected`` when there is none."""
        return self._accepted(self._http.get(self._object(manifest)), manifest)

    def has(self, manifest: Manifest) -> bool:
        """Whether an object of this kind and name is stored."""
        return self._http.get(self._object(manifest)).status_code == 200

    def delete(self, manifest: Manifest) -> None:
        """Deletes an object at once."""
        options = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
        self._accepted(self._http.request("DELETE", self._object(manifest), json=options), manifest)

    def wait_until_established(self, definition: Manifest) -> None:
        """Waits until the objects of a CustomResourceDefinition can be created."""
        deadline = time.monotonic() + START_SECONDS
        while not _is_established(self.stored(definition)):
            if time.monotonic() > deadline:
                raise Rejected(f"{definition['metadata']['name']} is not established")
            time.sleep(POLL_SECONDS)

    def wait_until_rejected(self, manifest: Manifest) -> None:
        """Waits until the server uses a webhook that rejects the object."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                self.create(manifest, is_dry_run=True)
            except Rejected:
                return
            time.sleep(POLL_SECONDS)
        raise ServerFailed(f"{manifest['kind']} {manifest['metadata']['name']} is accepted")

    def is_ready(self) -> bool:
        """Whether every check of the server passes."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _accepted(self, response: httpx.Response, manifest: Manifest) -> Manifest:
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        document: dict[str, Any] = response.json()
        if response.is_error:
            raise Rejected(f"{name}: {document.get('message')}")
        if warnings := response.headers.get_list("warning"):
            raise Rejected(f"{name}: {'; '.join(warnings)}")
        return document

    def _collection(self, manifest: Manifest) -> str:
        resource = self._resource(manifest)
        if resource is None:
            raise Rejected(f"{manifest['kind']}: the server does not know {manifest['apiVersion']}")
        namespace = f"/namespaces/{namespace_of(manifest)}" if resource.is_namespaced else ""
        return f"{resource.path}{namespace}/{resource.plural}"

    def _object(self, manifest: Manifest) -> str:
        return f"{self._collection(manifest)}/{manifest['metadata']['name']}"

    def _resource(self, manifest: Manifest) -> Resource | None:
        kind = (manifest["apiVersion"], manifest["kind"])
        if kind not in self._resources:
            self._discover(kind[0])
        return self._resources.get(kind)

    def _discover(self, version: str) -> None:
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        response = self._http.get(path)
        if response.status_code == 404:
            return
        for each in response.raise_for_status().json()["resources"]:
            if "/" not in each["name"]:  # not a subresource, such as pods/log
                resource = Resource(path, each["name"], each["namespaced"])
                self._resources[version, each["kind"]] = resource


def namespace_of(manifest: Manifest) -> str:
    """The namespace that an object names, or that it is installed into."""
    namespace: str = manifest["metadata"].get("namespace", NAMESPACE)
    return namespace


@contextmanager
def running_api_server(etcd: Path, apiserver: Path, folder: Path) -> Generator[ApiServer]:
    """Starts both programs with their data in ``folder``; raises ServerFailed with the log."""
    client, peer, port = free_port(), free_port(), free_port()
    token = secrets.token_hex(16)
    commands = {
        "etcd": [str(etcd), *_options(_etcd_settings(folder, client, peer)), "--unsafe-no-fsync"],
        "apiserver": [str(apiserver), *_options(_server_settings(folder, client, port, token))],
    }
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                processes.append(start_server(command, log))
        certificate = folder / "certificates" / "apiserver.crt"
        deadline = time.monotonic() + START_SECONDS
        while not _is_written(certificate) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        server = ApiServer(f"https://{HOST}:{port}", certificate, token)
        while not server.is_ready():
            if time.monotonic() > deadline:
                raise ServerFailed((folder / "apiserver.log").read_text("utf-8")[-2000:])
            time.sleep(POLL_SECONDS)
        yield server
        server.close()
    finally:
        for process in reversed(processes):
            stop_server(process, 15, 9)


def _etcd_settings(folder: Path, client: int, peer: int) -> Mapping[str, object]:
    client_url, peer_url = f"http://{HOST}:{client}", f"http://{HOST}:{peer}"
    return {
        "data-dir": folder / "etcd",
        "listen-client-urls": client_url,
        "advertise-client-urls": client_url,
        "listen-peer-urls": peer_url,
        "initial-advertise-peer-urls": peer_url,
        "initial-cluster": f"default={peer_url}",
    }


def _server_settings(folder: Path, etcd: int, port: int, token: str) -> Mapping[str, object]:
    tokens, key = folder / "tokens.csv", folder / "service-accounts.pem"
    tokens.write_text(f'{token},check,check,"system:masters"\n', "utf-8")
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key.write_bytes(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {
        "etcd-servers": f"http://{HOST}:{etcd}",
        "bind-address": HOST,
        "secure-port": port,
        "advertise-address": ADVERTISED,
        "cert-dir": folder / "certificates",
        "token-auth-file": tokens,
        "authorization-mode": "RBAC",
        "service-cluster-ip-range": SERVICE_NETWORK,
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": key,
        "service-account-signing-key-file": key,
    }


def _is_written(certificate: Path) -> bool:
    return certificate.exists() and "-----END CERTIFICATE-----" in certificate.read_text("utf-8")


def _options(settings: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def _is_established(definition: Manifest) -> bool:
    conditions = definition.get("status", {}).get("conditions", [])
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
