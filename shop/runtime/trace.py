"""W3C trace context: one trace per order, from the request through the outbox to the provider."""

from __future__ import annotations

import os
import re

TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]([0-9a-f])")


def continue_or_start(header: str) -> str:
    """A child of the caller's ``traceparent``, or a new trace without a valid one.

    The caller decides whether its trace is sampled; a trace that starts here is sampled.
    """
    match = TRACEPARENT.fullmatch(header)
    if match is None:
        return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
    return f"00-{match[1]}-{os.urandom(8).hex()}-0{int(match[3], 16) & 1}"


def id_of(traceparent: str) -> str | None:
    """The trace id inside a ``traceparent``."""
    match = TRACEPARENT.fullmatch(traceparent)
    return match[1] if match else None
