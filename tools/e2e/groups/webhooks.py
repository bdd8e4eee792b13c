"""Webhooks of others: events of orders arrive at a receiver of this run, signed, and in the end.

The receiver is a server in this process.  A shop that allows only public addresses sends it
nothing, which is checked instead; WEBHOOK_NETWORKS_ALLOWED of the local platform allows it.  For a
shop on another machine ``E2E_RECEIVER_HOST`` is the name of this one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tools.e2e.client import JsonObject
from tools.e2e.context import ScenarioContext, expect, unique
from tools.e2e.scenario import Scenario
from tools.webhook_receiver import Behaviour, Receiver, running_receiver

# Without KEDA a tick comes every five minutes.
ARRIVAL_SECONDS = 330.0
POLL_SECONDS = 1.0


def webhook_is_created_changed_and_deleted(context: ScenarioContext) -> None:
    """A secret is shown once; changes need the present state; http is checked as an address is."""
    admin, url = context.admin(), f"https://hooks.example.com/{unique()}"
    body = {"url": url, "eventTypes": ["order.paid"]}
    forbidden = context.post("/admin/webhooks", body, context.customer(1))
    context.check.problem("a customer adds no webhook: 403", forbidden, 403)
    made = expect(context.post("/admin/webhooks", body, admin), 201)
    path = f"/admin/webhooks/{made.json()['id']}"
    context.check.that("it has a secret", made.json()["secret"].startswith("whsec_"), made.json())
    again = context.post("/admin/webhooks", body, admin)
    context.check.problem("the same address answers 409", again, 409)
    seen = expect(context.get(path, admin), 200)
    context.check.that("the secret is not shown again", "secret" not in seen.json(), seen.json())
    change = {"state": "DISABLED"}
    blind = context.write("PATCH", path, change, admin)
    context.check.problem("a change without If-Match answers 428", blind, 428)
    changed = context.write("PATCH", path, change, admin, if_match=seen.headers["etag"])
    context.check.equal("it is disabled", changed.json()["disabledBy"], "ADMINISTRATOR")
    stale = context.write("PATCH", path, change, admin, if_match=seen.headers["etag"])
    context.check.problem("a stale change answers 412", stale, 412)
    bad = context.post("/admin/webhooks", {"url": "x", "eventTypes": []}, admin)
    context.check.problem("an invalid webhook answers 422", bad, 422)
    deleted = context.write("DELETE", path, None, admin)
    context.check.status("a deletion answers 204", deleted, 204)
    context.check.problem("then it is missing", context.get(path, admin), 404)


def address_that_is_not_public_gets_no_request(context: ScenarioContext) -> None:
    """The metadata service of a cloud is not asked."""
    admin = context.admin()
    body = {"url": f"https://169.254.169.254/{unique()}", "eventTypes": ["order.paid"]}
    made = expect(context.post("/admin/webhooks", body, admin), 201).json()
    path = f"/admin/webhooks/{made['id']}"
    tested = context.post(f"{path}/test", None, admin)
    context.check.status("a test answers 200", tested, 200)
    context.check.equal("nothing is sent", tested.json()["error"], "ADDRESS_NOT_ALLOWED")
    expect(context.write("DELETE", path, None, admin), 204)


def events_arrive_signed_also_after_a_failure(context: ScenarioContext) -> None:
    """A receiver gets the events of an order once it works; its log has both attempts."""
    host = os.environ.get("E2E_RECEIVER_HOST", "")
    with running_receiver("0.0.0.0" if host else "127.0.0.1") as receiver:  # noqa: S104
        url = receiver.url(f"/{unique()}")
        _follow_events(context, receiver, url.replace("127.0.0.1", host) if host else url)


def _follow_events(context: ScenarioContext, receiver: Receiver, url: str) -> None:
    admin, body = context.admin(), {"url": url, "eventTypes": ["order.paid", "order.cancelled"]}
    added = context.post("/admin/webhooks", body, admin)
    if added.status_code == 422:
        context.check.problem("outside the local profile http answers 422", added, 422)
        return
    made = expect(added, 201).json()
    path = f"/admin/webhooks/{made['id']}"
    try:
        tested = expect(context.post(f"{path}/test", None, admin), 200).json()
        if tested["error"] == "ADDRESS_NOT_ALLOWED":
            context.check.equal(
                "a receiver that is not public gets nothing", receiver.received(), []
            )
            return
        context.check.that("a test message arrives", tested["delivered"], tested)
        if tested["delivered"]:
            _check_events(context, receiver, made, path)
    finally:
        expect(context.write("DELETE", path, None, admin), 204)


def _check_events(
    context: ScenarioContext, receiver: Receiver, made: JsonObject, path: str
) -> None:
    admin = context.admin()
    receiver.behaves(Behaviour.ERROR)
    product = context.create_product(price=1_000, stock=10)
    order = expect(context.post_order(context.customer(1), (product["id"], 1)), 201).json()

    def failed() -> bool:
        return len(receiver.received()) > 1

    context.check.that("an event is sent", _within(failed), len(receiver.received()))
    receiver.behaves(Behaviour.ACCEPT)
    # it would be repeated after a minute; a change of the webhook makes it due at once
    seen = expect(context.get(path, admin), 200)
    context.check.that("it is failing", seen.json()["failingSince"] is not None, seen.json())
    etag = seen.headers["etag"]
    enabled = context.write("PATCH", path, {"state": "ACTIVE"}, admin, if_match=etag)
    context.check.status("it is enabled again", enabled, 200)

    def delivered() -> bool:
        page = expect(context.get(f"{path}/deliveries?state=DELIVERED", admin), 200).json()
        return bool(page)

    context.check.that("it is delivered after the failure", _within(delivered), path)
    paid = [
        message
        for message in receiver.received()
        if message.json["data"].get("orderId") == order["id"]
    ]
    context.check.that(
        "every message is signed", all(m.is_signed_with(made["secret"]) for m in paid), len(paid)
    )
    context.check.equal("one event is sent twice", len({m.id for m in paid}), 1)
    if paid:
        shown = paid[-1].json["data"]["order"]
        context.check.equal("it has the order", shown["totalAmount"], 1_000)
        context.check.that("without its customer", "userId" not in shown, shown)
        log = context.get(f"{path}/deliveries/{paid[-1].id}", admin).json()["log"]
        context.check.equal("the log has the attempts", log[0]["status"], 204)
        again = context.post(f"{path}/deliveries/{paid[-1].id}/redelivery", None, admin)
        context.check.status("it can be sent again: 202", again, 202)
        first = len(receiver.received())

        def repeated() -> bool:
            return len(receiver.received()) > first

        context.check.that("it arrives again", _within(repeated), first)


def _within(condition: Callable[[], bool]) -> bool:
    """Whether the condition becomes true in the time in which deliveries arrive."""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return found


SCENARIOS = (
    Scenario(webhook_is_created_changed_and_deleted, needs=("admin",)),
    Scenario(address_that_is_not_public_gets_no_request, needs=("admin",)),
    Scenario(events_arrive_signed_also_after_a_failure, needs=("admin", "staff")),
)
