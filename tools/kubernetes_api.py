"""Requests of a pod's service account to the Kubernetes API, without ``kubectl``."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from pathlib import Path
from typing import Any

from shop.adapters.connection_attempts import ConnectionAttempts

SERVING = "/apis/serving.knative.dev/v1/namespaces"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_SECONDS = 30
# the first connections of a new pod, such as a Job's, may be refused
CONNECT_SECONDS = 10.0


class KubernetesApi:
    """The API server with the token and the authority of a service account."""

    def __init__(self, host: str, port: int, account: Path) -> None:
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        self._connection = http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_SECONDS, context=context
        )
        self._attempts = ConnectionAttempts(CONNECT_SECONDS)
        self._token = (account / "token").read_text("ascii").strip()

    @classmethod
    def of_this_pod(cls) -> KubernetesApi:
        """The API server of the cluster that this pod runs in; OSError outside of one."""
        try:
            host = os.environ["KUBERNETES_SERVICE_HOST"]
            port = int(os.environ["KUBERNETES_SERVICE_PORT"])
        except (KeyError, ValueError):
            raise OSError("this is no pod of a cluster") from None
        return cls(host, port, ACCOUNT)

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The object of the response; OSError when there is none or its status is no success."""
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/merge-patch+json",
        }
        try:
            if self._connection.sock is None:
                self._attempts.open(self._connection.connect)
            self._connection.request(method, path, json.dumps(body) if body else None, headers)
            response = self._connection.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            raise OSError(f"{method} {path}: {type(error).__name__}") from error
        if response.status != http.HTTPStatus.OK:
            raise OSError(f"{method} {path}: {response.status} {content[:300]!r}")
        return json.loads(content)
