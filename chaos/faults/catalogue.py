"""Every kind of fault of the design's catalogue, and where each is made."""

from __future__ import annotations

from chaos.faults import messages, money, probes, processes, servers

# Put in one by one, each in its lane.
KINDS = (*processes.KINDS, *servers.KINDS, *money.KINDS, *messages.KINDS, *probes.KINDS)

# On for the whole load.
STEADY = {
    "F-01": "kill -9 in each crash window",
    "F-05": "duplicates, also at once and after rest",
    "F-06": "reordered events",
    "F-07": "events lost after the ack",
    "F-10": "commit ambiguity, requests doubled",
    "F-15": "provider: timeouts, 5xx, 429, wrong answers, webhooks",
}
# After the load, on a shop of its own.
AFTERWARDS = {"F-28": "restore to a moment in mid-run"}

NOT_MADE = {
    "F-21": ("deploy in mid-flight", "this is the first release: there is no version before it"),
}

NAMES = {
    **STEADY,
    **{kind.id: kind.what for kind in KINDS},
    **AFTERWARDS,
    **{name: what for name, (what, _) in NOT_MADE.items()},
}
ALL = frozenset(NAMES)
