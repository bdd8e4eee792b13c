"""Amounts of money: integers in the currency's minor unit (ISO 4217), never floats.

KRW has no minor unit: 1000 is a thousand won.  Amounts are named ``*_minor`` and stored with their
currency; constraints of the database prevent mixing currencies.
"""

from __future__ import annotations

ORDER_TOTAL_MAX = 1_000_000_000
