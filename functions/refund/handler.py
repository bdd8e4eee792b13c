"""Give money back: intent, provider's word, record (the phases of shop/orders/refund.py)."""

from __future__ import annotations

from shop.orders.refund import REFUND

refund = REFUND
