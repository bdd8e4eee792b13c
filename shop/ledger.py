"""The ledger: append-only double entry.  Settlement is derived from it and from nothing else.

Each posting is a link of one of sixteen hash chains; the database's trigger makes the link, so no
code can post around it.  ``posted_at`` is the database's now().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

if TYPE_CHECKING:
    from shop.adapters.db import Statement

ACCOUNTS = {
    "CAPTURE": ("psp_receivable", "order_escrow"),
    "REFUND": ("order_escrow", "psp_receivable"),
}

# chain, chain_seq, prev_hash and hash are set by the trigger chain_posting
POST: LiteralString = """
insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, currency)
values (%(kind)s, %(source_id)s, %(order_id)s, %(debit)s, %(credit)s, %(amount_minor)s,
  %(currency)s)
returning seq
"""


def post(
    *, kind: str, source_id: UUID, order_id: UUID, amount_minor: int, currency: str
) -> Statement:
    """The statement that posts one capture or refund; posting a source twice is refused."""
    debit, credit = ACCOUNTS[kind]
    return POST, {
        "kind": kind,
        "source_id": source_id,
        "order_id": order_id,
        "debit": debit,
        "credit": credit,
        "amount_minor": amount_minor,
        "currency": currency,
    }
