"""What the live view reads on request: orders, due jobs, mails and logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString
from uuid import UUID

import httpx

from shop.orders import search
from shop.orders.search import Criteria, FoundOrder
from tools.operations.explain_order import build_timeline, read_records
from tools.operations.reader import connect, fetch_all

ORDERS_MAX = 30
MAILS_MAX = 50
LOG_LINES_MAX = 300
# of each log, from its end
LOG_BYTES_MAX = 4 * 1024 * 1024
TIMEOUT_SECONDS = 5.0
# what an entry of an order's timeline is about, by its rank
SUBJECTS = ("consumed", "status", "stock", "ledger", "event", "dead letter", "operator alert")
DUE: LiteralString = """
select kind, count(*) as jobs, count(*) filter (where due_at <= now()) as due,
  min(due_at) as next_at
from shop.due_work group by kind order by min(due_at), kind
"""

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Readings:
    """The shop's database as its auditor sees it, its mail catcher and its logs."""

    database_url: str
    catcher_url: str
    logs: Path

    def orders(self) -> list[Json]:
        """The newest orders."""
        with connect(self.database_url) as connection:
            found = fetch_all(connection, search.page(Criteria(), limit=ORDERS_MAX))
        return [dict(zip(FoundOrder.columns, order, strict=True)) for order in found]

    def path_of_order(self, order_id: UUID) -> Json | None:
        """The timeline of an order with the times of its entries; None when it is unknown."""
        records = read_records(self.database_url, order_id)
        if records is None:
            return None
        order = records.order
        return {
            "orderId": order["order_id"],
            "status": order["status"],
            "totalAmount": order["total_minor"],
            "currency": order["currency"],
            "traceIds": records.trace_ids,
            "entries": [
                {"at": entry.at, "subject": SUBJECTS[entry.rank], "text": entry.text}
                for entry in build_timeline(order, records.tables)
            ],
            "due": [{"kind": row["kind"], "at": row["due_at"]} for row in records.tables["due"]],
        }

    def due_jobs(self) -> list[Json]:
        """How many jobs of each kind are due, and when the next one is."""
        with connect(self.database_url) as connection:
            rows = connection.execute(DUE).fetchall()
        return [
            {"kind": kind, "jobs": jobs, "due": due, "nextAt": next_at}
            for kind, jobs, due, next_at in rows
        ]

    def mails(self) -> object:
        """The newest mails that the catcher has."""
        answer = httpx.get(self.catcher_url + "/messages", timeout=TIMEOUT_SECONDS)
        found: list[Json] = answer.raise_for_status().json()
        return [
            mail | {"page": f"{self.catcher_url}/messages/{mail['id']}/html"} for mail in found
        ][:MAILS_MAX]

    def log_of_trace(self, trace_id: str) -> list[Json]:
        """The lines of all functions' logs that belong to a trace, in the order of their times."""
        found = [line for log in sorted(self.logs.glob("*.log")) for line in _lines(log, trace_id)]
        return sorted(found, key=lambda line: str(line.get("at", "")))[:LOG_LINES_MAX]


def _lines(log: Path, trace_id: str) -> Iterator[Json]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES_MAX))
        for raw in file:
            if trace_id.encode() not in raw:
                continue
            try:
                line: Json = json.loads(raw)
            except ValueError:
                continue
            if line.get("trace") == trace_id:
                yield line | {"log": log.stem}
