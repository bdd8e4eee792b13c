"""The ledger: append-only double-entry bookkeeping, from which settlements are computed.

Each posting belongs to one of sixteen hash chains; a trigger of the database computes the hash, so
that no code can write a posting outside a chain.  ``posted_at`` is the transaction's now(), and
selects the month's partition.  The trigger also writes ``ledger_keys``: what is unique for ever.
"""

from __future__ import annotations

from uuid import UUID

from shop.adapters.statements import Query, Row, Statement
from shop.primitives.statuses import PostingKind

ACCOUNTS = {
    PostingKind.CAPTURE: ("psp_receivable", "order_escrow"),
    PostingKind.REFUND: ("order_escrow", "psp_receivable"),
    PostingKind.REFUND_REVERSED: ("psp_receivable", "order_escrow"),
    PostingKind.REFUND_BY_OTHER_MEANS: ("order_escrow", "other_means"),
    PostingKind.WRITE_OFF: ("order_escrow", "written_off"),
    # withdrawn by the provider when a customer disputes, and paid back when the shop wins
    PostingKind.DISPUTE: ("disputed_funds", "psp_receivable"),
    PostingKind.DISPUTE_REVERSAL: ("psp_receivable", "disputed_funds"),
    PostingKind.DISPUTE_FEE: ("dispute_fees", "psp_receivable"),
    PostingKind.DISPUTE_FEE_REVERSAL: ("psp_receivable", "dispute_fees"),
}

# chain, chain_seq, prev_hash and hash are set by the trigger chain_posting, which rejects another
# posted_at than the default
POST = Query(
    Row,
    """
insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, currency)
values (%(kind)s, %(source_id)s, %(order_id)s, %(debit)s, %(credit)s, %(amount_minor)s,
  %(currency)s)
returning seq
""",
)


def post(
    *, kind: PostingKind, source_id: UUID, order_id: UUID, amount_minor: int, currency: str
) -> Statement[Row]:
    """Posts a movement of an order's money; a source posted twice violates a unique constraint."""
    debit, credit = ACCOUNTS[kind]
    return POST(
        kind=kind,
        source_id=source_id,
        order_id=order_id,
        debit=debit,
        credit=credit,
        amount_minor=amount_minor,
        currency=currency,
    )
