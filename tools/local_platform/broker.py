"""Knative's broker at the desk: takes CloudEvents, delivers them by the functions' subscriptions.

Retries follow the table of eventing's ``SelectiveRetry`` and ``delivery`` block: again on no
answer, 5xx, 404, 408, 409 and 429, after ``delay * 2 ** n`` with n from 0; anything else that is no
success goes straight to the function that receives dead letters.  A 2xx answer with a body that is
no CloudEvent counts as 502, as the broker's filter makes it.
"""

from __future__ import annotations

import asyncio
import re
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from events.envelope import CloudEvent, parse, to_binary
from events.errors import Malformed
from shop.primitives.spec import FunctionSpec
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.delivery_store import Delivery, DeliveryStore
from tools.local_platform.function_client import FunctionClient
from tools.local_platform.http_messages import HttpRequest, HttpResponse, header_map

RETRIED = frozenset((404, 408, 409, 429))
ERROR_DATA_BYTES_MAX = 1024
RECENT_MAX = 100
EVENT_TYPE = re.compile(r"com\.msashop\.(?P<name>.+)\.v[0-9]+")


@dataclass(frozen=True, kw_only=True)
class DeliveryRule:
    """The ``delivery`` block of every Trigger: retry 8, exponential from PT0.5S, timeout PT45S."""

    retries_max: int = 8
    delay_seconds: float = 0.5
    timeout_seconds: float = 45.0

    def pause_after(self, failures: int) -> float:
        """Seconds before the next try; ``failures`` counts from 1."""
        return self.delay_seconds * 2.0 ** (failures - 1)


@dataclass(frozen=True)
class Verdict:
    """What a delivery came to: status code as Knative sees it, and the reason in bytes."""

    code: int
    data: bytes = b""
    reply: CloudEvent | None = None

    @property
    def is_success(self) -> bool:
        return 200 <= self.code < 300

    @property
    def is_retried(self) -> bool:
        return self.code >= 500 or self.code in RETRIED


def judge(answer: HttpResponse) -> Verdict:
    """What an answer of a subscriber means (platform.md 2.1, column of the channel broker)."""
    if not 200 <= answer.status < 300:
        return Verdict(answer.status, answer.body)
    headers = header_map(answer.headers)
    is_event = any(name.startswith("ce-") for name in headers) or headers.get(
        "content-type", ""
    ).startswith("application/cloudevents")
    if not answer.body and not is_event:
        return Verdict(answer.status)
    try:
        return Verdict(answer.status, reply=parse(headers, answer.body))
    except Malformed:
        return Verdict(502, answer.body)


