"""Knative's retry table, dead letters, durability and faults of the desk's broker."""

from __future__ import annotations

import asyncio
import sqlite3
from base64 import b64decode
from contextlib import closing
from pathlib import Path

import pytest

from tests.tools.local_platform.bench import FAST, ask, bench
from tests.waiting import wait_until
from tools.local_platform.broker import DeliveryRule, judge
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.http_messages import HttpResponse

RETRIED = (404, 408, 409, 429, 500, 502, 503, 504)
NOT_RETRIED = (300, 301, 400, 401, 403, 410, 413, 415, 422, 428)


@pytest.mark.parametrize("status", RETRIED)
def test_these_answers_are_retried(status: int) -> None:
    verdict = judge(HttpResponse(status, body=b"why"))

    assert (verdict.is_success, verdict.is_retried, verdict.code) == (False, True, status)


@pytest.mark.parametrize("status", NOT_RETRIED)
def test_these_answers_go_straight_to_the_dead_letters(status: int) -> None:
    verdict = judge(HttpResponse(status, body=b"why"))

    assert (verdict.is_success, verdict.is_retried, verdict.code) == (False, False, status)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_an_empty_success_is_an_acknowledgement(status: int) -> None:
    assert judge(HttpResponse(status)).is_success


def test_a_success_with_a_body_that_is_no_event_is_a_502() -> None:
    verdict = judge(HttpResponse(200, [(b"content-type", b"text/html")], b"OK"))

    assert (verdict.code, verdict.is_retried) == (502, True)


def test_a_success_with_an_event_is_a_reply() -> None:
    headers = [
        (b"ce-id", b"7"),
        (b"ce-source", b"/x"),
        (b"ce-type", b"t"),
        (b"ce-specversion", b"1.0"),
    ]

    verdict = judge(HttpResponse(200, [*headers, (b"content-type", b"application/json")], b"{}"))

    assert verdict.is_success
    assert verdict.reply is not None
    assert verdict.reply.id == "7"


