"""``shop broker``: the desk's broker and clock in front of functions that stand at fixed addresses.

What Knative's Broker, Triggers and clocks do, in one process for Compose: same retries, the same
dead letters, over restarts (the file on ``data``).  It starts no function and stops none.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from shop.registry import all_specs
from shop.runtime import config
from shop.runtime.config import Settings
from shop.runtime.publisher import signer_of
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.broker import Broker
from tools.local_platform.clock import Clock, DueWork
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.delivery_store import DeliveryStore
from tools.local_platform.http_listener import listen, serving
from tools.local_platform.ingress import ingress
from tools.local_platform.running_functions import RunningFunctions


def run_broker(*, host: str, port: int, data: Path, functions: str) -> int:
    """Serves until SIGTERM; raises ConfigurationError, ValueError or OSError when it cannot start.

    Settings: DATABASE_URL (as the relay), EVENT_SIGNING_KEY (the clock's) and EVENT_KEYS.
    """
    settings = config.load(needs=("postgres", "announces"))
    data.mkdir(parents=True, exist_ok=True)
    asyncio.run(_serve(settings, (host, port), data, functions))
    return 0


async def _serve(settings: Settings, address: tuple[str, int], data: Path, pattern: str) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    activity_log, specs = ActivityLog(), all_specs()
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listen(address[1], address[0]))
        functions = RunningFunctions(specs, pattern)
        stack.callback(functions.close)
        store = DeliveryStore(data / "broker.sqlite")
        stack.callback(store.close)
        broker = Broker(specs, functions, store, DeliveryFaults(), activity_log)
        stack.push_async_callback(broker.close)
        # nobody tells this clock of traffic, so it always looks as if there were some
        due_work = DueWork(settings.database_url.reveal())
        signer = signer_of(settings)
        clock = Clock(specs, functions, activity_log, signer, due_work, busy_seconds=math.inf)

        def status() -> dict[str, Any]:
            return {"pending": broker.pending, "counters": dict(activity_log.counts)}

        await broker.resume()
        await stack.enter_async_context(_ticking(clock))
        await stack.enter_async_context(serving(ingress(broker, status), listener))
        activity_log.write(f"broker ready at port {address[1]}")
        await stopped.wait()
    activity_log.write(activity_log.summary())


@asynccontextmanager
async def _ticking(clock: Clock) -> AsyncIterator[None]:
    task = asyncio.create_task(clock.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
