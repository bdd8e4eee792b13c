"""Daily and monthly settlements."""

from shop.primitives import csv_text
from shop.primitives.spec import FunctionSpec, Route, Scale

SPEC = FunctionSpec(
    name="read_settlements",
    summary="Show daily and monthly settlements; an open day is computed from the ledger.",
    database_role="settlement",
    cold_start_budget=1.7,
    routes=(
        Route(
            method="GET",
            path="/settlements/daily",
            handler="read_daily",
            auth="settlements",
            may_lag=True,
            summary="One business day, or the newest 30; an open day is computed from the ledger.",
            query="DailyQuery",
            response="DailySettlements",
            error_statuses=(404,),
            group="settlements",
        ),
        Route(
            method="GET",
            path="/settlements/monthly",
            handler="read_monthly",
            auth="settlements",
            may_lag=True,
            summary="One month, or the newest 12; closed when all of its days are closed.",
            query="MonthlyQuery",
            response="MonthlySettlements",
            error_statuses=(404,),
            group="settlements",
        ),
        Route(
            method="GET",
            path="/settlements/daily.csv",
            handler="export_daily",
            auth="settlements",
            may_lag=True,
            summary="The business days of a month as CSV (RFC 4180), newest first.",
            query="DailyExport",
            media_type=csv_text.MEDIA_TYPE,
            headers=("Content-Disposition",),
            group="settlements",
        ),
        Route(
            method="GET",
            path="/settlements/monthly.csv",
            handler="export_monthly",
            auth="settlements",
            may_lag=True,
            summary="The months of a year as CSV (RFC 4180), newest first.",
            query="MonthlyExport",
            media_type=csv_text.MEDIA_TYPE,
            headers=("Content-Disposition",),
            group="settlements",
        ),
    ),
    needs=("postgres",),
    scale=Scale(concurrency=4, max_scale=2),
)
