"""Edge, activator and broker in a test's event loop, over stub functions as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shop.primitives.spec import FunctionSpec, Route, Scale, Subscription
from tests.waiting import wait_until
from tools.local_platform.activator import Activator, FunctionLaunch, ScalingLimits
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.broker import Broker, DeliveryRule, LocalBrokerClass
from tools.local_platform.child_processes import ChildProcesses
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.delivery_store import DeliveryStore
from tools.local_platform.edge import RouteTable, edge
from tools.local_platform.http_listener import listen, serving
from tools.local_platform.http_messages import HttpRequest, HttpResponse, connect
from tools.local_platform.ingress import ingress

STUB = Path(__file__).parent / "stub_function.py"
FAST = DeliveryRule(retries_max=3, delay_seconds=0.05, timeout_seconds=5)


def route(method: Literal["GET", "POST", "PATCH"], path: str) -> Route:
    return Route(method=method, path=path, handler="h", auth="public", summary="s")


SPECS = (
    FunctionSpec(
        name="web",
        summary="answers requests",
        database_role=None,
        routes=(
            route("GET", "/echo"),
            route("POST", "/echo"),
            route("GET", "/slow"),
            route("GET", "/crash"),
            route("POST", "/events"),
        ),
        scale=Scale(concurrency=2),
        timeout_seconds=3,
    ),
    FunctionSpec(
        name="failing",
        summary="exits at once",
        database_role=None,
        routes=(route("GET", "/failing"),),
    ),
    FunctionSpec(
        name="subscriber",
        summary="receives events",
        database_role=None,
        subscriptions=(Subscription(event="order.placed", handler="h", summary="s"),),
    ),
    FunctionSpec(
        name="dead_letters",
        summary="receives dead letters",
        database_role=None,
        receives_dead_letters=True,
    ),
)


@dataclass
class PlatformUnderTest:
    """A running edge and broker; ``record`` is the file of the events that stubs received."""

    port: int
    broker_port: int
    activator: Activator
    broker: Broker
    activity_log: ActivityLog
    record: Path

    async def get(self, target: str, **headers: str) -> HttpResponse:
        return await send(self.port, "GET", target, headers=headers)

    async def send_event(self, subject: str = "204", id: str = "1", **changes: str) -> HttpResponse:
        attributes = {"id": id, "source": "/shop/test", "subject": subject, "specversion": "1.0"}
        attributes |= {"type": "com.msashop.order.placed.v1"} | changes
        headers = {"content-type": "application/json"} | {
            f"ce-{name}": value for name, value in attributes.items()
        }
        return await send(self.broker_port, "POST", "/", b'{"orderId":1}', headers=headers)

    def events(self, function: str) -> list[dict[str, Any]]:
        if not self.record.exists():
            return []
        lines = self.record.read_text(encoding="utf-8").splitlines()
        return [line for line in map(json.loads, lines) if line["function"] == function]

    async def deliver_all(self) -> None:
        await wait_until(lambda: self.broker.pending == 0)


@asynccontextmanager
async def running_platform(
    folder: Path,
    *,
    limits: ScalingLimits | None = None,
    faults: DeliveryFaults | None = None,
    rule: DeliveryRule = FAST,
    cors_origins: frozenset[str] = frozenset(),
    broker_class: LocalBrokerClass = LocalBrokerClass.LOCAL,
) -> AsyncGenerator[PlatformUnderTest]:
    """Edge, activator and broker over the stub functions, with their files in ``folder``."""
    activity_log, faults = ActivityLog(quiet=True), faults or DeliveryFaults()
    record = folder / "record.jsonl"
    launch = FunctionLaunch(
        command=lambda name: [sys.executable, "-S", str(STUB), name, str(record)],
        environment=lambda spec: {"PATH": os.environ["PATH"]},
        logs=folder,
    )
    with ChildProcesses() as children, listen(0) as public, listen(0) as internal:
        limits = limits or ScalingLimits()
        activator = Activator(SPECS, launch, limits, faults, activity_log, children)
        store = DeliveryStore(folder / "broker.sqlite")
        broker = Broker(SPECS, activator, store, faults, activity_log, rule, broker_class)
        idle = asyncio.create_task(activator.retire_idle_forever())
        await broker.resume()
        application = edge(RouteTable(SPECS), activator, activity_log, lambda: None, cors_origins)
        try:
            async with (
                serving(application, public),
                serving(ingress(broker, lambda: {"processes": activator.processes()}), internal),
            ):
                ports = public.getsockname()[1], internal.getsockname()[1]
                yield PlatformUnderTest(*ports, activator, broker, activity_log, record)
        finally:
            idle.cancel()
            await broker.close()
            await activator.close()
            store.close()


async def send(
    port: int,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Sends one request on a new connection; underscores in header names become hyphens."""
    connection = await connect(port)
    fields = [(name.replace("_", "-").encode(), v.encode()) for name, v in (headers or {}).items()]
    fields.append((b"host", b"shop.test"))
    try:
        return await connection.send(HttpRequest(method, target.encode(), fields, body))
    finally:
        connection.close()
