"""Shows the settlements of days and months, as JSON and as CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop import settlement
from shop.primitives import csv_text
from shop.primitives.errors import ClientError, not_found
from shop.primitives.languages import Phrase
from shop.primitives.messages import Request, Response
from shop.settlement import Period

if TYPE_CHECKING:
    from functions.read_settlements.schema import (
        DailyExport,
        DailyQuery,
        MonthlyExport,
        MonthlyQuery,
    )
    from shop.primitives.csv_text import Value
    from shop.runtime.request_context import RequestContext
    from shop.settlement import DaySettlement, MonthSettlement


# one row for each currency
DAYS_LISTED = 30
MONTHS_LISTED = 12
ROWS_EXPORTED = 1_000
COLUMNS = (
    "totalAmount",
    "capturedAmount",
    "refundedAmount",
    "paymentCount",
    "refundCount",
    "currency",
    "closed",
)


def read_daily(request: Request[None, DailyQuery], context: RequestContext) -> Response:
    """The requested day as one object (404 without postings), or the newest days."""
    day = request.query.day
    period = Period() if day is None else settlement.day_of(day)
    found = _days(context, period, request.query.currency, DAYS_LISTED)
    return _response(found, is_single=day is not None)


def read_monthly(request: Request[None, MonthlyQuery], context: RequestContext) -> Response:
    """The requested month as one object (404 without postings), or the newest months."""
    month = request.query.year_month
    period = Period() if month is None else settlement.month_of(month)
    found = _months(context, period, request.query.currency, MONTHS_LISTED)
    return _response(found, is_single=month is not None)


def export_daily(request: Request[None, DailyExport], context: RequestContext) -> Response:
    """The days of a month as CSV, newest first; a day without postings has no row."""
    month = request.query.year_month
    days = _days(context, settlement.month_of(month), request.query.currency, ROWS_EXPORTED)
    return _file(f"settlements-{month}", "settlementDate", days, bom=request.query.bom)


def export_monthly(request: Request[None, MonthlyExport], context: RequestContext) -> Response:
    """The months of a year as CSV, newest first; a month without postings has no row."""
    year = request.query.year
    months = _months(context, settlement.year_of(year), request.query.currency, ROWS_EXPORTED)
    return _file(f"settlements-{year}", "yearMonth", months, bom=request.query.bom)


def _days(
    context: RequestContext, period: Period, currency: str | None, rows: int
) -> list[dict[str, object]]:
    settings = context.settings
    days = context.tx.fetch_all(
        settlement.daily(
            period=period,
            time_zone=settings.business_time_zone,
            currency=currency,
            default_currency=settings.currency,
            rows=rows,
        )
    )
    return [{"settlementDate": row.day.isoformat(), **_totals(row)} for row in days]


def _months(
    context: RequestContext, period: Period, currency: str | None, rows: int
) -> list[dict[str, object]]:
    settings = context.settings
    months = context.tx.fetch_all(
        settlement.monthly(
            period=period,
            time_zone=settings.business_time_zone,
            currency=currency,
            default_currency=settings.currency,
            rows=rows,
        )
    )
    return [{"yearMonth": row.month, **_totals(row)} for row in months]


def _file(
    name: str, first_column: str, settlements: list[dict[str, object]], *, bom: str
) -> Response:
    """The settlements as a file of records, whose first one has the names of the columns."""
    columns = (first_column, *COLUMNS)
    records = [[_field(each[column]) for column in columns] for each in settlements]
    mark = csv_text.BYTE_ORDER_MARK if bom == "true" else b""
    return Response(
        200,
        mark + csv_text.encode([columns, *records]),
        {"content-disposition": f'attachment; filename="{name}.csv"'},
        csv_text.MEDIA_TYPE,
    )


def _field(value: object) -> Value:
    if isinstance(value, bool):
        return "true" if value else "false"
    assert isinstance(value, str | int)
    return value


def _response(found: list[dict[str, object]], *, is_single: bool) -> Response:
    """Amounts in different currencies are never added: one object has one currency."""
    if not is_single:
        return Response(200, found)
    if not found:
        raise not_found("the settlement")
    if len(found) > 1:
        currencies = ", ".join(str(row["currency"]) for row in found)
        raise ClientError(
            400,
            "CURRENCY_REQUIRED",
            Phrase("currency: choose one of {currencies}", currencies=currencies),
        )
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
