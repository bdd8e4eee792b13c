"""The provider's records: intents, refunds, entries and webhooks in one SQLite file.

Each operation is one transaction under one lock, durable (WAL, synchronous=full) before it returns.
So ``entries`` are in commit order, and a crash loses no operation whose response was sent.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TypedDict

from tools.payment_simulator.actions import Customers, action_type
from tools.payment_simulator.faults import (
    KEY_LIFE_SECONDS_DEFAULT,
    METHOD_REFUND_REJECTED,
    decline_reason,
)
from tools.payment_simulator.tables import (
    COPY_OLD_ENTRIES,
    HAS_OLD_ENTRIES,
    RENAME_OLD_ENTRIES,
    TABLES,
)

Body = dict[str, object]
Response = tuple[int, Body]

INTENTS = """
select intent_id, key, provider_ref, status, amount_minor, currency, payment_method,
  order_id, payment_id, reason, tries, created_at, closed_at
from intents"""
INSERT_INTENT = """
insert into intents (key, provider_ref, status, amount_minor, currency, payment_method, order_id,
                     payment_id, created_at)
values (:key, :provider_ref, 'created', :amount_minor, :currency, :payment_method, :order_id,
        :payment_id, :now)"""
INSERT_TOMBSTONE = """
insert into intents (key, provider_ref, status, payment_method, order_id, payment_id, reason,
                     created_at, closed_at)
values (:key, :provider_ref, 'voided', '', '', '', 'cancelled before it was created', :now, :now)"""
INTENT_BY_KEY = (
    INTENTS
    + """
where key = :key
order by status = 'captured' desc, intent_id desc limit 1"""
)
INTENT_NEWEST = (
    INTENTS
    + """
where key = :key order by intent_id desc limit 1"""
)
INTENT_VOIDED = (
    INTENTS
    + """
where key = :key and status = 'voided'
order by intent_id desc limit 1"""
)
INTENT_BY_ID = INTENTS + " where intent_id = :intent_id"
CAPTURED_BY_KEY_OR_REF = (
    INTENTS
    + """
where key = :charge_key and status = 'captured'
  and (:provider_ref is null or provider_ref = :provider_ref)
order by intent_id desc limit 1"""
)
COUNT_TRY = "update intents set tries = tries + 1 where intent_id = :intent_id"
CLOSE_INTENT = """
update intents set status = :status, reason = :reason, closed_at = :now
where intent_id = :intent_id and status in ('created', :also_from)"""
VOID_CREATED = """
update intents set status = 'voided', reason = 'cancelled', closed_at = :now
where key = :key and status = 'created'"""
INSERT_ENTRY = """
insert into entries (kind, key, charge_key, charge_ref, amount_minor, currency, provider_ref, at)
values (:kind, :key, :charge_key, :charge_ref, :amount_minor, :currency, :provider_ref, :at)"""
ENTRIES = """
select entry_id, kind, key, charge_key, charge_ref, amount_minor, currency, provider_ref, at
from entries"""
ENTRIES_SINCE = (
    ENTRIES
    + """
where entry_id > :since order by entry_id limit :limit"""
)
RESPONSE_BY_KEY = """
select fingerprint, status, body from responses
where scope = :scope and key = :key and created_at > :stored_since"""
STORE_RESPONSE = """
insert or replace into responses (scope, key, fingerprint, status, body, created_at)
values (:scope, :key, :fingerprint, :status, :body, :now)"""
REFUNDS = """
select refund_id, key, charge_key, charge_ref, provider_ref, status, amount_minor,
  currency, reason, created_at
from refunds"""
REFUND_BY_KEY = (
    REFUNDS
    + """
where key = :key
order by status = 'succeeded' desc, refund_id desc limit 1"""
)
REFUND_BY_REF = REFUNDS + " where provider_ref = :provider_ref"
REFUNDED_SUM = """
select coalesce(sum(amount_minor), 0) from refunds
where charge_ref = :charge_ref and status = 'succeeded'"""
DISPUTES = """
select dispute_id, provider_ref, charge_key, charge_ref, status, amount_minor, currency, fee_minor,
  opened_at, closed_at
