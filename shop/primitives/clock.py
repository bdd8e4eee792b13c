"""The process's clock, for logs, tokens and signatures; business time is PostgreSQL's now()."""

from __future__ import annotations

from datetime import UTC, date, datetime, time


def utc_now() -> datetime:
    """The present moment, UTC, with zone."""
    return datetime.now(UTC)


def start_of_day(day: date, time_zone: str) -> datetime:
    """The moment at which a business day begins."""
    from zoneinfo import ZoneInfo

    return datetime.combine(day, time.min, ZoneInfo(time_zone))
