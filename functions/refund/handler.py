"""Give money back: intent, provider's word, record (the phases of shop/refunding.py)."""

from __future__ import annotations

from shop.refunding import REFUND

refund = REFUND
