"""The time and connection limits of every hop of a request.

A request passes the edge (Envoy or a Gateway), Knative's queue-proxy or OpenFaaS's gateway, and
the server of the function.  The limits fit together: an inner hop gives up before an outer one, so
that no work begins after its client received an error, and an outer hop closes an idle connection
before an inner one, so that no request is sent on a connection that is being closed.
"""

from __future__ import annotations

# ------------------------------------------------------------------ the server of a function
READ_SECONDS = 10
"""From the first byte of a request to the end of its head, and from there to that of its body."""
QUEUE_SECONDS = 10
"""A request that has waited this long for a thread is rejected with 503 and not begun."""
QUEUED_PER_THREAD = 10
"""Complete requests that wait for each thread; further ones are rejected with 503 at once."""
CONNECTIONS_MAX = 800
"""Open connections of a process, within the usual limit of 1,024 file descriptors."""
SERVER_IDLE_SECONDS = 120
"""Longer than queue-proxy (90 s) and Envoy (60 s) keep an idle connection to a function."""
DRAIN_SECONDS = 20
"""After SIGTERM, running requests have this long to complete."""
