"""Sends a refund to the payment provider: the two-phase call of ``shop/orders/refund.py``.

It consumes ``refund.requested``.  The route ``POST /orders/{orderId}/refunds`` belongs to
``cancel_order``.
"""

from __future__ import annotations

from shop.orders.refund import REFUND

refund = REFUND
