"""Do whatever is due, in batches, until nothing is (shop/due.py)."""

from __future__ import annotations

from shop.due import drain

sweep = drain
