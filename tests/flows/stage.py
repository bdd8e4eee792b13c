"""The shop on a stage: a broker that the test directs, timers on demand, the books afterwards.

Events leave the shop over HTTP to a real broker, signed; from there the test delivers them once,
often, late, in any order, to several processes at once, or never.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from shop.registry import consumers_of, spec_of
from tests.harness import Person, Response, ShopUnderTest
from tests.tools.payment_simulator.simulator_process import SECRET, SimulatorProcess
from tools.checker.evaluate import ExternalRecords, Violation, find_violations
from tools.checker.provider_transactions import provider_records

ROUNDS_MAX = 30

Message = tuple[dict[str, str], bytes]

# Everything that would be due some time is due now.
HASTEN = (
    "update shop.payments set next_try_at = now() where status in ('INTENT', 'UNKNOWN')",
    "update shop.refunds set next_try_at = now() where status in ('INTENT', 'UNKNOWN')",
    "update shop.orders set charge_at = now() where charge_at is not null",
    "update shop.orders set updated_at = now() - interval '1 minute' where status = 'CANCELLING'",
    "update shop.outbox set next_try_at = now() where done_at is null and parked_at is null",
)
OPEN_STORIES = """
select 'order' as what, order_id::text as id from shop.orders where charge_at is not null
union all select 'payment', payment_id::text from shop.payments
  where status in ('INTENT', 'UNKNOWN')