from disputes"""
DISPUTE_BY_REF = DISPUTES + " where provider_ref = :provider_ref"
WITHHELD_SUM = """
select coalesce(sum(amount_minor), 0) from disputes
where charge_ref = :charge_ref and status in ('open', 'lost')"""
INSERT_UNREQUESTED = """
insert into unrequested (charge_key, action, amount_minor, due_at)
values (:charge_key, :action, :amount_minor, :due_at)"""
INSERT_REFUND = """
insert into refunds (key, charge_key, charge_ref, provider_ref, status, amount_minor, currency,
                     reason, created_at)
values (:key, :charge_key, :charge_ref, :provider_ref, :status, :amount_minor, :currency,
        :reason, :now)"""
INSERT_WEBHOOK = """
insert into webhooks (event_id, body, status, copies, created_at, next_at)
values (:event_id, :body, :status, :copies, :now, :next_at)"""
WEBHOOKS_DUE = """
select webhook_id, event_id, body, copies, tries, created_at, next_at from webhooks
where status = 'pending' order by next_at, webhook_id limit 64"""
WEBHOOK_DONE = "update webhooks set status = :status, tries = :tries where webhook_id = :webhook_id"
WEBHOOK_LATER = """
update webhooks set tries = :tries, next_at = :next_at where webhook_id = :webhook_id"""
WEBHOOK_COUNTS = "select status, count(*) from webhooks group by status"
INSERT_LATE = """
insert into late_confirms (intent_id, ignores_tombstone, due_at)
values (:intent_id, :ignores_tombstone, :due_at)"""
LATE_NEXT = """
select late_id, intent_id, ignores_tombstone, due_at from late_confirms
order by due_at limit 1"""
DELETE_LATE = "delete from late_confirms where late_id = :late_id"
SCHEDULED = """
select (select count(*) from late_confirms) as late_confirms,
  (select count(*) from unrequested) as unrequested"""
ALL_INTENTS = INTENTS + " order by intent_id"
ALL_REFUNDS = REFUNDS + " order by refund_id"
ALL_DISPUTES = DISPUTES + " order by dispute_id"
ALL_ENTRIES = ENTRIES + " order by entry_id"
SETTING = "select value from settings where name = :name"
STORE_SETTING = "insert or replace into settings (name, value) values (:name, :value)"


@dataclass(frozen=True)
class WebhookPlan:
    """How many copies of the next webhook are sent (0: it is lost), and after which delay."""

    copies: int = 1
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class Unrequested:
    """What happens to a captured charge without a request of the shop, after a delay."""

    action: str
    amount_minor: int
    delay_seconds: float


class IntentFields(TypedDict):
    """The body of ``POST /intents``."""

    key: str
    amount_minor: int
    currency: str
    payment_method: str
    order_id: str
    payment_id: str


class RefundFields(TypedDict):
    """The body of ``POST /refunds``."""

    key: str
    charge_key: str
    provider_ref: str | None
    amount_minor: int
    currency: str


class ProviderRecords:
    """The only writer of the simulator's file; thread-safe.

    ``plan_webhook`` decides how each webhook is sent; ``wake`` is called after each commit that
    left work for the webhook sender.
    """

    def __init__(self, path: Path, *, sends_webhooks: bool) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.execute("pragma busy_timeout = 5000")
        self._create_tables()
        self._sends_webhooks = sends_webhooks
        self.customers = Customers(self)
        self.key_life_seconds = KEY_LIFE_SECONDS_DEFAULT
        self._has_due_work = False
        self.plan_webhook: Callable[[], WebhookPlan] = WebhookPlan
        self.plan_unrequested: Callable[[int], list[Unrequested]] = lambda _: []
        self.wake: Callable[[], None] = lambda: None

    def _create_tables(self) -> None:
        has_old_entries = self.one(HAS_OLD_ENTRIES) is not None
        script = RENAME_OLD_ENTRIES + TABLES + COPY_OLD_ENTRIES if has_old_entries else TABLES
        # one transaction: a process killed in between would leave the entries out
        self._connection.executescript(f"begin immediate;{script}commit;")

    def close(self) -> None:
        """Waits for a running transaction, then closes the file."""
        with self._lock:
            self._connection.close()

    def create_intent(self, fields: IntentFields) -> Response:
        """Creates an intent; repeats the response for a known key, 422 if its fields differ.

        A key that was cancelled returns its voided intent, the tombstone.
        """
        with self.transaction() as now:
            stored = self._find_response("intent", fields, now)
            tombstone = self.one(INTENT_VOIDED, key=fields["key"])
            if stored is not None and (stored[0] == 422 or tombstone is None):
                return stored
            if tombstone is not None:
                return 200, intent_body(tombstone)
            self.run(INSERT_INTENT, **fields, provider_ref=f"ch_{token_hex(12)}", now=now)
            body = intent_body(self.found(INTENT_NEWEST, key=fields["key"]))
            self._store_response("intent", fields, body, now)
            return 200, body

    def newest_intent(self, key: str) -> sqlite3.Row | None:
        """The newest intent with the key, or None."""
        with self._lock:
            return self.one(INTENT_NEWEST, key=key)

    def is_first_try(self, intent_id: int) -> bool:
        """Counts a confirmation, across restarts; True for the intent's first."""
        with self.transaction():
            self.run(COUNT_TRY, intent_id=intent_id)
            tries: int = self.found(INTENT_BY_ID, intent_id=intent_id)["tries"]
            return tries == 1

    def confirm(self, key: str, token: str | None = None) -> Response:
        """Captures once and returns the intent; 404 for an unknown key.

        Returns what the customer has to do first, unless the token proves that it was done.
        """
        with self.transaction() as now:
            intent = self.one(INTENT_NEWEST, key=key)
            if intent is None:
                return 404, {"error": "no such intent"}
            required = self.customers.required(intent, token)
            if required is not None:
                return 200, required
            return 200, intent_body(self.execute(intent, now, also_from="created"))

    def cancel(self, key: str) -> Response:
        """Voids the key's open intent, or returns it as it is; unknown keys get a tombstone."""
        with self.transaction() as now:
            voided = self.run(VOID_CREATED, key=key, now=now)
            intent = self.one(INTENT_BY_KEY, key=key)
            if intent is None:
                self.run(INSERT_TOMBSTONE, key=key, provider_ref=f"ch_{token_hex(12)}", now=now)
                return 200, intent_body(self.found(INTENT_NEWEST, key=key))
            if voided and intent["status"] == "voided":
                self.add_webhook("charge.voided", intent_body(intent), now)
            return 200, intent_body(intent)

    def intent(self, key: str) -> Response:
        """The intent with the key; a captured one takes precedence."""
        with self._lock:
            intent = self.one(INTENT_BY_KEY, key=key)
            if intent is None:
                return 404, {"error": "no such intent"}
            return 200, self.customers.shown(intent) or intent_body(intent)

    def refund(self, fields: RefundFields) -> Response:
        """Refunds or rejects permanently; the sum of all refunds never exceeds the capture."""
        with self.transaction() as now:
            stored = self._find_response("refund", fields, now)
            if stored is not None:
                return stored
            charge = self.one(
                CAPTURED_BY_KEY_OR_REF,
                charge_key=fields["charge_key"],
                provider_ref=fields["provider_ref"],
            )
            if charge is None:
                return 404, {"error": "no such capture"}
            self._write_refund(fields, charge, now)
            body = refund_body(self.found(REFUND_BY_KEY, key=fields["key"]))
            self._store_response("refund", fields, body, now)
            self.add_webhook(f"refund.{body['status']}", body, now)
            return 200, body

    def refund_by_key(self, key: str) -> Response:
        """The refund with the key; a successful one takes precedence."""
        with self._lock:
            refund = self.one(REFUND_BY_KEY, key=key)
        return (404, {"error": "no such refund"}) if refund is None else (200, refund_body(refund))

    def entries_since(self, since: int, limit: int) -> Response:
        """Captures, refunds and disputes after the cursor, in commit order."""
        with self._lock:
            rows = self.all(ENTRIES_SINCE, since=since, limit=limit + 1)
            page = rows[:limit]
            next_cursor = str(page[-1]["entry_id"] if page else since)
            entries = [self._entry_body(row) for row in page]
        return 200, {
            "entries": entries,
            "next_cursor": next_cursor,
            "has_more": len(rows) > limit,
        }

    def all_records(self) -> Response:
        """All records, for the checker (``GET /records``)."""
        with self._lock:
            return 200, {
                "intents": [dict(row) for row in self.all(ALL_INTENTS)],
                "refunds": [dict(row) for row in self.all(ALL_REFUNDS)],
                "disputes": [dispute_body(row) for row in self.all(ALL_DISPUTES)],
                "entries": [dict(row) for row in self.all(ALL_ENTRIES)],
                "webhooks": {row[0]: row[1] for row in self.all(WEBHOOK_COUNTS)},
            }

    def scheduled(self) -> Response:
        """How many actions will be executed without another request (``GET /scheduled``)."""
        with self._lock:
            return 200, dict(self.found(SCHEDULED))

    def postpone_confirm(self, intent_id: int, due_at: float, *, ignores_tombstone: bool) -> None:
        """Stores a confirmation that is executed later."""
        with self.transaction():
            self.run(
                INSERT_LATE,
                intent_id=intent_id,
                ignores_tombstone=int(ignores_tombstone),
                due_at=due_at,
            )
            self._has_due_work = True

    def confirm_late(self, now: float) -> float | None:
        """Executes the late confirmations that are due; returns the time of the next, or None."""
        while True:
            with self.transaction():
                late = self.one(LATE_NEXT)
                if late is None or late["due_at"] > now:
                    return None if late is None else late["due_at"]
                also_from = "voided" if late["ignores_tombstone"] else "created"
                intent = self.found(INTENT_BY_ID, intent_id=late["intent_id"])
                if action_type(intent["payment_method"]) is None:
                    self.execute(intent, time.time(), also_from=also_from)
                self.run(DELETE_LATE, late_id=late["late_id"])

    def pending_webhooks(self) -> list[sqlite3.Row]:
        """The next webhooks to send, by due time."""
        with self._lock:
            return self.all(WEBHOOKS_DUE)

    def close_webhook(self, webhook_id: int, tries: int, status: str) -> None:
        """Records a webhook as ``delivered``, or as ``parked`` when no retries are left."""
        with self.transaction():
            self.run(WEBHOOK_DONE, webhook_id=webhook_id, tries=tries, status=status)

    def delay_webhook(self, webhook_id: int, tries: int, next_at: float) -> None:
        """Schedules the next try of a webhook."""
        with self.transaction():
            self.run(WEBHOOK_LATER, webhook_id=webhook_id, tries=tries, next_at=next_at)

    def setting(self, name: str) -> str | None:
        """A stored setting, or None."""
        with self._lock:
            row = self.one(SETTING, name=name)
        return None if row is None else row["value"]

    def store_setting(self, name: str, value: str) -> None:
        """Stores a setting."""
        with self.transaction():
            self.run(STORE_SETTING, name=name, value=value)

    def execute(self, intent: sqlite3.Row, now: float, *, also_from: str) -> sqlite3.Row:
        """Captures or declines the intent if it is still open; returns it as it is then.

        In the running transaction.
        """
        return self._close(intent, decline_reason(intent["payment_method"]), now, also_from)

    def decline(self, intent: sqlite3.Row, reason: str, now: float) -> None:
        """Declines the intent if it is still open, in the running transaction."""
        self._close(intent, reason, now, "created")

    def _close(
        self, intent: sqlite3.Row, reason: str | None, now: float, also_from: str
    ) -> sqlite3.Row:
        changed = self.run(
            CLOSE_INTENT,
            intent_id=intent["intent_id"],
            status="declined" if reason else "captured",
            reason=reason,
            also_from=also_from,
            now=now,
        )
        closed = self.found(INTENT_BY_ID, intent_id=intent["intent_id"])
        if changed:
            body = intent_body(closed)
            if closed["status"] == "captured":
                self.add_entry("charge", body, now)
                self._schedule_unrequested(closed, now)
            self.add_webhook(f"charge.{closed['status']}", body, now)
        return closed

    def _write_refund(self, fields: RefundFields, charge: sqlite3.Row, now: float) -> None:
        refunded = self.found(REFUNDED_SUM, charge_ref=charge["provider_ref"])[0]
        withheld = self.found(WITHHELD_SUM, charge_ref=charge["provider_ref"])[0]
        reason = None
        if charge["payment_method"].upper() == METHOD_REFUND_REJECTED:
            reason = "refund_rejected"
        elif fields["currency"] != charge["currency"]:
            reason = "other_currency"
        elif refunded + fields["amount_minor"] > charge["amount_minor"]:
            reason = "exceeds_capture"
        elif refunded + withheld + fields["amount_minor"] > charge["amount_minor"]:
            reason = "charge_disputed"
        row: Body = {
            **fields,
            "charge_ref": charge["provider_ref"],
            "provider_ref": f"re_{token_hex(12)}",
            "status": "rejected" if reason else "succeeded",
            "reason": reason,
        }
        self.run(INSERT_REFUND, **row, now=now)
        if reason is None:
            self.add_entry("refund", row, now)

    def _schedule_unrequested(self, charge: sqlite3.Row, now: float) -> None:
        for planned in self.plan_unrequested(charge["amount_minor"]):
            self.run(
                INSERT_UNREQUESTED,
                charge_key=charge["key"],
                action=planned.action,
                amount_minor=planned.amount_minor,
                due_at=now + planned.delay_seconds,
            )
            self._has_due_work = True

    def _entry_body(self, entry: sqlite3.Row) -> Body:
        """An entry of the list; a refund and a dispute as they are now."""
        if entry["kind"] == "charge":
            return dict(entry)
        if entry["kind"] == "refund":
            refund = self.found(REFUND_BY_REF, provider_ref=entry["provider_ref"])
            return {**dict(entry), "status": refund["status"]}
        dispute = self.found(DISPUTE_BY_REF, provider_ref=entry["provider_ref"])
        return {**dict(entry), **dispute_body(dispute)}

    def add_entry(self, kind: str, movement: Body, now: float) -> None:
        """Adds an entry to the list, in the running transaction."""
        self.run(
            INSERT_ENTRY,
            kind=kind,
            key=movement["key"],
            charge_key=movement.get("charge_key", movement["key"]),
            charge_ref=movement.get("charge_ref", movement["provider_ref"]),
            amount_minor=movement["amount_minor"],
            currency=movement["currency"],
            provider_ref=movement["provider_ref"],
            at=int(now),
        )

    def add_webhook(self, event_type: str, data: Body, now: float) -> None:
        """Adds a webhook, in the running transaction; sent after the commit."""
        if not self._sends_webhooks:
            return
        event_id = f"evt_{token_hex(12)}"
        body = {"id": event_id, "type": event_type, "created": int(now), "data": data}
        plan = self.plan_webhook()
        self.run(
            INSERT_WEBHOOK,
            event_id=event_id,
            body=json.dumps(body, separators=(",", ":")),
            status="pending" if plan.copies else "lost",
            copies=plan.copies,
            now=now,
            next_at=now + plan.delay_seconds,
        )
        self._has_due_work = True

    def _find_response(
        self, scope: str, fields: IntentFields | RefundFields, now: float
    ) -> Response | None:
        stored = self.one(
            RESPONSE_BY_KEY,
            scope=scope,
            key=fields["key"],
            stored_since=now - self.key_life_seconds,
        )
        if stored is None:
            return None
        if stored["fingerprint"] != _fingerprint(fields):
            return 422, {"error": "the key was used with another body"}
        return stored["status"], json.loads(stored["body"])

    def _store_response(
        self, scope: str, fields: IntentFields | RefundFields, body: Body, now: float
    ) -> None:
        self.run(
            STORE_RESPONSE,
            scope=scope,
            key=fields["key"],
            fingerprint=_fingerprint(fields),
            status=200,
            body=json.dumps(body),
            now=now,
        )

    @contextmanager
    def transaction(self) -> Generator[float]:
        """One immediate transaction; yields its time, then wakes the webhook sender if needed.

        Inside another one, the block becomes a part of that.
        """
        with self._lock:
            if self._connection.in_transaction:
                yield time.time()
                return
            self._has_due_work = False
            self._connection.execute("begin immediate")
            try:
                yield time.time()
            except BaseException:
                self._connection.execute("rollback")
                raise
            self._connection.execute("commit")
            has_due_work = self._has_due_work
        if has_due_work:
            self.wake()

    def run(self, sql: str, **values: object) -> int:
        """Runs a statement in the running transaction; returns how many rows it changed."""
        return self._connection.execute(sql, values).rowcount

    def one(self, sql: str, **values: object) -> sqlite3.Row | None:
        """The first row, or None."""
        row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return row

    def found(self, sql: str, **values: object) -> sqlite3.Row:
        """The first row of a statement that has one."""
        row = self.one(sql, **values)
        assert row is not None, "the running transaction wrote the row"
        return row

    def all(self, sql: str, **values: object) -> list[sqlite3.Row]:
        """Every row."""
        return self._connection.execute(sql, values).fetchall()


