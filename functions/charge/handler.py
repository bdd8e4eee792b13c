"""Charges an order at the payment provider: the two-phase call of ``shop/orders/charge.py``."""

from __future__ import annotations

from shop.orders.charge import CHARGE

charge = CHARGE
