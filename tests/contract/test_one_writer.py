"""Each table is written by exactly one module, the one its comment names."""

from __future__ import annotations

import re

from shop.schema.tables import METADATA
from tests.contract.sql_constants import all_strings

WRITES = re.compile(r"(?:insert\s+into|update|delete\s+from)\s+shop\.(\w+)", re.IGNORECASE)
WRITER = re.compile(r"writer: ([^;]+)")
# The seed fills an empty local shop, fault injection changes times, and migrations create tables.
NOT_THE_SHOP = ("tools/seed.py", "tools/showcase.py", "chaos/", "shop/schema/")
OTHER_WRITERS = {
    "the trigger on ledger": None,
    "the trigger on products": None,
    "the migrations": None,
    "tools.migrate (from the specs)": "tools/migrate.py",
}

# The comments in the database name modules as they were called when its schema was made.
MOVED = {
    "alarms": "operator_alerts",
    "dead_letters": "messaging/dead_letters",
    "idempotency": "messaging/idempotency",
    "inbox": "messaging/inbox",
    "ordering.disputes": "orders/disputes",
    "ordering.shipments": "orders/shipments",
    "ordering.addresses": "orders/addresses",
    "ordering.returns": "orders/returns",
    "ordering.orders": "orders/orders",
    "ordering.payments": "orders/payments",
    "ordering.refunds": "orders/refunds",
    "outbox": "messaging/outbox",
    "transitions": "status_history",
}


def _declared(table: str) -> str | None:
    comment = METADATA.tables[f"shop.{table}"].comment or ""
    match = WRITER.search(comment)
    assert match, f"the comment on {table} names no writer"
    name = match[1].strip()
    if name in OTHER_WRITERS:
        return OTHER_WRITERS[name]
    return f"shop/{MOVED.get(name, name)}.py"


def test_each_table_has_the_one_writer_that_its_comment_names() -> None:
    writers: dict[str, set[str]] = {}
    for path, text in all_strings():
        if not path.startswith(NOT_THE_SHOP):
            for table in WRITES.findall(text):
                writers.setdefault(table.lower(), set()).add(path)

    tables = {table.name for table in METADATA.sorted_tables}
    assert set(writers) <= tables, "a table that is not in the schema"
    for table in sorted(tables):
        declared = _declared(table)
        assert writers.get(table, set()) == ({declared} if declared else set()), table
