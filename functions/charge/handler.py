"""Collect an order's money: intent committed, provider asked, its word recorded (shop/charging.py)."""

from __future__ import annotations

from shop.charging import CHARGE

charge = CHARGE
