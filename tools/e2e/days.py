"""Which business day it is where the shop keeps its books."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# Machines without time zone data (slim containers) still know the default: no summer time there.
FIXED = {"Asia/Seoul": timezone(timedelta(hours=9)), "UTC": UTC}


def business_day(time_zone: str) -> str:
    """Today as ``yyyy-MM-dd``.  Raises ValueError for a zone this machine does not know."""
    return datetime.now(_zone(time_zone)).date().isoformat()


def _zone(name: str) -> tzinfo:
    if name in FIXED:
        return FIXED[name]
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError as error:
        raise ValueError(f"this machine does not know the time zone {name}") from error
