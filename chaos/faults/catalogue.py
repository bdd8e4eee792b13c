"""The fault catalogue: ids, titles and where each fault is implemented.

docs/how-to/run-fault-injection.md describes each fault; a test compares the two lists.
"""

from __future__ import annotations

from chaos.faults import mails, messages, probes, processes, provider, servers, webhooks

# Injected one at a time by the schedule of their group.
SCHEDULED_FAULTS = (
    *processes.FAULTS,
    *servers.FAULTS,
    *provider.FAULTS,
    *messages.FAULTS,
    *probes.FAULTS,
    *webhooks.FAULTS,
    *mails.FAULTS,
)

# Active during the whole workload.
CONTINUOUS_FAULTS = {
    "F-01": "SIGKILL at each failpoint",
    "F-05": "duplicate events, also immediately and after quiescence",
    "F-06": "reordered events",
    "F-07": "events lost after the acknowledgement",
    "F-10": "ambiguous commits, duplicate requests",
    "F-15": "provider timeouts, 5xx, 429, wrong responses, webhook faults, refunds and disputes",
}
# Run after the workload, each in a separate environment.
POST_RUN_FAULTS = {
    "F-21": "deployment of today's version over a released one during load",
    "F-28": "restore to a point in the middle of a run",
}

TITLES = {
    **CONTINUOUS_FAULTS,
    **{fault.id: fault.title for fault in SCHEDULED_FAULTS},
    **POST_RUN_FAULTS,
}
ALL_FAULT_IDS = frozenset(TITLES)
