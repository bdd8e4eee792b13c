"""Keeps pods ready in the hours that the chart names.

    python -m tools.warm_hours NAMESPACE HOURS

HOURS is JSON: the windows of each Service, with cron expressions for ``start`` and ``end`` in
``timeZone``, and the ``minScale`` between them; outside it is 0.  The annotation is set on the
revisions that get traffic, from where Knative Serving 1.21 and newer passes it to the autoscaler:
no revision is created, and no field of the chart changes.  A new revision starts without it, so the
chart runs this at each start and end, and after each release.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from shop.primitives.clock import utc_now
from tools.kubernetes_api import SERVING, KubernetesApi
from tools.local_platform.clock import Cron

MIN_SCALE = "autoscaling.knative.dev/min-scale"


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
        api = KubernetesApi.of_this_pod()
        for service, windows in hours.items():
            scale = min_scale_at(windows, utc_now())
            names = set_min_scale(api, namespace, service, scale)
            sys.stdout.write(f"{service}: min-scale {scale} ({', '.join(names) or 'no traffic'})\n")
    except OSError as error:
        sys.stderr.write(f"warm_hours: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
