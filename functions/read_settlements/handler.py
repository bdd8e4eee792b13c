"""Read the settlements.  One round trip each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shop import settlement
from shop.primitives.errors import not_found
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.read_settlements.schema import DailyQuery, MonthlyQuery
    from shop.runtime.request_context import RequestContext
    from shop.settlement import Settlement


def read_daily(request: Request[None, DailyQuery], context: RequestContext) -> Response:
    """The asked-for day as one object (404 when nothing happened on it), or the newest 30."""
    found = settlement.daily(
        context.tx,
        day=request.query.day,
        time_zone=context.settings.business_time_zone,
        currency=context.settings.currency,
    )
    answers = [{"settlementDate": one.period, **_figures(one)} for one in found]
    return _answer(answers, asked_for_one=request.query.day is not None)


def read_monthly(request: Request[None, MonthlyQuery], context: RequestContext) -> Response:
    """The asked-for month as one object (404 when nothing happened in it), or the newest 12."""
    found = settlement.monthly(
        context.tx,
        month=request.query.year_month,
        time_zone=context.settings.business_time_zone,
        currency=context.settings.currency,
    )
    answers = [{"yearMonth": one.period, **_figures(one)} for one in found]
    return _answer(answers, asked_for_one=request.query.year_month is not None)


def _answer(answers: list[dict[str, Any]], *, asked_for_one: bool) -> Response:
    if not asked_for_one:
        return Response(200, answers)
    if not answers:
        raise not_found("the settlement")
    return Response(200, answers[0])


def _figures(one: Settlement) -> dict[str, Any]:
    return {
        "totalAmount": one.total_minor,
        "capturedAmount": one.captured_minor,
        "refundedAmount": one.refunded_minor,
        "paymentCount": one.payments,
        "refundCount": one.refunds,
        "currency": one.currency,
        "closed": one.closed,
    }
