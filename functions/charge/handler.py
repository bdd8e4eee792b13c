"""Calls the payment provider: the two-phase calls of ``shop/orders/charge.py``."""

from __future__ import annotations

from shop.orders.charge import CHARGE, RESOLVE

charge = CHARGE
confirm = RESOLVE
