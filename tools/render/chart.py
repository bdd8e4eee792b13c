"""Renders the list of functions and events that the templates of the Helm chart iterate over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from events.event import ShopEvent
from events.vocabulary import class_of
from shop.primitives.http_limits import (
    EDGE_CLIENT_IDLE_SECONDS,
    EDGE_CONNECTIONS_MAX,
    EDGE_FUNCTION_IDLE_SECONDS,
    EDGE_REQUEST_SECONDS,
    EDGE_STREAM_IDLE_SECONDS,
    QUEUED_PER_THREAD,
    edge_seconds,
    request_seconds,
)
from shop.primitives.spec import FunctionSpec, Schedule, WarmHours
from shop.registry import all_specs
from shop.runtime.http_messages import BODY_MAX
from tools.render import age_limits
from tools.render.dashboards import dashboard_files
from tools.render.documents import yaml_text
from tools.render.eventing import clock_name, event_sources, event_type_name, trigger_name
from tools.render.events import schema_of
from tools.render.gateway import local_errors, matches, own_responses, unmatched_rules
from tools.render.keda import due_query
from tools.render.objects import domain_of, domains, name_of, pod_labels, secrets_of

ROOT = Path(__file__).parent.parent.parent
FILES = Path("helm/msa-shop/files")
LIST = FILES / "functions.yaml"
# written by hand; the chart has a copy, because Helm reads no file outside its chart
ALERTS = Path("infra/observability/alerts")


def render() -> dict[Path, str]:
    """The list of functions and events, and copies of the dashboards and alert rules."""
    content = {
        "domains": list(domains()),
        "events": [_event(event, spec) for event, spec in event_sources()],
        "functions": [_function(spec) for spec in all_specs()],
        "edge": {
            "bodyKib": BODY_MAX // 1024,
            "clientIdleSeconds": EDGE_CLIENT_IDLE_SECONDS,
            "localErrors": local_errors(),
            "ownResponses": own_responses(),
            "unmatchedRules": unmatched_rules(),
            "connectionsMax": EDGE_CONNECTIONS_MAX,
            "functionIdleSeconds": EDGE_FUNCTION_IDLE_SECONDS,
            "requestSeconds": EDGE_REQUEST_SECONDS,
            "requestsPerThread": 1 + QUEUED_PER_THREAD,
            "streamIdleSeconds": EDGE_STREAM_IDLE_SECONDS,
        },
    }
    return {LIST: yaml_text(content), **_copies()}


def _copies() -> dict[Path, str]:
    alerts = {
        FILES / "alerts" / path.name: path.read_text("utf-8")
        for path in (ROOT / ALERTS).glob("*.yaml")
    }
    alerts[FILES / "alerts" / age_limits.PATH.name] = age_limits.alert_rules()
    return alerts | {FILES / "dashboards" / name: text for name, text in dashboard_files().items()}


def _event(event: type[ShopEvent], spec: FunctionSpec) -> dict[str, Any]:
    return {
        "name": event_type_name(event, spec),
        "type": event.type,
        "source": spec.source,
        "dataschema": event.dataschema,
        "description": schema_of(event)["description"],
    }


def _function(spec: FunctionSpec) -> dict[str, Any]:
    return {
        "name": name_of(spec),
        "function": spec.name,
        "domain": domain_of(spec),
        "podLabels": pod_labels(spec),
        "concurrency": spec.scale.concurrency,
        "waitingMax": spec.scale.waiting_max,
        "maxScale": spec.scale.max_scale,
        "requestSeconds": request_seconds(spec),
        "edgeSeconds": edge_seconds(spec),
        "cpuMillis": spec.scale.cpu_millis,
        "memoryMib": spec.scale.memory_mib,
        "warmHours": [_window(each) for each in spec.scale.warm_hours],
        "secrets": secrets_of(spec),
        "receivesDeadLetters": spec.receives_dead_letters,
        "subscriptions": [
            {"name": trigger_name(spec, s.event), "type": class_of(s.event).type}
            for s in spec.subscriptions
        ],
        "schedules": [_schedule(each) for each in spec.schedules],
        "routes": matches(spec),
    }


def _window(hours: WarmHours) -> dict[str, Any]:
    return {
        "start": hours.start,
        "end": hours.end,
        "timeZone": hours.time_zone,
        "minScale": hours.min_scale,
    }


def _schedule(schedule: Schedule) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": clock_name(schedule),
        "schedule": schedule.name,
        "cron": schedule.cron,
    }
    if not schedule.due_kinds:
        return described
    return {
        **described,
        "dueQuery": due_query(schedule),
        "pollSeconds": schedule.poll_seconds,
        "rowsPerTick": schedule.rows_per_process,
    }
