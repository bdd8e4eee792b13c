"""``shop dlq``: dead letters are listed, shown, and replayed any number of times."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from events import envelope
from events.vocabulary import class_of
from shop.adapters.signatures import Signer
from tests.functions.test_dead_letter import send as send_dead_letter
from tests.harness import FlowHarness, Message, assert_invariants
from tests.tools.operations.conftest import CommandLine
from tests.waiting import wait_for
from tools.operations import dead_letters

CHARGE = "http://shop-charge.shop.svc.cluster.local/events"
FAILURE_HEADERS = {
    "ce-knativeerrordest": CHARGE,
    "ce-knativeerrorcode": "503",
    "ce-knativeerrordata": "bm90IG5vdw==",
    "ce-knativearrivaltime": "2026-11-28T12:00:00.123Z",
    "ce-knativebrokerttl": "254",
}
DROPPED = "dropped_at = now(), dropped_reason = 'test'"
TRANSPORT_HEADERS = {"host": "shop-dead-letter", "user-agent": "broker", "prefer": "reply"}


def _store_dead_letter(flow: FlowHarness, message: Message) -> str:
    """Delivers an event to dead_letter as the broker does after the last retry; the letter's id."""
    headers, body = message
    event_headers = {k: v for k, v in headers.items() if k.startswith("ce-") or k == "content-type"}
    response = flow.shop.post_event(
        "dead_letter", event_headers | FAILURE_HEADERS | TRANSPORT_HEADERS, body
    )
    assert response.status == 204
    (row,) = flow.shop.sql(
        "select dead_letter_id::text as id from shop.dead_letters where event_id = %s",
        headers["ce-id"],
    )
    letter_id: str = row["id"]
    return letter_id


def _order_with_dead_letter(flow: FlowHarness) -> tuple[dict[str, Any], Message, str]:
    """An order whose event for charge is a dead letter."""
    order = flow.shop.person().order(flow.shop.product())
    (message,) = flow.broker.take()
    return order, message, _store_dead_letter(flow, message)


def _is_open(flow: FlowHarness, letter_id: str) -> bool:
    (row,) = flow.shop.sql(
        "select replayed_at is null as open from shop.dead_letters where dead_letter_id = %s",
        letter_id,
    )
    return bool(row["open"])


def test_replay_sends_the_original_event_and_a_second_has_no_effect(
    flow: FlowHarness, operator: CommandLine
) -> None:
    order, message, letter_id = _order_with_dead_letter(flow)

    first = operator.run("dlq", "replay", letter_id)

    assert (first.exit_code, _is_open(flow, letter_id)) == (0, False)
    (again,) = flow.broker.messages
    event = {k: v for k, v in message[0].items() if k.startswith("ce-") or k == "content-type"}
    sent = {k: v for k, v in again[0].items() if k.startswith("ce-") or k == "content-type"}
    assert (sent, again[1]) == (event, message[1])
    assert not {"prefer", "user-agent"} & set(again[0])
    flow.deliver()
    once = _state(flow, order["id"])
    assert once["order"]["status"] == "PAID"

    second = operator.run("dlq", "replay", letter_id)
    flow.deliver()

    assert second.exit_code == 0
    assert _state(flow, order["id"]) == once
    assert flow.simulator.captures(flow.payment_key(order["id"])) == 1
    flow.run_until_idle()
    assert_invariants(flow)


def _state(flow: FlowHarness, order_id: str) -> dict[str, Any]:
    """The rows of every table that processing the event writes."""
    return {
        "order": flow.shop.sql("select * from shop.orders where order_id = %s", order_id)[0],
        "stock": flow.shop.sql("select * from shop.stock order by product_id"),
        **{
            table: flow.shop.sql(f"select * from shop.{table} order by 1, 2, 3")
            for table in ("payments", "refunds", "ledger", "transitions", "inbox", "stock_moves")
        },
    }