union all select 'refund', refund_id::text from shop.refunds where status in ('INTENT', 'UNKNOWN')
union all select kind, id from shop.due_work where kind = 'finish'
"""


class Broker:
    """A real ingress: takes every event with 202 and keeps it until the test wants it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.all: list[Message] = []
        broker = self

        class Ingress(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                message = ({k.lower(): v for k, v in self.headers.items()}, body)
                broker.messages.append(message)
                broker.all.append(message)
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Ingress)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def take(self) -> list[Message]:
        """What has come in since the last time."""
        taken, self.messages = self.messages, []
        return taken

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass
class Stage:
    """The shop, its broker and its provider, with the test as director."""

    shop: ShopUnderTest
    broker: Broker
    simulator: SimulatorProcess
    known_intents: int
    known_refunds: int
    client_ops: list[tuple[Any, ...]] = field(default_factory=list)
    poison: list[tuple[str, str]] = field(default_factory=list)

    # ------------------------------------------------------------ events

    def deliver(
        self, *, times: int = 1, shuffled_by: int | None = None, at_once: bool = False
    ) -> int:
        """Delivers all events, and those they cause, until none is left; returns how many."""
        delivered = 0
        for _ in range(ROUNDS_MAX):
            messages = self.broker.take() * times
            batch = [(m, name) for m in messages for name in consumers_of(_name(m))]
            if not batch:
                return delivered
            if shuffled_by is not None:
                random.Random(shuffled_by).shuffle(batch)
            if at_once:
                self._deliver_at_once(batch)
            else:
                for delivery in batch:
                    self.deliver_one(*delivery)
            delivered += len(batch)
        raise AssertionError("events never end")

    def _deliver_at_once(self, batch: Sequence[tuple[Message, str]]) -> None:
        """A delivery that has to wait too long is refused with 503 and comes again."""
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda delivery: self._post(*delivery), batch))
        for delivery, answer in zip(batch, answers, strict=True):
            if answer.status == 503:
                self.deliver_one(*delivery)
            else:
                assert answer.status == 204, answer

    def deliver_one(self, message: Message, consumer: str) -> None:
        answer = self._post(message, consumer)
        assert (answer.status, answer.body) == (204, b""), answer

    def _post(self, message: Message, consumer: str) -> Response:
        return self.shop.post_event(consumer, *message)

    def lose_events(self) -> None:
        """Whatever the broker accepted is gone."""
        self.broker.take()

    # ------------------------------------------------------------ timers

    def tick(self) -> None:
        """Everything is due, and the sweep comes by."""
        for statement in HASTEN:
            self.shop.sql(statement)
        answer = self.shop.tick("sweep")
        assert answer.status == 204, answer

    def timers_alone(self) -> None:
        """No event is delivered any more: ticks only, until every story rests or waits."""
        for _ in range(ROUNDS_MAX):
            self.lose_events()
            if not self.shop.sql(OPEN_STORIES):
                return
            self.tick()
        raise AssertionError(f"never at rest: {self.shop.sql(OPEN_STORIES)}")

    def come_to_rest(self) -> None:
        """Timers and events, until nothing is open and every event was taken."""
        for _ in range(ROUNDS_MAX):
            self.deliver()
            undone = self.shop.sql("select 1 from shop.outbox where done_at is null")
            if not undone and not self.shop.sql(OPEN_STORIES):
                return
            self.tick()
        raise AssertionError(f"never at rest: {self.shop.sql(OPEN_STORIES)}")

    def expire(self, order_id: str, *, hard: bool = False) -> None:
        """The order's time is over; nothing has swept it yet."""
        self.shop.sql(
            "update shop.orders set expires_at = now() - interval '1 second', hard_expires_at = "
            "case when %s then now() - interval '1 second' else hard_expires_at end "
            "where order_id = %s",
            hard,
            order_id,
        )

    def reconcile(self) -> None:
        """The provider's books are read now."""
        self.shop.sql("update shop.reconciliation set next_run_at = now()")
        self.tick()

    def notify(self, kind: str, key: str, amount: int, *, event_id: str = "") -> int:
        """Sends a notice as the provider signs it; the status it was answered with."""
        data = {"key": key, "amount_minor": amount, "currency": "KRW", "provider_ref": f"ch_{key}"}
        data |= {"status": kind.partition(".")[2], "charge_key": key}
        event = {"id": event_id or f"evt_{uuid4().hex}", "type": kind, "created": 0, "data": data}
        body = json.dumps(event).encode()
        now = int(time.time())
        digest = hmac.new(SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256)
        headers = {"webhook-signature": f"t={now},v1={digest.hexdigest()}"}
        return self.shop.call("POST", "/payments/webhook", raw=body, headers=headers).status

    # ------------------------------------------------------------ looking

    def order(self, order_id: str) -> dict[str, Any]:
        """The order with its newest payment, its refunds and its reservations."""
        (row,) = self.shop.sql(
            "select o.status, o.reason, array(select p.status || case when p.late then ' late' "
            "else '' end from shop.payments p where p.order_id = o.order_id order by p.attempt) "
            "as payments, array(select r.status from shop.refunds r join shop.payments p "
            "using (payment_id) where p.order_id = o.order_id order by r.created_at) as refunds, "
            "array(select r.status from shop.reservations r where r.order_id = o.order_id "
            "order by r.product_id) as stock from shop.orders o where order_id = %s",
            order_id,
        )
        return row

    def payment_key(self, order_id: str) -> str:
        (row,) = self.shop.sql(
            "select provider_key from shop.payments where order_id = %s "
            "order by attempt desc limit 1",
            order_id,
        )
        key: str = row["provider_key"]
        return key

    def alarms(self) -> list[str]:
        rows = self.shop.sql("select kind from shop.alarms order by kind")
        return [row["kind"] for row in rows]

    def due_now(self) -> list[str]:
        rows = self.shop.sql("select kind from shop.due_work where due_at <= now()")
        return [row["kind"] for row in rows]

    # ------------------------------------------------------------ invariants

    def outside(self) -> ExternalRecords:
        books = self.simulator.records()
        charges, refunds = provider_records(
            books["intents"][self.known_intents :], books["refunds"][self.known_refunds :]
        )
        return ExternalRecords(charges, refunds, tuple(self.client_ops), tuple(self.poison))


def assert_invariants(stage: Stage, *, at_rest: bool = True) -> None:
    """No invariant is broken; the provider's books are read before the snapshot."""
    found: list[Violation] = find_violations(stage.shop.admin_url, stage.outside(), at_rest=at_rest)
    assert not found, "\n".join(str(violation) for violation in found)
    for row in stage.shop.sql("select distinct source, type from shop.outbox"):
        spec = spec_of(row["source"].removeprefix("/shop/"))
        assert row["type"] in spec.emits, f"{spec.name} emits {row['type']} undeclared"


def assert_rests(stage: Stage) -> None:
    """All comes to rest, all invariants hold there, and nothing would wake a sleeping shop."""
    stage.come_to_rest()
    assert_invariants(stage)
    assert stage.due_now() == []


def together(*acts: Callable[[], Any]) -> list[Any]:
    """Starts all acts at one barrier, each in a thread of its own; their results in order."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        barrier.wait(10)
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result(60) for future in [pool.submit(run, act) for act in acts]]


def support_of(stage: Stage) -> Person:
    """Somebody of the support team."""
    return stage.shop.person("support")


def _name(message: Message) -> str:
    return message[0]["ce-type"].removeprefix("com.msashop.").rpartition(".v")[0]
