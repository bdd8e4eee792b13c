"""A CloudEvents broker as in Knative: accepts events and delivers them to subscribed functions.

Retries follow eventing's ``SelectiveRetry`` and ``delivery`` block: no response, 5xx, 404, 408, 409
and 429 are retried after ``delay * 2 ** n`` with n from 0; any other error is sent directly to the
function that receives dead letters.  A 2xx response with a body that is not a CloudEvent counts as
502, as in the broker's filter.

A broker of the class ``local`` stores an event before it accepts it.  One of the class ``imc``
behaves as Knative's in-memory channel: it delivers while the publisher's request is open, keeps
nothing, and cancels the deliveries and their dead letters when the publisher hangs up.
"""

from __future__ import annotations

import asyncio
import re
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from events.envelope import CloudEvent, parse, to_binary, write_time
from events.errors import Malformed
from shop.primitives.clock import utc_now
from shop.primitives.spec import FunctionSpec
from tools.local_platform.activities import Activity, ActivityKind
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.delivery_store import Delivery, DeliveryStore
from tools.local_platform.function_client import FunctionClient
from tools.local_platform.http_messages import HttpRequest, HttpResponse, header_map

RETRIED = frozenset((404, 408, 409, 429))
# of the base64 text, not of the data
ERROR_DATA_CHARACTERS_MAX = 1024
HOPS_MAX = 255
RECENT_MAX = 100
EVENT_TYPE = re.compile(r"com\.msashop\.(?P<name>.+)\.v[0-9]+")


class LocalBrokerClass(StrEnum):
    """The broker that the local platform behaves as; ``BROKER_CLASS`` of its functions."""

    LOCAL = "local"
    IMC = "imc"


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
class DeliveryResult:
    """The result of one delivery: the status code that Knative would record, and the body."""

    code: int
    data: bytes = b""
    reply: CloudEvent | None = None
    # False where the filter of a channel-based broker does not pass on what the subscriber said
    is_described: bool = True

    @property
    def is_success(self) -> bool:
        return 200 <= self.code < 300

    @property
    def is_retried(self) -> bool:
        return self.code >= 500 or self.code in RETRIED


def delivery_result(response: HttpResponse) -> DeliveryResult:
    """Classifies a subscriber's response as Knative's channel-based broker does."""
    if not 200 <= response.status < 300:
        return DeliveryResult(response.status, response.body)
    headers = header_map(response.headers)
    is_event = any(name.startswith("ce-") for name in headers) or headers.get(
        "content-type", ""
    ).startswith("application/cloudevents")
    if not response.body and not is_event:
        return DeliveryResult(response.status)
    try:
        return DeliveryResult(response.status, reply=parse(headers, response.body))
    except Malformed:
        return DeliveryResult(502, response.body, is_described=False)


