"""Amounts of money: integers in the currency's minor unit (ISO 4217), never floats.

KRW has no minor unit: 1000 is a thousand won.  Amounts are named ``*_minor`` and stored with their
currency; constraints of the database prevent mixing currencies.
"""

from __future__ import annotations

from collections.abc import Mapping

ORDER_TOTAL_MAX = 1_000_000_000
# ISO 4217 currencies without a minor unit, or with three digits; all others have two.
_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
DIGITS: Mapping[str, int] = {
    **dict.fromkeys(map(str, _NONE.split()), 0),
    **dict.fromkeys(map(str, _THREE.split()), 3),
}


def in_digits(amount_minor: int, currency: str) -> str:
    """An amount in the currency's major unit with separators, such as ``-12,000`` or ``9.90``."""
    digits = DIGITS.get(currency, 2)
    whole, rest = divmod(abs(amount_minor), 10**digits)
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{whole:,}" + (f".{rest:0{digits}}" if digits else "")
