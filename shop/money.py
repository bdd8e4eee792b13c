"""Money: integer minor units with a currency, never a float."""

from __future__ import annotations

from events.records import frozen

ORDER_TOTAL_MAX = 1_000_000_000


@frozen
class Money:
    """An amount in the currency's minor unit (ISO 4217; KRW has none: 1000 is a thousand won)."""

    amount_minor: int
    currency: str

    def __add__(self, other: Money) -> Money:
        self._same_currency(other)
        return Money(self.amount_minor + other.amount_minor, self.currency)

    def __sub__(self, other: Money) -> Money:
        self._same_currency(other)
        return Money(self.amount_minor - other.amount_minor, self.currency)

    def _same_currency(self, other: Money) -> None:
        if other.currency != self.currency:
            raise ValueError(f"cannot mix {self.currency} and {other.currency}")