def test_replayed_event_older_than_a_day_is_accepted(
    flow: FlowHarness, operator: CommandLine
) -> None:
    order = flow.shop.person().order(flow.shop.product())
    flow.broker.take()
    flow.shop.sql("update shop.outbox set created_at = created_at - interval '3 days'")
    (row,) = flow.shop.outbox()
    old = _signed(flow, row)
    letter_id = _store_dead_letter(flow, old)
    unknown = _signed(flow, {**row, "event_id": uuid4()})
    assert flow.shop.post_event("charge", *unknown).error == "STALE_EVENT"

    assert operator.run("dlq", "replay", letter_id).exit_code == 0
    flow.deliver()

    assert flow.order_state(order["id"])["status"] == "PAID"


def _signed(flow: FlowHarness, row: Mapping[str, Any]) -> Message:
    """The signed event of an outbox row."""
    event = class_of(row["type"]).from_data(row["data"])
    wrapped = envelope.wrap(
        event, id=str(row["event_id"]), source=row["source"], time=row["created_at"]
    )
    signer = Signer("ordering", flow.shop.secrets.event_keys["ordering"])
    return envelope.to_binary(signer.sign(wrapped))


def test_all_sends_open_letters_and_dry_run_sends_nothing(
    flow: FlowHarness, operator: CommandLine
) -> None:
    _, _, first = _order_with_dead_letter(flow)
    _, _, second = _order_with_dead_letter(flow)

    dry = operator.run("dlq", "replay", "--all", "--dry-run")

    assert dry.exit_code == 0
    assert [line.split(":")[0] for line in dry.stdout.splitlines()] == [first, second]
    assert flow.broker.messages == []
    assert _is_open(flow, first) and _is_open(flow, second)

    assert operator.run("dlq", "replay", "--all").exit_code == 0
    assert len(flow.broker.messages) == 2
    assert operator.run("dlq", "replay", "--all").stdout == "no open dead letters\n"


def test_structured_event_is_replayed_in_binary_mode(
    flow: FlowHarness, operator: CommandLine
) -> None:
    order = flow.shop.person().order(flow.shop.product())
    (message,) = flow.broker.take()
    binary = {k: v for k, v in message[0].items() if k.startswith("ce-") or k == "content-type"}
    headers, body = envelope.to_structured(envelope.parse(binary | FAILURE_HEADERS, message[1]))
    assert flow.shop.post_event("dead_letter", headers, body).status == 204

    assert operator.run("dlq", "replay", "--all").exit_code == 0
    (again,) = flow.broker.messages
    assert again[1] == message[1]
    assert not any("knative" in name for name in again[0])
    flow.deliver()

    assert flow.order_state(order["id"])["status"] == "PAID"


def test_rejected_replay_leaves_the_letter_open(flow: FlowHarness, operator: CommandLine) -> None:
    _, _, letter_id = _order_with_dead_letter(flow)

    unreachable = operator.run("dlq", "replay", letter_id, BROKER_URL="http://127.0.0.1:1/")
    rejected = operator.run("dlq", "replay", letter_id, "--to", f"{flow.simulator.url}/events")

    assert (unreachable.exit_code, rejected.exit_code) == (1, 1)
    assert "ConnectionRefusedError" in unreachable.stdout
    assert "not accepted, status 40" in rejected.stdout
    assert _is_open(flow, letter_id)


def test_letter_stored_again_during_its_replay_stays_open(
    flow: FlowHarness, operator: CommandLine
) -> None:
    """A broker of class imc stores the dead letter before it responds; no lock may stop it."""
    _, message, letter_id = _order_with_dead_letter(flow)
    with _broker(lambda: _store_dead_letter(flow, message)) as url:
        result = operator.run("dlq", "replay", letter_id, "--to", url)

    assert (result.exit_code, _is_open(flow, letter_id)) == (1, True)
    assert "failed again" in result.stdout


def test_letter_dropped_during_its_replay_stays_dropped(
    flow: FlowHarness, operator: CommandLine
) -> None:
    _, _, letter_id = _order_with_dead_letter(flow)
    drop = f"update shop.dead_letters set {DROPPED} where dead_letter_id = %s"
    with _broker(lambda: flow.shop.sql(drop, letter_id)) as url:
        result = operator.run("dlq", "replay", letter_id, "--to", url)

    assert (result.exit_code, _is_open(flow, letter_id)) == (1, True)
    assert "another operator closed it" in result.stdout


