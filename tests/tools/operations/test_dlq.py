"""``shop dlq``: letters are shown whole and sent again as they came, as often as anybody likes."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from events import envelope
from events.vocabulary import class_of
from shop.adapters.signatures import Signer
from tests.harness import FlowHarness, Message, assert_invariants
from tests.tools.operations.conftest import Operator
from tests.waiting import wait_for

CHARGE = "http://shop-charge.shop.svc.cluster.local/events"
NOTES = {
    "ce-knativeerrordest": CHARGE,
    "ce-knativeerrorcode": "503",
    "ce-knativeerrordata": "bm90IG5vdw==",
}
WAITING = (
    "select 1 from pg_stat_activity where datname = current_database() "
    "and wait_event_type = 'Lock' and query like '%dead_letters%'"
)
ON_THE_WAY = {"host": "shop-dead-letter", "user-agent": "broker", "prefer": "reply"}


def _bury(flow: FlowHarness, message: Message) -> str:
    """What the broker does with an event that ran out of retries; the letter's id."""
    headers, body = message
    buried = {k: v for k, v in headers.items() if k.startswith("ce-") or k == "content-type"}
    answer = flow.shop.post_event("dead_letter", buried | NOTES | ON_THE_WAY, body)
    assert answer.status == 204
    (row,) = flow.shop.sql(
        "select dead_letter_id::text as id from shop.dead_letters where event_id = %s",
        headers["ce-id"],
    )
    letter_id: str = row["id"]
    return letter_id


def _buried_order(flow: FlowHarness) -> tuple[dict[str, Any], Message, str]:
    """An order whose charge event is a dead letter now."""
    order = flow.shop.person().order(flow.shop.product())
    (message,) = flow.broker.take()
    return order, message, _bury(flow, message)


def _is_open(flow: FlowHarness, letter_id: str) -> bool:
    (row,) = flow.shop.sql(
        "select replayed_at is null as open from shop.dead_letters where dead_letter_id = %s",
        letter_id,
    )
    return bool(row["open"])


def test_a_replay_sends_what_came_and_twice_is_like_once(
    flow: FlowHarness, caretaker: Operator
) -> None:
    order, message, letter_id = _buried_order(flow)

    first = caretaker.run("dlq", "replay", letter_id)

    assert (first.exit_code, _is_open(flow, letter_id)) == (0, False)
    (again,) = flow.broker.messages
    event = {k: v for k, v in message[0].items() if k.startswith("ce-") or k == "content-type"}
    sent = {k: v for k, v in again[0].items() if k.startswith("ce-") or k == "content-type"}
    assert (sent, again[1]) == (event, message[1])
    assert not {"prefer", "user-agent"} & set(again[0])
    flow.deliver()
    once = _state(flow, order["id"])
    assert once["order"]["status"] == "PAID"

    second = caretaker.run("dlq", "replay", letter_id)
    flow.deliver()

    assert second.exit_code == 0
    assert _state(flow, order["id"]) == once
    assert flow.simulator.captures(flow.payment_key(order["id"])) == 1
    flow.run_until_idle()
    assert_invariants(flow)


def _state(flow: FlowHarness, order_id: str) -> dict[str, Any]:
    """Every row of the order that an effect could touch."""
    return {
        "order": flow.shop.sql("select * from shop.orders where order_id = %s", order_id)[0],
        "stock": flow.shop.sql("select * from shop.stock order by product_id"),
        **{
            table: flow.shop.sql(f"select * from shop.{table} order by 1, 2, 3")
            for table in ("payments", "refunds", "ledger", "transitions", "inbox", "stock_moves")
        },
    }


def test_an_event_older_than_a_day_is_still_taken(flow: FlowHarness, caretaker: Operator) -> None:
    order = flow.shop.person().order(flow.shop.product())
    flow.broker.take()
    flow.shop.sql("update shop.outbox set created_at = created_at - interval '3 days'")
    (row,) = flow.shop.outbox()
    old = _signed(flow, row)
    letter_id = _bury(flow, old)
    unknown = _signed(flow, {**row, "event_id": uuid4()})
    assert flow.shop.post_event("charge", *unknown).error == "STALE_EVENT"

    assert caretaker.run("dlq", "replay", letter_id).exit_code == 0
    flow.deliver()

    assert flow.order_state(order["id"])["status"] == "PAID"


def _signed(flow: FlowHarness, row: Mapping[str, Any]) -> Message:
    """The event of an outbox row, as its function announced it."""
    event = class_of(row["type"]).from_data(row["data"])
    wrapped = envelope.wrap(
        event, id=str(row["event_id"]), source=row["source"], time=row["created_at"]
    )
    signer = Signer("ordering", flow.shop.secrets.event_keys["ordering"])
    return envelope.to_binary(signer.sign(wrapped))


def test_all_sends_what_waits_and_a_dry_run_sends_nothing(
    flow: FlowHarness, caretaker: Operator
) -> None:
    _, _, first = _buried_order(flow)
    _, _, second = _buried_order(flow)

    dry = caretaker.run("dlq", "replay", "--all", "--dry-run")

    assert dry.exit_code == 0
    assert [line.split(":")[0] for line in dry.stdout.splitlines()] == [first, second]
    assert flow.broker.messages == []
    assert _is_open(flow, first) and _is_open(flow, second)

    assert caretaker.run("dlq", "replay", "--all").exit_code == 0
    assert len(flow.broker.messages) == 2
    assert caretaker.run("dlq", "replay", "--all").stdout == "no letter waits\n"


