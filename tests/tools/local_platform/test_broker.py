"""Retries, dead letters, durability and injected faults of the broker, as in Knative."""

from __future__ import annotations

import asyncio
import sqlite3
from base64 import b64decode
from contextlib import closing
from pathlib import Path

import pytest

from tests.tools.local_platform.platform_under_test import FAST, running_platform, send
from tests.waiting import wait_until
from tools.local_platform.broker import DeliveryRule, LocalBrokerClass, delivery_result
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.http_messages import HttpResponse

RETRIED = (404, 408, 409, 429, 500, 502, 503, 504)
NOT_RETRIED = (300, 301, 400, 401, 403, 410, 413, 415, 422, 428)


@pytest.mark.parametrize("status", RETRIED)
def test_retryable_status_is_retried(status: int) -> None:
    result = delivery_result(HttpResponse(status, body=b"why"))

    assert (result.is_success, result.is_retried, result.code) == (False, True, status)


@pytest.mark.parametrize("status", NOT_RETRIED)
def test_other_error_status_is_not_retried(status: int) -> None:
    result = delivery_result(HttpResponse(status, body=b"why"))

    assert (result.is_success, result.is_retried, result.code) == (False, False, status)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_empty_2xx_is_a_success(status: int) -> None:
    assert delivery_result(HttpResponse(status)).is_success


def test_2xx_with_a_body_that_is_no_event_counts_as_502() -> None:
    result = delivery_result(HttpResponse(200, [(b"content-type", b"text/html")], b"OK"))

    assert (result.code, result.is_retried) == (502, True)


def test_2xx_with_an_event_is_a_reply() -> None:
    headers = [
        (b"ce-id", b"7"),
        (b"ce-source", b"/x"),
        (b"ce-type", b"t"),
        (b"ce-specversion", b"1.0"),
    ]

    result = delivery_result(
        HttpResponse(200, [*headers, (b"content-type", b"application/json")], b"{}")
    )

    assert result.is_success
    assert result.reply is not None
    assert result.reply.id == "7"


