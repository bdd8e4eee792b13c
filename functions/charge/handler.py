"""Collect an order's money: intent, provider's word, record (the phases of shop/charging.py)."""

from __future__ import annotations

from shop.charging import CHARGE

charge = CHARGE