def test_the_pauses_double_from_the_delay() -> None:
    rule = DeliveryRule()

    assert [rule.pause_after(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 32, 64]
    assert (rule.retries_max, rule.timeout_seconds) == (8, 45.0)


@pytest.mark.parametrize("status", ["404", "408", "409", "429", "500", "503", "body"])
def test_a_retried_event_is_delivered_again_until_it_is_taken(tmp_path: Path, status: str) -> None:
    async def story() -> None:
        async with bench(tmp_path) as desk:
            assert (await desk.announce(f"{status},{status},204")).status == 202
            await desk.settled()

            first, second, third = desk.events("taker")
            assert second["at"] - first["at"] >= FAST.pause_after(1)
            assert third["at"] - second["at"] >= FAST.pause_after(2)
            assert {e["body"] for e in (first, second, third)} == {'{"orderId":1}'}
            assert desk.events("letters") == []

    asyncio.run(story())


def test_an_event_that_is_refused_becomes_a_dead_letter_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as desk:
            await desk.announce("422", partitionkey="42")
            await desk.settled()

            assert len(desk.events("taker")) == 1
            (letter,) = desk.events("letters")
            attributes = letter["event"]
            assert attributes["knativeerrorcode"] == "422"
            assert attributes["knativeerrordest"] == "http://taker/events"
            assert b64decode(attributes["knativeerrordata"]) == b"x" * 1024
            assert (attributes["id"], attributes["source"]) == ("1", "/shop/test")
            assert attributes["partitionkey"] == "42"
            assert letter["body"] == '{"orderId":1}'

    asyncio.run(story())


def test_an_event_that_ran_out_of_retries_becomes_a_dead_letter(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as desk:
            await desk.announce("503")
            await desk.settled()

            assert len(desk.events("taker")) == 1 + FAST.retries_max
            assert [e["event"]["knativeerrorcode"] for e in desk.events("letters")] == ["503"]

    asyncio.run(story())


def test_no_answer_in_time_is_retried(tmp_path: Path) -> None:
    rule = DeliveryRule(retries_max=1, delay_seconds=0.01, timeout_seconds=0.7)

    async def story() -> None:
        async with bench(tmp_path, rule=rule) as desk:
            await desk.announce("hang,204")
            await desk.settled()

            assert len(desk.events("taker")) == 2
            assert desk.events("letters") == []

    asyncio.run(story())


def test_a_dead_letter_that_nobody_takes_stays_in_the_file(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as desk:
            await desk.announce("503", id="no letters")
            await desk.settled()

            assert len(desk.events("letters")) == 1 + FAST.retries_max
            assert desk.activity_log.counts["failed dead letters"] == 1

    asyncio.run(story())

    with closing(sqlite3.connect(tmp_path / "broker.sqlite")) as file:
        rows = file.execute("select target, state, is_dead_letter from deliveries").fetchall()
    assert rows == [("letters", "given up", 1)]


def test_what_is_undelivered_is_taken_up_after_a_restart(tmp_path: Path) -> None:
    slow = DeliveryRule(retries_max=3, delay_seconds=1.0, timeout_seconds=5)

    async def first_run() -> None:
        async with bench(tmp_path, rule=slow) as desk:
            await desk.announce("503,204")
            await wait_until(lambda: desk.activity_log.counts["retries"] == 1)

    async def second_run() -> None:
        async with bench(tmp_path, rule=slow) as desk:
            assert desk.broker.pending == 1
            await desk.settled()
            assert len(desk.events("taker")) == 2

    async def third_run() -> None:
        async with bench(tmp_path, rule=slow) as desk:
            assert desk.broker.pending == 0

    for run in (first_run, second_run, third_run):
        asyncio.run(run())


def test_the_ingress_takes_structured_events_and_refuses_what_is_none(tmp_path: Path) -> None:
    event = (
        b'{"specversion":"1.0","id":"s","source":"/shop/test","subject":"204",'
        b'"type":"com.msashop.order.placed.v1","data":{"a":1}}'
    )
    structured = {"content_type": "application/cloudevents+json"}
    batch = {"content_type": "application/cloudevents-batch+json"}

    async def story() -> None:
        async with bench(tmp_path) as desk:
            port = desk.broker_port
            assert (await ask(port, "POST", "/", event, **structured)).status == 202
            assert (await ask(port, "POST", "/", b"[]", **batch)).status == 415
            assert (await desk.announce(specversion="0.3")).status == 400
            assert (await desk.announce(id="")).status == 400
            assert (await ask(port, "POST", "/x", event, **structured)).status == 404
            assert (await ask(port, "GET", "/")).status == 405
            await desk.settled()
            assert [e["event"]["id"] for e in desk.events("taker")] == ["s"]

    asyncio.run(story())


def test_an_event_goes_only_to_those_who_subscribe_in_any_version(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as desk:
            await desk.announce(id="a", type="com.msashop.order.placed.v2")
            await desk.announce(id="b", type="com.msashop.order.placed.late.v1")
            await desk.announce(id="c", type="com.example.order.placed.v1")
            await desk.settled()

            assert [e["event"]["id"] for e in desk.events("taker")] == ["a"]

    asyncio.run(story())


def test_duplicates_come_one_to_four_times_more(tmp_path: Path) -> None:
    async def story() -> None:
        faults = DeliveryFaults(duplicate=1.0, seed=1, late_seconds_max=0.2)
        async with bench(tmp_path, faults=faults) as desk:
            for number in range(10):
                await desk.announce(id=str(number))
            await desk.settled()

            ids = [event["event"]["id"] for event in desk.events("taker")]
            assert {2 <= ids.count(str(number)) <= 5 for number in range(10)} == {True}
            assert len(ids) == 10 + desk.activity_log.counts["duplicates"]

    asyncio.run(story())


def test_lost_events_are_accepted_and_forgotten(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path, faults=DeliveryFaults(lose=0.5, seed=1)) as desk:
            answers = [await desk.announce(id=str(number)) for number in range(40)]
            await desk.settled()

            assert {answer.status for answer in answers} == {202}
            lost = desk.activity_log.counts["lost"]
            assert 10 <= lost <= 30
            assert len(desk.events("taker")) == 40 - lost

    asyncio.run(story())


def test_reordered_events_come_in_another_order(tmp_path: Path) -> None:
    async def story() -> None:
        faults = DeliveryFaults(reorder=0.5, seed=1, late_seconds_max=0.5)
        async with bench(tmp_path, faults=faults) as desk:
            for number in range(20):
                await desk.announce(id=f"{number:02}")
            await desk.settled()

            ids = [event["event"]["id"] for event in desk.events("taker")]
            assert sorted(ids) == [f"{number:02}" for number in range(20)]
            assert ids != sorted(ids)

    asyncio.run(story())


def test_the_same_seed_gives_the_same_faults() -> None:
    def fates(seed: int) -> list[tuple[bool, list[float], float | None]]:
        faults = DeliveryFaults(duplicate=0.5, reorder=0.5, lose=0.5, kill=0.5, seed=seed)
        return [
            (faults.loses("t"), faults.delays("t", "f"), faults.kill_after("f")) for _ in range(50)
        ]

    assert fates(1) == fates(1)
    assert fates(1) != fates(2)


def test_without_faults_nothing_happens() -> None:
    faults = DeliveryFaults()

    fates = {
        (faults.loses("t"), *faults.delays("t", "f"), faults.kill_after("f")) for _ in range(99)
    }

    assert fates == {(False, 0.0, None)}