class Broker:
    """Accepts events and sees each of its deliveries through, over restarts."""

    def __init__(
        self,
        specs: Iterable[FunctionSpec],
        functions: FunctionClient,
        store: DeliveryStore,
        faults: DeliveryFaults,
        activity_log: ActivityLog,
        rule: DeliveryRule | None = None,
    ) -> None:
        self._specs = tuple(specs)
        self._functions = functions
        self._store = store
        self._faults = faults
        self._activity_log = activity_log
        self._rule = rule or DeliveryRule()
        self._tasks: set[asyncio.Task[None]] = set()
        # for whoever wants to send one again
        self.recent: deque[tuple[dict[str, str], bytes]] = deque(maxlen=RECENT_MAX)
        self._gates = {spec.name: asyncio.Semaphore(_room(functions, spec)) for spec in self._specs}

    @property
    def pending(self) -> int:
        """How many deliveries are not finished."""
        return len(self._tasks)

    async def accept(self, headers: dict[str, str], body: bytes) -> None:
        """Returns once the event is on the disk; raises Malformed for what is not a CloudEvent."""
        await self._publish(parse(headers, body))

    async def resume(self) -> None:
        """Takes up what an earlier run left undelivered."""
        left = [
            delivery for delivery in await self._store.pending() if delivery.target in self._gates
        ]
        if left:
            self._activity_log.write(f"resume {len(left)} deliveries of the last run")
        self._follow(left)

    async def close(self) -> None:
        """Stops delivering; what is unfinished stays in the store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _publish(self, event: CloudEvent) -> None:
        self._activity_log.count("events")
        if self._faults.loses(event.type):
            self._activity_log.count("lost")
            self._activity_log.write(f"lose {short_name(event.type)}")
            return
        headers, body = to_binary(event)
        self.recent.append((headers, body))
        deliveries = []
        for target in self._targets(event.type):
            for due_at in self._moments(event.type, target):
                deliveries.append(
                    Delivery(target=target, headers=headers, body=body, due_at=due_at)
                )
        if deliveries:
            self._follow(await self._store.add(deliveries))

    def _targets(self, event_type: str) -> list[str]:
        name = short_name(event_type)
        return [
            spec.name
            for spec in self._specs
            if any(subscription.event == name for subscription in spec.subscriptions)
        ]

    def _moments(self, event_type: str, target: str) -> list[float]:
        delays = self._faults.delays(event_type, target)
        self._activity_log.count("reordered", int(delays[0] > 0))
        self._activity_log.count("duplicates", len(delays) - 1)
        now = time.time()
        return [now + delay for delay in delays]

    def _follow(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            task = asyncio.create_task(self._see_through(delivery))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _see_through(self, delivery: Delivery) -> None:
        while True:
            await asyncio.sleep(max(0.0, delivery.due_at - time.time()))
            async with self._gates[delivery.target]:
                verdict = await self._try(delivery)
            if verdict.is_success:
                if verdict.reply is not None:
                    await self._publish(verdict.reply)
                await self._store.forget(delivery)
                return
            if not verdict.is_retried or delivery.attempt >= self._rule.retries_max:
                await self._bury(delivery, verdict)
                return
            delivery = await self._postpone(delivery, verdict)

    async def _try(self, delivery: Delivery) -> Verdict:
        began = time.monotonic()
        headers = [
            (name.encode(), text.encode("latin-1")) for name, text in delivery.headers.items()
        ]
        headers += [(b"host", delivery.target.encode()), (b"prefer", b"reply")]
        message = HttpRequest("POST", b"/events", headers, delivery.body)
        try:
            async with asyncio.timeout(self._rule.timeout_seconds):
                verdict = judge(await self._functions.send(delivery.target, message))
        except TimeoutError:
            verdict = Verdict(500, b"dispatch error: timeout")
        self._activity_log.count("deliveries")
        took = (time.monotonic() - began) * 1000
        self._activity_log.write(f"deliver {_route(delivery)} {verdict.code} ({took:.0f} ms)")
        return verdict

    async def _postpone(self, delivery: Delivery, verdict: Verdict) -> Delivery:
        pause = self._rule.pause_after(delivery.attempt + 1)
        later = replace(delivery, attempt=delivery.attempt + 1, due_at=time.time() + pause)
        self._activity_log.count("retries")
        self._activity_log.write(f"retry {_route(delivery)} in {pause:g} s ({verdict.code})")
        await self._store.postpone(later)
        return later

    async def _bury(self, delivery: Delivery, verdict: Verdict) -> None:
        """Hands a failed event to the receiver of dead letters; a failed dead letter stays."""
        receiver = next((spec.name for spec in self._specs if spec.receives_dead_letters), None)
        if delivery.is_dead_letter or receiver is None:
            self._activity_log.count("failed dead letters")
            self._activity_log.write(f"dead letter given up: {_route(delivery)} {verdict.code}")
            await self._store.give_up(delivery)
            return
        self._activity_log.count("dead letters")
        self._activity_log.write(f"dead letter {_route(delivery)} {verdict.code}")
        headers = delivery.headers | {
            "ce-knativeerrordest": f"http://{delivery.target}/events",
            "ce-knativeerrorcode": str(verdict.code),
            "ce-knativeerrordata": b64encode(verdict.data[:ERROR_DATA_BYTES_MAX]).decode("ascii"),
        }
        letter = Delivery(
            target=receiver,
            headers=headers,
            body=delivery.body,
            due_at=time.time(),
            is_dead_letter=True,
        )
        self._follow(await self._store.add([letter], instead_of=delivery.id))


def short_name(event_type: str) -> str:
    """``order.placed`` for ``com.msashop.order.placed.v1``; other types as they are."""
    match = EVENT_TYPE.fullmatch(event_type)
    return match["name"] if match else event_type


def _route(delivery: Delivery) -> str:
    return f"{short_name(delivery.event_type)} -> {delivery.target}"


def _room(functions: FunctionClient, spec: FunctionSpec) -> int:
    """Deliveries under way at once: enough to make a function scale out, too few to swamp it."""
    return 2 * spec.scale.concurrency * functions.processes_max(spec.name)