def test_pauses_double_from_the_initial_delay() -> None:
    rule = DeliveryRule()

    assert [rule.pause_after(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 32, 64]
    assert (rule.retries_max, rule.timeout_seconds) == (8, 45.0)


@pytest.mark.parametrize("status", ["404", "408", "409", "429", "500", "503", "body"])
def test_event_is_redelivered_until_it_succeeds(tmp_path: Path, status: str) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            assert (await platform.send_event(f"{status},{status},204")).status == 202
            await platform.deliver_all()

            first, second, third = platform.events("subscriber")
            assert second["at"] - first["at"] >= FAST.pause_after(1)
            assert third["at"] - second["at"] >= FAST.pause_after(2)
            assert {e["body"] for e in (first, second, third)} == {'{"orderId":1}'}
            assert platform.events("dead_letters") == []

    asyncio.run(scenario())


def test_event_with_a_client_error_becomes_a_dead_letter_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            await platform.send_event("422", partitionkey="42")
            await platform.deliver_all()

            assert len(platform.events("subscriber")) == 1
            (letter,) = platform.events("dead_letters")
            attributes = letter["event"]
            assert attributes["knativeerrorcode"] == "422"
            assert attributes["knativeerrordest"] == "http://subscriber/events"
            assert b64decode(attributes["knativeerrordata"]) == b"x" * 768  # 1,024 in base64
            assert (attributes["id"], attributes["source"]) == ("1", "/shop/test")
            assert attributes["partitionkey"] == "42"
            assert letter["body"] == '{"orderId":1}'

    asyncio.run(scenario())


def test_event_without_retries_left_becomes_a_dead_letter(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            await platform.send_event("503")
            await platform.deliver_all()

            assert len(platform.events("subscriber")) == 1 + FAST.retries_max
            assert [e["event"]["knativeerrorcode"] for e in platform.events("dead_letters")] == [
                "503"
            ]

    asyncio.run(scenario())


def test_delivery_timeout_is_retried(tmp_path: Path) -> None:
    rule = DeliveryRule(retries_max=1, delay_seconds=0.01, timeout_seconds=0.7)

    async def scenario() -> None:
        async with running_platform(tmp_path, rule=rule) as platform:
            await platform.send_event("hang,204")
            await platform.deliver_all()

            assert len(platform.events("subscriber")) == 2
            assert platform.events("dead_letters") == []

    asyncio.run(scenario())


def test_undeliverable_dead_letter_stays_in_the_store(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            await platform.send_event("503", id="undeliverable")
            await platform.deliver_all()

            assert len(platform.events("dead_letters")) == 1 + FAST.retries_max
            assert platform.activity_log.counts["failed dead letters"] == 1

    asyncio.run(scenario())

    with closing(sqlite3.connect(tmp_path / "broker.sqlite")) as file:
        rows = file.execute("select target, state, is_dead_letter from deliveries").fetchall()
    assert rows == [("dead_letters", "given up", 1)]


def test_restart_continues_unfinished_deliveries(tmp_path: Path) -> None:
    slow = DeliveryRule(retries_max=3, delay_seconds=0.5, timeout_seconds=5)

    async def first_run() -> None:
        async with running_platform(tmp_path, rule=slow) as platform:
            await platform.send_event("503,204")
            await wait_until(lambda: platform.activity_log.counts["retries"] == 1)

    async def second_run() -> None:
        async with running_platform(tmp_path, rule=slow) as platform:
            assert platform.broker.pending == 1
            await platform.deliver_all()
            assert len(platform.events("subscriber")) == 2

    async def third_run() -> None:
        async with running_platform(tmp_path, rule=slow) as platform:
            assert platform.broker.pending == 0

    for run in (first_run, second_run, third_run):
        asyncio.run(run())


def test_ingress_accepts_structured_events_and_rejects_others(tmp_path: Path) -> None:
    event = (
        b'{"specversion":"1.0","id":"s","source":"/shop/test","subject":"204",'
        b'"type":"com.msashop.order.placed.v1","data":{"a":1}}'
    )
    structured = {"content_type": "application/cloudevents+json"}
    batch = {"content_type": "application/cloudevents-batch+json"}

    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            port = platform.broker_port
            assert (await send(port, "POST", "/", event, structured)).status == 202
            assert (await send(port, "POST", "/", b"[]", batch)).status == 415
            assert (await platform.send_event(specversion="0.3")).status == 400
            assert (await platform.send_event(id="")).status == 400
            assert (await send(port, "POST", "/x", event, structured)).status == 404
            assert (await send(port, "GET", "/")).status == 405
            await platform.deliver_all()
            assert [e["event"]["id"] for e in platform.events("subscriber")] == ["s"]

    asyncio.run(scenario())


def test_event_is_delivered_only_to_subscribers_of_its_type_in_any_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            await platform.send_event(id="a", type="com.msashop.order.placed.v2")
            await platform.send_event(id="b", type="com.msashop.order.placed.late.v1")
            await platform.send_event(id="c", type="com.example.order.placed.v1")
            await platform.deliver_all()

            assert [e["event"]["id"] for e in platform.events("subscriber")] == ["a"]

    asyncio.run(scenario())


def test_duplicate_fault_delivers_one_to_four_copies(tmp_path: Path) -> None:
    async def scenario() -> None:
        faults = DeliveryFaults(duplicate=1.0, seed=1, late_seconds_max=0.2)
        async with running_platform(tmp_path, faults=faults) as platform:
            for number in range(10):
                await platform.send_event(id=str(number))
            await platform.deliver_all()

            ids = [event["event"]["id"] for event in platform.events("subscriber")]
            assert {2 <= ids.count(str(number)) <= 5 for number in range(10)} == {True}
            assert len(ids) == 10 + platform.activity_log.counts["duplicates"]

    asyncio.run(scenario())


def test_lose_fault_accepts_events_without_delivering_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, faults=DeliveryFaults(lose=0.5, seed=1)) as platform:
            responses = [await platform.send_event(id=str(number)) for number in range(40)]
            await platform.deliver_all()

            assert {response.status for response in responses} == {202}
            lost = platform.activity_log.counts["lost"]
            assert 10 <= lost <= 30
            assert len(platform.events("subscriber")) == 40 - lost

    asyncio.run(scenario())


def test_reorder_fault_changes_the_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        faults = DeliveryFaults(reorder=0.5, seed=1, late_seconds_max=0.5)
        async with running_platform(tmp_path, faults=faults) as platform:
            for number in range(20):
                await platform.send_event(id=f"{number:02}")
            await platform.deliver_all()

            ids = [event["event"]["id"] for event in platform.events("subscriber")]
            assert sorted(ids) == [f"{number:02}" for number in range(20)]
            assert ids != sorted(ids)

    asyncio.run(scenario())


def test_same_seed_gives_the_same_faults() -> None:
    def drawn(seed: int) -> list[tuple[bool, list[float], float | None]]:
        faults = DeliveryFaults(duplicate=0.5, reorder=0.5, lose=0.5, kill=0.5, seed=seed)
        return [
            (faults.loses("t"), faults.delays("t", "f"), faults.kill_after("f")) for _ in range(50)
        ]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_no_probabilities_give_no_faults() -> None:
    faults = DeliveryFaults()

    drawn = {
        (faults.loses("t"), *faults.delays("t", "f"), faults.kill_after("f")) for _ in range(99)
    }

    assert drawn == {(False, 0.0, None)}


# ---------------------------------------------------------------- class imc


def test_request_of_the_publisher_lasts_until_the_last_retry(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, broker_class=LocalBrokerClass.IMC) as platform:
            assert (await platform.send_event("503,503,204")).status == 202

            assert len(platform.events("subscriber")) == 3
            assert platform.broker.pending == 0

    asyncio.run(scenario())


def test_hang_up_of_the_publisher_cancels_retries_and_the_dead_letter(tmp_path: Path) -> None:
    slow = DeliveryRule(retries_max=1, delay_seconds=0.5, timeout_seconds=5)

    async def scenario() -> None:
        async with running_platform(
            tmp_path, rule=slow, broker_class=LocalBrokerClass.IMC
        ) as platform:
            request = asyncio.ensure_future(platform.send_event("503"))
            await wait_until(lambda: platform.activity_log.counts["retries"] == 1)
            request.cancel()
            await wait_until(lambda: platform.activity_log.counts["hang-ups"] == 1)
            await wait_until(lambda: platform.broker.pending == 0)

            assert len(platform.events("subscriber")) == 1
            assert platform.events("dead_letters") == []

    asyncio.run(scenario())


def test_dead_letter_is_delivered_while_the_publisher_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, broker_class=LocalBrokerClass.IMC) as platform:
            assert (await platform.send_event("422")).status == 202

            (letter,) = platform.events("dead_letters")
            assert letter["event"]["knativeerrorcode"] == "422"
            assert letter["event"]["knativebrokerttl"] == "255"
            assert "knativearrivaltime" in letter["event"]

    asyncio.run(scenario())


def test_publisher_gets_500_when_the_dead_letter_fails_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, broker_class=LocalBrokerClass.IMC) as platform:
            assert (await platform.send_event("422,503", id="undeliverable")).status == 500

    asyncio.run(scenario())


def test_dead_letter_after_a_body_that_is_no_event_does_not_say_what_failed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, broker_class=LocalBrokerClass.IMC) as platform:
            assert (await platform.send_event("body")).status == 202

            (letter,) = platform.events("dead_letters")
            assert [name for name in letter["event"] if name.startswith("knativeerror")] == []

    asyncio.run(scenario())