class Broker:
    """Accepts events and retries each delivery until it succeeds or is dead-lettered."""

    def __init__(
        self,
        specs: Iterable[FunctionSpec],
        functions: FunctionClient,
        store: DeliveryStore,
        faults: DeliveryFaults,
        activity_log: ActivityLog,
        rule: DeliveryRule | None = None,
        broker_class: LocalBrokerClass = LocalBrokerClass.LOCAL,
    ) -> None:
        self._specs = tuple(specs)
        self._functions = functions
        self._store = store
        self._faults = faults
        self._activity_log = activity_log
        self._rule = rule or DeliveryRule()
        self._tasks: set[asyncio.Task[bool]] = set()
        self.broker_class = broker_class
        # kept for fault injection, which publishes them again
        self.recent: deque[tuple[dict[str, str], bytes]] = deque(maxlen=RECENT_MAX)
        self._slots = {
            spec.name: asyncio.Semaphore(_concurrency_max(functions, spec)) for spec in self._specs
        }

    @property
    def pending(self) -> int:
        """How many deliveries are not finished."""
        return len(self._tasks)

    async def accept(self, headers: dict[str, str], body: bytes) -> None:
        """Stores an event durably for delivery; raises Malformed if it is not a CloudEvent."""
        await self._publish(parse(headers, body))

    async def deliver(self, headers: dict[str, str], body: bytes) -> bool:
        """Delivers an event; False when a subscriber and the dead letter function both failed it.

        Cancelling this cancels every delivery.  Raises Malformed if it is not a CloudEvent.
        """
        event = parse(headers, body)
        arrived = {**event.extensions, "knativearrivaltime": write_time(utc_now())}
        deliveries = await self._publish(replace(event, extensions=arrived))
        return all(await asyncio.gather(*deliveries))

    def note_hang_up(self) -> None:
        """Logs that a publisher ended its request before the deliveries were complete."""
        self._activity_log.count("hang-ups")
        self._activity_log.write("the publisher hung up: deliveries cancelled")

    async def resume(self) -> None:
        """Continues the deliveries that an earlier run did not finish."""
        left = [
            delivery for delivery in await self._store.pending() if delivery.target in self._slots
        ]
        if left:
            self._activity_log.write(f"resume {len(left)} deliveries from the last run")
        self._start_deliveries(left)

    async def close(self) -> None:
        """Stops delivering; unfinished deliveries stay in the store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _publish(self, event: CloudEvent) -> list[asyncio.Task[bool]]:
        self._activity_log.count("events")
        self._observe(ActivityKind.EVENT, event.type, function=event.source.rpartition("/")[2])
        if self._faults.loses(event.type):
            self._activity_log.count("lost")
            self._observe(ActivityKind.LOSS, event.type)
            self._activity_log.write(f"lose {short_name(event.type)}")
            return []
        headers, body = to_binary(event)
        self.recent.append((headers, body))
        deliveries = [
            Delivery(target=target, headers=headers, body=body, due_at=due_at)
            for target in self._targets(event.type)
            for due_at in self._due_times(event.type, target)
        ]
        return self._start_deliveries(await self._store.add(deliveries)) if deliveries else []

    def _targets(self, event_type: str) -> list[str]:
        name = short_name(event_type)
        return [
            spec.name
            for spec in self._specs
            if any(subscription.event == name for subscription in spec.subscriptions)
        ]

    def _due_times(self, event_type: str, target: str) -> list[float]:
        delays = self._faults.delays(event_type, target)
        self._activity_log.count("reordered", int(delays[0] > 0))
        self._activity_log.count("duplicates", len(delays) - 1)
        for _ in delays[1:]:
            self._observe(ActivityKind.DUPLICATE, event_type, function=target)
        now = time.time()
        return [now + delay for delay in delays]

    def _start_deliveries(self, deliveries: list[Delivery]) -> list[asyncio.Task[bool]]:
        tasks = [asyncio.create_task(self._deliver(delivery)) for delivery in deliveries]
        for task in tasks:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return tasks

    async def _deliver(self, delivery: Delivery) -> bool:
        """Tries until a subscriber, or the dead letter function, has taken the event."""
        while True:
            await asyncio.sleep(max(0.0, delivery.due_at - time.time()))
            async with self._slots[delivery.target]:
                result = await self._attempt(delivery)
            if result.is_success:
                if result.reply is not None:
                    await self._publish(result.reply)
                await self._store.delete(delivery)
                return True
            if result.is_retried and delivery.attempt < self._rule.retries_max:
                delivery = await self._postpone(delivery, result)
                continue
            letter = await self._dead_letter(delivery, result)
            if letter is None:
                return False
            delivery = letter

    async def _attempt(self, delivery: Delivery) -> DeliveryResult:
        began = time.monotonic()
        headers = [
            (name.encode(), text.encode("latin-1")) for name, text in delivery.headers.items()
        ]
        headers += [(b"host", delivery.target.encode()), (b"prefer", b"reply")]
        request = HttpRequest("POST", b"/events", headers, delivery.body)
        try:
            async with asyncio.timeout(self._rule.timeout_seconds):
                result = delivery_result(await self._functions.send(delivery.target, request))
        except TimeoutError:
            result = DeliveryResult(500, b"dispatch error: timeout", is_described=False)
        self._activity_log.count("deliveries")
        took = (time.monotonic() - began) * 1000
        self._activity_log.write(f"deliver {_route(delivery)} {result.code} ({took:.0f} ms)")
        self._observe_delivery(ActivityKind.DELIVERY, delivery, result, seconds=took / 1000)
        return result

    async def _postpone(self, delivery: Delivery, result: DeliveryResult) -> Delivery:
        pause = self._rule.pause_after(delivery.attempt + 1)
        later = replace(delivery, attempt=delivery.attempt + 1, due_at=time.time() + pause)
        self._activity_log.count("retries")
        self._activity_log.write(f"retry {_route(delivery)} in {pause:g} s ({result.code})")
        self._observe_delivery(ActivityKind.RETRY, delivery, result, seconds=pause)
        await self._store.postpone(later)
        return later

    async def _dead_letter(self, delivery: Delivery, result: DeliveryResult) -> Delivery | None:
        """The delivery of a failed event to the dead letter function, stored in its place.

        None for a dead letter that failed itself, which is kept.
        """
        receiver = next((spec.name for spec in self._specs if spec.receives_dead_letters), None)
        if delivery.is_dead_letter or receiver is None:
            self._activity_log.count("failed dead letters")
            self._activity_log.write(f"dead letter failed: {_route(delivery)} {result.code}")
            await self._store.give_up(delivery)
            return None
        self._activity_log.count("dead letters")
        self._activity_log.write(f"dead letter {_route(delivery)} {result.code}")
        self._observe_delivery(ActivityKind.DEAD_LETTER, delivery, result)
        letter = Delivery(
            target=receiver,
            headers=delivery.headers | self._error_attributes(delivery, result),
            body=delivery.body,
            due_at=time.time(),
            is_dead_letter=True,
        )
        (stored,) = await self._store.add([letter], replaces=delivery.id)
        return stored

    def _observe(self, kind: ActivityKind, event_type: str, *, function: str = "") -> None:
        activity = Activity(kind=kind, function=function, subject=short_name(event_type))
        self._activity_log.observe(activity)

    def _observe_delivery(
        self,
        kind: ActivityKind,
        delivery: Delivery,
        result: DeliveryResult,
        *,
        seconds: float = 0.0,
    ) -> None:
        activity = Activity(
            kind=kind,
            function=delivery.target,
            subject=short_name(delivery.event_type),
            code=result.code,
            seconds=seconds,
            detail=delivery.headers.get("ce-subject", ""),
        )
        self._activity_log.observe(activity)

    def _error_attributes(self, delivery: Delivery, result: DeliveryResult) -> dict[str, str]:
        """What Knative adds to a dead letter.

        A channel-based broker does not say what failed after a timeout or a body that is no event.
        """
        is_channel = self.broker_class is LocalBrokerClass.IMC
        hops = {"ce-knativebrokerttl": str(HOPS_MAX)} if is_channel else {}
        if is_channel and not result.is_described:
            return hops
        data = b64encode(result.data).decode("ascii")
        return hops | {
            "ce-knativeerrordest": f"http://{delivery.target}/events",
            "ce-knativeerrorcode": str(result.code),
            "ce-knativeerrordata": data[:ERROR_DATA_CHARACTERS_MAX],
        }


def short_name(event_type: str) -> str:
    """``order.placed`` for ``com.msashop.order.placed.v1``; other types as they are."""
    match = EVENT_TYPE.fullmatch(event_type)
    return match["name"] if match else event_type


def _route(delivery: Delivery) -> str:
    return f"{short_name(delivery.event_type)} -> {delivery.target}"


def _concurrency_max(functions: FunctionClient, spec: FunctionSpec) -> int:
    """Concurrent deliveries: enough to make a function scale out, too few to fill its queue."""
    return 2 * spec.scale.concurrency * functions.processes_max(spec.name)
