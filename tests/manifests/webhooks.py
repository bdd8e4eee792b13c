"""Upstream's admission webhooks as processes, to which an API server sends every object."""

from __future__ import annotations

import json
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.manifests.api_server import HOST, POLL_SECONDS, START_SECONDS, ApiServer
from tools.local_platform.servers import ServerFailed, free_port, start_server, stop_server
from tools.manifest_rules.manifests import Manifest

REGISTRATIONS = "admissionregistration.k8s.io/v1"
# The kinds that the program in ``upstream/`` has the types of.
GROUPS = (
    "serving.knative.dev",
    "eventing.knative.dev",
    "sources.knative.dev",
    "keda.sh",
    "gateway.networking.k8s.io",
)
CERTIFICATE, KEY = "tls.crt", "tls.key"


@contextmanager
def running_webhooks(program: Path, folder: Path) -> Generator[list[Manifest]]:
    """Starts upstream's defaulting and validation; yields the objects that register them."""

    def command(port: int, certificates: Path) -> list[str]:
        files = [str(certificates / name) for name in (CERTIFICATE, KEY)]
        return [str(program), "serve", f"{HOST}:{port}", *files]

    with _running("upstream", folder, command) as client:
        yield [
            _registration("MutatingWebhookConfiguration", client, "/default"),
            _registration("ValidatingWebhookConfiguration", client, "/validate"),
        ]


@contextmanager
def running_keda_webhooks(
    program: Path, registration: Manifest, server: ApiServer, folder: Path
) -> Generator[Manifest]:
    """Starts KEDA's own program of webhooks, which reads from the server.

    Yields upstream's registration, with the address of the process instead of its Service.
    """

    def command(port: int, certificates: Path) -> list[str]:
        options = [f"--port={port}", f"--cert-dir={certificates}", f"--kubeconfig={kubeconfig}"]
        return [str(program), *options, "--metrics-bind-address=0", "--health-probe-bind-address=0"]

    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(_kubeconfig(server)), "utf-8")
    with _running("keda", folder, command) as client:
        for webhook in registration["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {**client, "url": client["url"] + path}
            webhook["failurePolicy"] = "Fail"
        yield registration


@contextmanager
def _running(
    name: str, folder: Path, command: Callable[[int, Path], list[str]]
) -> Generator[dict[str, str]]:
    """Starts a program with a certificate; yields how the API server reaches it."""
    port, certificates = free_port(), folder / f"{name}-certificates"
    certificates.mkdir()
    _write_certificate(certificates / CERTIFICATE, certificates / KEY)
    path = folder / f"{name}-webhooks.log"
    with path.open("wb") as log:
        process = start_server(command(port, certificates), log)
    try:
        if not _listens(port):
            raise ServerFailed(path.read_text("utf-8")[-2000:])
        bundle = b64encode((certificates / CERTIFICATE).read_bytes()).decode()
        yield {"url": f"https://{HOST}:{port}", "caBundle": bundle}
    finally:
        stop_server(process, 15, 9)


def _registration(kind: str, client: dict[str, str], path: str) -> Manifest:
    return {
        "apiVersion": REGISTRATIONS,
        "kind": kind,
        "metadata": {"name": "upstream"},
        "webhooks": [
            {
                "name": "upstream.check.local",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "clientConfig": {**client, "url": client["url"] + path},
                "rules": [
                    {
                        "operations": ["CREATE", "UPDATE"],
                        "apiGroups": list(GROUPS),
                        "apiVersions": ["*"],
                        "resources": ["*"],
                    }
                ],
            }
        ],
    }


def _kubeconfig(server: ApiServer) -> Manifest:
    cluster = {"server": server.url, "certificate-authority": str(server.certificate)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "check", "cluster": cluster}],
        "users": [{"name": "check", "user": {"token": server.token}}],
        "contexts": [{"name": "check", "context": {"cluster": "check", "user": "check"}}],
        "current-context": "check",
    }


def _write_certificate(certificate: Path, key: Path) -> None:
    """A key and its self-signed certificate for ``HOST``, valid for a day."""
    private_key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    signed = (
        x509.CertificateBuilder(name, name, private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), False)
        .sign(private_key, SHA256())
    )
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    key.write_bytes(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _listens(port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection((HOST, port), timeout=1).close()
            return True
        time.sleep(POLL_SECONDS)
    return False