def test_replay_waits_for_a_delivery_longer_than_for_a_connection(
    flow: FlowHarness, operator: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, letter_id = _order_with_dead_letter(flow)
    monkeypatch.setattr("tools.tick.CONNECT_SECONDS", 0.1)
    enough = time.monotonic() + 0.3
    with _broker(lambda: wait_for(lambda: time.monotonic() > enough, "more time")) as url:
        result = operator.run("dlq", "replay", letter_id, "--to", url)

    assert (result.exit_code, _is_open(flow, letter_id)) == (0, False)
    assert dead_letters.DELIVERY_SECONDS_MAX == 900.0


def test_replay_sends_the_token_of_the_broker(
    flow: FlowHarness, operator: CommandLine, tmp_path: Path
) -> None:
    _, _, letter_id = _order_with_dead_letter(flow)
    (tmp_path / "token").write_text("broker-token")

    result = operator.run("dlq", "replay", letter_id, BROKER_TOKEN_PATH=str(tmp_path / "token"))

    assert result.exit_code == 0
    assert flow.broker.messages[0][0]["authorization"] == "Bearer broker-token"


@contextmanager
def _broker(deliver: Callable[[], object]) -> Generator[str]:
    """The URL of a broker that responds 202 when ``deliver`` has returned."""

    class Ingress(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            deliver()
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ingress)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_letter_is_listed_and_shown_with_all_fields(
    flow: FlowHarness, operator: CommandLine
) -> None:
    order, message, letter_id = _order_with_dead_letter(flow)

    listed = operator.run("dlq", "list")
    shown = operator.run("dlq", "show", letter_id)
    as_json = json.loads(operator.run("dlq", "show", letter_id, "--json").stdout)

    assert listed.stdout.splitlines()[1].split()[:4] == [
        letter_id,
        "com.msashop.order.placed.v1",
        order["id"],
        "503",
    ]
    assert message[1].decode() in shown.stdout
    assert message[0]["ce-sig"] in shown.stdout
    assert as_json["body"] == message[1].decode()
    operator.run("dlq", "replay", letter_id)
    assert len(operator.run("dlq", "list").stdout.splitlines()) == 1
    assert len(operator.run("dlq", "list", "--closed").stdout.splitlines()) == 2


def test_dropped_letter_is_closed_with_its_reason_and_its_alert_is_resolved(
    flow: FlowHarness, operator: CommandLine, auditor: CommandLine
) -> None:
    order, _, letter_id = _order_with_dead_letter(flow)
    flow.run_until_idle()
    assert _q09(auditor) == "broken"

    dropped = operator.run("dlq", "drop", letter_id, "--reason", "sent by a test; Kim decided")
    again = operator.run("dlq", "drop", letter_id, "--reason", "twice")

    assert (dropped.exit_code, dropped.stdout) == (0, f"{letter_id}: dropped\n")
    assert (again.exit_code, again.stdout) == (1, f"{letter_id}: is not open\n")
    assert _q09(auditor) == "holds"
    assert _open_alerts(flow) == []
    assert len(operator.run("dlq", "list").stdout.splitlines()) == 1
    (listed,) = json.loads(operator.run("dlq", "list", "--closed", "--json").stdout)
    shown = json.loads(operator.run("dlq", "show", letter_id, "--json").stdout)
    assert listed["dropped_at"] == shown["dropped_at"]
    assert shown["dropped_reason"] == "sent by a test; Kim decided"
    assert "dropped: sent by a test" in auditor.run("order", "explain", order["id"]).stdout
    assert operator.run("dlq", "replay", "--all").stdout == "no open dead letters\n"


def _open_alerts(flow: FlowHarness) -> list[str]:
    """The kinds of the operator alerts that are not resolved."""
    return [
        row["kind"]
        for row in flow.shop.sql("select kind from shop.alarms where resolved_at is null")
    ]


def _q09(auditor: CommandLine) -> str:
    """The state of the invariant about open dead letters."""
    results = json.loads(auditor.run("check", "--at-rest", "--json").stdout)
    (state,) = [result["state"] for result in results if result["id"] == "Q-09"]
    return str(state)


def test_alert_stays_open_while_one_letter_of_the_event_is_open(
    flow: FlowHarness, operator: CommandLine
) -> None:
    send_dead_letter(flow.shop)
    send_dead_letter(flow.shop, headers={"ce-knativeerrordest": "http://shop-refund/events"})
    rows = flow.shop.sql("select dead_letter_id::text as id from shop.dead_letters")

    states: list[list[str]] = []
    for row in rows:
        assert operator.run("dlq", "drop", row["id"], "--reason", "poison").exit_code == 0
        states.append(_open_alerts(flow))

    assert states == [["dead_letter"], []]


def test_dropped_letter_that_is_stored_again_stays_dropped_and_can_be_replayed(
    flow: FlowHarness, operator: CommandLine
) -> None:
    _, message, letter_id = _order_with_dead_letter(flow)
    assert operator.run("dlq", "drop", letter_id, "--reason", "no").exit_code == 0

    _store_dead_letter(flow, message)
    replayed = operator.run("dlq", "replay", letter_id, "--json")

    assert json.loads(replayed.stdout)[0]["done"] is True
    (row,) = flow.shop.sql("select replayed_at, dropped_at, dropped_reason from shop.dead_letters")
    assert row["replayed_at"] is not None
    assert (row["dropped_at"], row["dropped_reason"]) == (None, None)


@pytest.mark.parametrize(
    ("data", "response"),
    [
        (b64encode(b'{"error": "BAD_EVENT", "status": 422}').decode(), ["BAD_EVENT", "422"]),
        (b64encode(b'{"error": "BAD_EV').decode(), ['{"error": "BAD_EV']),
        (b64encode("상품".encode()).decode(), ["상품"]),
        ("no base64!", ["no base64!"]),
    ],
    ids=["JSON", "cut off", "text", "as sent"],
)
def test_show_decodes_the_response_of_the_consumer(
    flow: FlowHarness, operator: CommandLine, data: str, response: list[str]
) -> None:
    send_dead_letter(flow.shop, headers={"ce-knativeerrordata": data})
    (row,) = flow.shop.sql("select dead_letter_id::text as id from shop.dead_letters")

    shown = operator.run("dlq", "show", row["id"])

    lines = [line for line in shown.stdout.splitlines() if line.startswith("response")]
    assert all(any(text in line for line in lines) for text in response)


def test_control_characters_are_escaped_in_output(flow: FlowHarness, operator: CommandLine) -> None:
    sent = send_dead_letter(flow.shop, b"\x1b[2J{", id="p")
    assert sent.status == 204
    rows = flow.shop.sql(
        "select dead_letter_id::text as id from shop.dead_letters where event_id = 'p'"
    )

    assert len(rows) == 1
    for row in rows:
        assert "\x1b" not in operator.run("dlq", "show", row["id"]).stdout
    assert "\x1b" not in operator.run("dlq", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("replay",), 2),
        (("replay", "--all", "0199aa00-0000-7000-8000-000000000000"), 2),
        (("replay", "no-id"), 2),
        (("replay", "0199aa00-0000-7000-8000-000000000000"), 1),
        (("show", "0199aa00-0000-7000-8000-000000000000"), 1),
        (("drop", "0199aa00-0000-7000-8000-000000000000", "--reason", "gone"), 1),
        (("drop", "0199aa00-0000-7000-8000-000000000000"), 2),
        (("drop", "0199aa00-0000-7000-8000-000000000000", "--reason", " "), 2),
        (("drop", "no-id", "--reason", "gone"), 2),
    ],
)
def test_invalid_arguments_exit_2_and_unknown_ids_exit_1(
    operator: CommandLine, arguments: tuple[str, ...], status: int
) -> None:
    assert operator.run("dlq", *arguments).exit_code == status


def test_invalid_broker_url_exits_2(flow: FlowHarness, operator: CommandLine) -> None:
    _, _, letter_id = _order_with_dead_letter(flow)

    assert operator.run("dlq", "replay", letter_id, BROKER_URL="").exit_code == 2
    assert _is_open(flow, letter_id)
