"""W3C trace context: one trace per order, from the request through the outbox to the provider."""

from __future__ import annotations

import os
import re

TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def continue_or_start(header: str) -> str:
    """A child of the caller's ``traceparent``, or a new trace when there is none to believe."""
    match = TRACEPARENT.fullmatch(header)
    trace_id = match[1] if match else os.urandom(16).hex()
    return f"00-{trace_id}-{os.urandom(8).hex()}-01"


def id_of(traceparent: str) -> str | None:
    """The trace id inside a ``traceparent``."""
    match = TRACEPARENT.fullmatch(traceparent)
    return match[1] if match else None
