"""Give money back: the intent is committed, the provider asked, its word recorded (shop/refunding.py)."""

from __future__ import annotations

from shop.refunding import REFUND

refund = REFUND
