"""Renders schedules as ScaledJobs: KEDA starts a tick only while rows of ``due_work`` are due.

They replace the schedules' CronJobs.  KEDA never scales a function itself: a Knative Service has no
scale subresource, and Knative scales it by the tick as by any other request.
"""

from __future__ import annotations

from typing import LiteralString

from shop.primitives.spec import FunctionSpec, Schedule
from shop.registry import all_specs
from tools.render.eventing import clock_labels, clock_name, tick_job
from tools.render.objects import Manifest, metadata

COUNT_DUE: LiteralString = """
select coalesce(count(*), 0) from shop.due_work
where due_at <= now() and kind = any(%(kinds)s)
"""
AUTHENTICATION = "shop-due-work"


def objects() -> list[Manifest]:
    """A ScaledJob for each schedule with due rows, and KEDA's access to the database."""
    jobs = [scaled_job(spec, schedule) for spec, schedule in due_schedules()]
    return [*jobs, trigger_authentication()]


def patches() -> list[Manifest]:
    """Patches that delete the CronJobs, which the ScaledJobs replace."""
    return [
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": metadata(clock_name(schedule)),
            "$patch": "delete",
        }
        for _, schedule in due_schedules()
    ]


def due_schedules() -> list[tuple[FunctionSpec, Schedule]]:
    """The schedules that run only while rows of their kinds are due."""
    return [(spec, each) for spec in all_specs() for each in spec.schedules if each.due_kinds]


def due_query(schedule: Schedule) -> str:
    """Counts due rows of the kinds that the schedule processes.

    KEDA binds no parameters, so the kinds, which are literals of the spec, are part of the text.
    """
    kinds = ", ".join(f"'{kind}'" for kind in schedule.due_kinds)
    return " ".join(COUNT_DUE.split()).replace("%(kinds)s", f"array[{kinds}]")


def scaled_job(spec: FunctionSpec, schedule: Schedule) -> Manifest:
    """Starts a tick while rows are due, and more at the same time when there are many."""
    query = {
        "query": due_query(schedule),
        "targetQueryValue": str(schedule.rows_per_process),
        "activationTargetQueryValue": "0",
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledJob",
        "metadata": metadata(clock_name(schedule), clock_labels(spec)),
        "spec": {
            "jobTargetRef": tick_job(spec, schedule),
            "pollingInterval": schedule.poll_seconds,
            "minReplicaCount": 0,
            "maxReplicaCount": spec.scale.max_scale,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "triggers": [
                {
                    "type": "postgresql",
                    "metadata": query,
                    "authenticationRef": {"name": AUTHENTICATION},
                }
            ],
        },
    }


def trigger_authentication() -> Manifest:
    """The database connection of KEDA's operator: a role that reads `due_work`."""
    reference = {"parameter": "connection", "name": "shop-keda", "key": "connection"}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": metadata(AUTHENTICATION),
        "spec": {"secretTargetRef": [reference]},
    }
