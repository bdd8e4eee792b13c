"""Collects an order's money: the two-phase call of ``shop/orders/charge.py``."""

from __future__ import annotations

from shop.orders.charge import CHARGE

charge = CHARGE
