"""Shows the settlements of days and months."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop import settlement
from shop.primitives.errors import not_found
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.read_settlements.schema import DailyQuery, MonthlyQuery
    from shop.runtime.request_context import RequestContext
    from shop.settlement import DaySettlement, MonthSettlement


def read_daily(request: Request[None, DailyQuery], context: RequestContext) -> Response:
    """The requested day as one object (404 without postings), or the newest 30."""
    settings = context.settings
    days = context.tx.fetch_all(
        settlement.daily(
            day=request.query.day,
            time_zone=settings.business_time_zone,
            currency=settings.currency,
        )
    )
    found = [
        {"settlementDate": row.day.isoformat(), **_totals(row, settings.currency)} for row in days
    ]
    return _response(found, is_single=request.query.day is not None)


def read_monthly(request: Request[None, MonthlyQuery], context: RequestContext) -> Response:
    """The requested month as one object (404 without postings), or the newest 12."""
    settings = context.settings
    months = context.tx.fetch_all(
        settlement.monthly(
            month=request.query.year_month,
            time_zone=settings.business_time_zone,
            currency=settings.currency,
        )
    )
    found = [{"yearMonth": row.month, **_totals(row, settings.currency)} for row in months]
    return _response(found, is_single=request.query.year_month is not None)


def _response(found: list[dict[str, object]], *, is_single: bool) -> Response:
    if not is_single:
        return Response(200, found)
    if not found:
        raise not_found("the settlement")
    return Response(200, found[0])


def _totals(row: DaySettlement | MonthSettlement, currency: str) -> dict[str, object]:
    return {
        "totalAmount": row.total_minor,
        "capturedAmount": row.captured,
        "refundedAmount": row.refunded,
        "paymentCount": row.payments,
        "refundCount": row.refunds,
        "currency": currency,
        "closed": row.closed,
    }
