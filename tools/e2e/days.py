"""The current business day in the shop's time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# For machines without time zone data (slim containers); these zones have no daylight saving time.
FIXED = {"Asia/Seoul": timezone(timedelta(hours=9)), "UTC": UTC}


def business_day(time_zone: str) -> str:
    """Today as ``yyyy-MM-dd``.  Raises ValueError for an unknown time zone."""
    return datetime.now(_zone(time_zone)).date().isoformat()


def _zone(name: str) -> tzinfo:
    if name in FIXED:
        return FIXED[name]
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError as error:
        raise ValueError(f"this machine has no data of the time zone {name}") from error
