"""Requests and responses of read_settlements."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, RootModel

from shop.runtime.model import BusinessDay, CurrencyCode, Model, QueryModel, QueryNumber

# a year outside this century is taken for a typing error
MONTH = r"^20[0-9]{2}-(0[1-9]|1[0-2])$"


YearMonth = Annotated[
    str,
    Field(pattern=MONTH, description="Month, yyyy-MM."),
]


class _SettlementQuery(QueryModel):
    currency: CurrencyCode | None = Field(
        default=None, description="Only this currency; without it, one row for each."
    )


class DailyQuery(_SettlementQuery):
    """Without a date: the newest days, today first, 30 rows at most."""

    day: BusinessDay | None = Field(default=None, alias="date")


class MonthlyQuery(_SettlementQuery):
    """Without a month: the newest months, 12 rows at most."""

    year_month: YearMonth | None = None


class _Export(_SettlementQuery):
    bom: Literal["true", "false"] = Field(
        default="false", description="Begin with a byte order mark, for spreadsheets that need one."
    )


class DailyExport(_Export):
    """The month whose days are exported."""

    year_month: YearMonth


class MonthlyExport(_Export):
    """The year whose months are exported."""

    year: Annotated[QueryNumber, Field(ge=2000, le=2099)]


class Totals(Model):
    """Amounts in the currency's minor unit; the total is captures less refunds."""

    total_amount: int
    captured_amount: int
    refunded_amount: int
    payment_count: int
    refund_count: int
    currency: CurrencyCode
    closed: bool


class DailySettlement(Totals):
    """One business day; the totals of a ``closed`` day never change."""

    settlement_date: date


class MonthlySettlement(Totals):
    """One month; closed when it is over and all of its days are closed."""

    year_month: YearMonth


class DailySettlements(RootModel[DailySettlement | list[DailySettlement]]):
    """One object if the request names a date, an array otherwise."""


class MonthlySettlements(RootModel[MonthlySettlement | list[MonthlySettlement]]):
    """One object if the request names a month, an array otherwise."""