def intent_body(intent: sqlite3.Row) -> Body:
    """An intent as the API shows it."""
    return {
        "key": intent["key"],
        "provider_ref": intent["provider_ref"],
        "status": intent["status"],
        "amount_minor": intent["amount_minor"],
        "currency": intent["currency"],
        "order_id": intent["order_id"],
        "payment_id": intent["payment_id"],
        "reason": intent["reason"],
    }


def refund_body(refund: sqlite3.Row) -> Body:
    """A refund as the API shows it."""
    return {
        "key": refund["key"],
        "charge_key": refund["charge_key"],
        "charge_ref": refund["charge_ref"],
        "provider_ref": refund["provider_ref"],
        "status": refund["status"],
        "amount_minor": refund["amount_minor"],
        "currency": refund["currency"],
        "reason": refund["reason"],
    }


def dispute_body(dispute: sqlite3.Row) -> Body:
    """A dispute as the API shows it, with the money that it has moved; its own id is its key.

    The provider withdraws the amount and a fee at once, and pays both back when the shop wins.
    """
    opened_at, closed_at = int(dispute["opened_at"]), int(dispute["closed_at"] or 0)
    amount, fee = dispute["amount_minor"], dispute["fee_minor"]
    moved = [("withdrawn", amount, opened_at), ("fee", fee, opened_at)]
    if dispute["status"] == "won":
        moved += [("reinstated", amount, closed_at), ("fee_reversed", fee, closed_at)]
    return {
        "key": dispute["provider_ref"],
        "charge_key": dispute["charge_key"],
        "charge_ref": dispute["charge_ref"],
        "provider_ref": dispute["provider_ref"],
        "status": dispute["status"],
        "amount_minor": amount,
        "currency": dispute["currency"],
        "at": opened_at,
        "transactions": [
            {"kind": kind, "amount_minor": minor, "currency": dispute["currency"], "at": at}
            for kind, minor, at in moved
            if minor
        ],
    }


def _fingerprint(fields: IntentFields | RefundFields) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