def test_a_structured_letter_is_sent_as_its_event(flow: FlowHarness, caretaker: Operator) -> None:
    order = flow.shop.person().order(flow.shop.product())
    (message,) = flow.broker.take()
    binary = {k: v for k, v in message[0].items() if k.startswith("ce-") or k == "content-type"}
    headers, body = envelope.to_structured(envelope.parse(binary | NOTES, message[1]))
    assert flow.shop.post_event("dead_letter", headers, body).status == 204

    assert caretaker.run("dlq", "replay", "--all").exit_code == 0
    (again,) = flow.broker.messages
    assert again[1] == message[1]
    assert not any("knativeerror" in name for name in again[0])
    flow.deliver()

    assert flow.order_state(order["id"])["status"] == "PAID"


def test_a_letter_that_is_not_accepted_keeps_waiting(
    flow: FlowHarness, caretaker: Operator
) -> None:
    _, _, letter_id = _buried_order(flow)

    gone = caretaker.run("dlq", "replay", letter_id, BROKER_URL="http://127.0.0.1:1/")
    refused = caretaker.run("dlq", "replay", letter_id, "--to", f"{flow.simulator.url}/events")

    assert (gone.exit_code, refused.exit_code) == (1, 1)
    assert "ConnectionRefusedError" in gone.stdout
    assert "not accepted, status 40" in refused.stdout
    assert _is_open(flow, letter_id)


def test_a_letter_that_comes_back_while_it_is_sent_is_open_again(
    flow: FlowHarness, caretaker: Operator
) -> None:
    """The refusal has to wait for our mark to be committed: the row's lock decides the order."""
    _, message, letter_id = _buried_order(flow)
    with _refusing_at_once(flow, message) as url:
        assert caretaker.run("dlq", "replay", letter_id, "--to", url).exit_code == 0

    assert _is_open(flow, letter_id)


@contextmanager
def _refusing_at_once(flow: FlowHarness, message: Message) -> Generator[str]:
    """A broker that has given the event up, and waits to say so, before it answers 202."""
    burying = threading.Thread(target=_bury, args=(flow, message))

    class Ingress(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            burying.start()
            wait_for(lambda: flow.shop.sql(WAITING), "the refusal at the letter's lock")
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ingress)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
        burying.join(10)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_letter_in_somebody_elses_hands_is_left_to_them(
    flow: FlowHarness, caretaker: Operator
) -> None:
    _, _, letter_id = _buried_order(flow)
    with psycopg.connect(flow.shop.admin_url) as connection:
        connection.execute("select from shop.dead_letters for update")

        result = caretaker.run("dlq", "replay", letter_id)

    assert (result.exit_code, flow.broker.messages) == (1, [])
    assert "somebody else" in result.stdout


def test_letters_are_listed_and_shown_whole(flow: FlowHarness, caretaker: Operator) -> None:
    order, message, letter_id = _buried_order(flow)

    listed = caretaker.run("dlq", "list")
    shown = caretaker.run("dlq", "show", letter_id)
    as_json = json.loads(caretaker.run("dlq", "show", letter_id, "--json").stdout)

    assert listed.stdout.splitlines()[1].split()[:4] == [
        letter_id,
        "com.msashop.order.placed.v1",
        order["id"],
        "503",
    ]
    assert message[1].decode() in shown.stdout
    assert message[0]["ce-sig"] in shown.stdout
    assert as_json["body"] == message[1].decode()
    caretaker.run("dlq", "replay", letter_id)
    assert len(caretaker.run("dlq", "list").stdout.splitlines()) == 1
    assert len(caretaker.run("dlq", "list", "--replayed").stdout.splitlines()) == 2


def test_poison_cannot_steer_the_terminal(flow: FlowHarness, caretaker: Operator) -> None:
    _, message, _ = _buried_order(flow)
    poison = {**message[0], "ce-id": "p", "ce-subject": "%1B%5D0;owned%07"}
    flow.shop.post_event("dead_letter", poison, b"\x1b[2J{")
    rows = flow.shop.sql(
        "select dead_letter_id::text as id from shop.dead_letters where event_id = 'p'"
    )

    for row in rows:
        assert "\x1b" not in caretaker.run("dlq", "show", row["id"]).stdout
    assert "\x1b" not in caretaker.run("dlq", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("replay",), 2),
        (("replay", "--all", "0199aa00-0000-7000-8000-000000000000"), 2),
        (("replay", "no-id"), 2),
        (("replay", "0199aa00-0000-7000-8000-000000000000"), 1),
        (("show", "0199aa00-0000-7000-8000-000000000000"), 1),
    ],
)
def test_wrong_use_is_refused(caretaker: Operator, arguments: tuple[str, ...], status: int) -> None:
    assert caretaker.run("dlq", *arguments).exit_code == status


def test_a_place_that_is_no_address_is_refused(flow: FlowHarness, caretaker: Operator) -> None:
    _, _, letter_id = _buried_order(flow)

    assert caretaker.run("dlq", "replay", letter_id, BROKER_URL="").exit_code == 2
    assert _is_open(flow, letter_id)
