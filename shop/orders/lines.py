"""Quantities of products, as values: of an order, and of what becomes of its parts."""

from __future__ import annotations

from events.records import frozen


@frozen
class Line:
    """A quantity of a product: ordered, or in a shipment."""

    product_id: int
    qty: int
