"""Shows the settlements of days and months."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop import settlement
from shop.primitives.errors import ClientError, not_found
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.read_settlements.schema import DailyQuery, MonthlyQuery
    from shop.runtime.request_context import RequestContext
    from shop.settlement import DaySettlement, MonthSettlement


def read_daily(request: Request[None, DailyQuery], context: RequestContext) -> Response:
    """The requested day as one object (404 without postings), or the newest days."""
    settings = context.settings
    days = context.tx.fetch_all(
        settlement.daily(
            day=request.query.day,
            time_zone=settings.business_time_zone,
            currency=request.query.currency,
            default_currency=settings.currency,
        )
    )
    found = [{"settlementDate": row.day.isoformat(), **_totals(row)} for row in days]
    return _response(found, is_single=request.query.day is not None)


def read_monthly(request: Request[None, MonthlyQuery], context: RequestContext) -> Response:
    """The requested month as one object (404 without postings), or the newest months."""
    settings = context.settings
    months = context.tx.fetch_all(
        settlement.monthly(
            month=request.query.year_month,
            time_zone=settings.business_time_zone,
            currency=request.query.currency,
            default_currency=settings.currency,
        )
    )
    found = [{"yearMonth": row.month, **_totals(row)} for row in months]
    return _response(found, is_single=request.query.year_month is not None)


def _response(found: list[dict[str, object]], *, is_single: bool) -> Response:
    """Amounts in different currencies are never added: one object has one currency."""
    if not is_single:
        return Response(200, found)
    if not found:
        raise not_found("the settlement")
    if len(found) > 1:
        currencies = ", ".join(str(row["currency"]) for row in found)
        raise ClientError(400, "CURRENCY_REQUIRED", f"currency: choose one of {currencies}")
    return Response(200, found[0])


def _totals(row: DaySettlement | MonthSettlement) -> dict[str, object]:
    return {
        "totalAmount": row.total_minor,
        "capturedAmount": row.captured,
        "refundedAmount": row.refunded,
        "paymentCount": row.payments,
        "refundCount": row.refunds,
        "currency": row.currency,
        "closed": row.closed,
    }
