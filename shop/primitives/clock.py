"""The process's clock, for logs, tokens and signatures; business time is PostgreSQL's now()."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The present moment, UTC, with zone."""
    return datetime.now(UTC)
