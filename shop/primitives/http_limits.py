"""The time and connection limits of every hop of a request, declared once.

A request passes the edge (Envoy or a Gateway), Knative's queue-proxy or OpenFaaS's gateway, and the
server of the function.  The limits fit together: a request that waits at a hop is dropped there
before the hop outside it gives up, so that no work begins after its client received an error; and
an outer hop closes an idle connection before the inner one, so that no request is sent on a
connection that is being closed.  Manifests, Envoy's configuration and docs/reference/http-limits.md
are rendered from these values.
"""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec

# ------------------------------------------------------------------ the server of a function
READ_SECONDS = 10
"""From the first byte of a request to the end of its head, and from there to that of its body."""
QUEUE_SECONDS = 10
"""A request that has waited this long for a thread gets 503 and is not begun."""
QUEUED_PER_THREAD = 10
"""Complete requests that wait for each thread; a further one gets 503 at once."""
CONNECTIONS_MAX = 800
"""Open connections of a process, within the usual limit of 1,024 file descriptors."""
SERVER_IDLE_SECONDS = 120
"""Longer than any hop in front keeps an idle connection to a function."""
DRAIN_SECONDS = 20
"""After SIGTERM, running requests have this long to complete."""

# ------------------------------------------------------------------ Knative's queue-proxy
REQUEST_SECONDS_MIN = 30
"""Until the first byte of a response; queue-proxy then closes its connection to the function."""
TERMINATION_SECONDS = 30
"""SIGTERM reaches a function this long after termination starts."""
QUEUE_PROXY_IDLE_SECONDS = 90
"""How long queue-proxy keeps idle connections; Go's default, which Knative does not change."""

# ------------------------------------------------------------------ the edge
COLD_START_SECONDS = 15
"""What the edge adds to the limit of a request for the start of a process."""
EDGE_HEAD_SECONDS = 10
EDGE_REQUEST_SECONDS = 15
"""A client has this long to send its whole request, which the edge buffers."""
EDGE_STREAM_IDLE_SECONDS = 60
EDGE_CLIENT_IDLE_SECONDS = 75
EDGE_FUNCTION_IDLE_SECONDS = 30
"""How long the edge keeps idle connections to functions."""
EDGE_CONNECTIONS_MAX = 10_000
EDGE_TIMEOUT = "x-envoy-expected-rq-timeout-ms"
"""The header in which the edge says how long it waits for a response."""


def request_seconds(spec: FunctionSpec) -> int:
    """The longest time until the first byte of a function's response."""
    return max(REQUEST_SECONDS_MIN, spec.timeout_seconds)


def edge_seconds(spec: FunctionSpec) -> int:
    """The longest time that the edge waits for a function's response, a cold start included."""
    return request_seconds(spec) + COLD_START_SECONDS


def requests_max(spec: FunctionSpec, *, processes: int) -> int:
    """How many requests of a function the edge sends at the same time; further ones get 503.

    They are those that the processes run, those that wait for their threads, and those that wait
    for a final response.
    """
    scale = spec.scale
    return processes * (scale.concurrency * (1 + QUEUED_PER_THREAD) + scale.waiting_max)
