"""Keeps pods ready in the hours that the chart names.

    python -m tools.warm_hours NAMESPACE HOURS

HOURS is JSON: the windows of each Service, with cron expressions for ``start`` and ``end`` in
``timeZone``, and the ``minScale`` between them; outside it is 0.  The annotation is set on the
revisions that get traffic, from where Knative Serving 1.21 and newer passes it to the autoscaler:
no revision is created, and no field of the chart changes.  A new revision starts without it, so the
chart runs this at each start and end, and after each release.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from shop.primitives.clock import utc_now
from tools.local_platform.clock import Cron

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVING = "/apis/serving.knative.dev/v1/namespaces"
MIN_SCALE = "autoscaling.knative.dev/min-scale"
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Window:
    """Hours of each day or week in which a Service keeps ``min_scale`` pods."""

    start: Cron
    end: Cron
    time_zone: ZoneInfo
    min_scale: int

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Window:
        """Raises KeyError or ValueError for a missing or invalid field."""
        return cls(
            Cron.parse(fields["start"]),
            Cron.parse(fields["end"]),
            ZoneInfo(fields["timeZone"]),
            int(fields["minScale"]),
        )

    def contains(self, moment: datetime) -> bool:
        """Whether the window is open: it ends before it starts again."""
        local = moment.astimezone(self.time_zone)
        return self.end.next_after(local) < self.start.next_after(local)


def min_scale_at(windows: list[Window], moment: datetime) -> int:
    """The highest scale of the windows that are open, 0 when none is."""
    return max((each.min_scale for each in windows if each.contains(moment)), default=0)


class KubernetesApi:
    """Requests of the pod's service account to the API server."""

    def __init__(self, host: str, port: int, account: Path) -> None:
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        self._connection = http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_SECONDS, context=context
        )
        self._token = (account / "token").read_text("ascii").strip()

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The object of the response; OSError when there is none or its status is no success."""
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/merge-patch+json",
        }
        self._connection.request(method, path, json.dumps(body) if body else None, headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != http.HTTPStatus.OK:
            raise OSError(f"{method} {path}: {response.status} {content[:300]!r}")
        return json.loads(content)


def set_min_scale(api: KubernetesApi, namespace: str, service: str, scale: int) -> list[str]:
    """Annotates the revisions of a Service that get traffic; returns their names."""
    found = api.request("GET", f"{SERVING}/{namespace}/services/{service}")
    targets = found.get("status", {}).get("traffic", [])
    names = sorted({each["revisionName"] for each in targets if each.get("percent", 0) > 0})
    change = {"metadata": {"annotations": {MIN_SCALE: str(scale)}}}
    for name in names:
        api.request("PATCH", f"{SERVING}/{namespace}/revisions/{name}", change)
    return names


def main(arguments: list[str]) -> int:
    """The exit code: 0 when all Services are set, 2 for invalid arguments, else 1."""
    try:
        namespace, text = arguments
        hours = {
            service: [Window.parse(each) for each in windows]
            for service, windows in json.loads(text).items()
        }
    except (KeyError, ValueError) as error:
        sys.stderr.write(f"warm_hours: invalid arguments: {error}\n")
        return 2
    try:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        api = KubernetesApi(host, int(port), ACCOUNT)
        for service, windows in hours.items():
            scale = min_scale_at(windows, utc_now())
            names = set_min_scale(api, namespace, service, scale)
            sys.stdout.write(f"{service}: min-scale {scale} ({', '.join(names) or 'no traffic'})\n")
    except (KeyError, OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"warm_hours: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
