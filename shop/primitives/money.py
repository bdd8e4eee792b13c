"""Money is integers: minor units (ISO 4217; KRW has none: 1000 is a thousand won), never a float.

Amounts are named ``*_minor`` and travel beside their currency; the database refuses to mix them.
"""

from __future__ import annotations

ORDER_TOTAL_MAX = 1_000_000_000
