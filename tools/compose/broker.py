"""``shop broker``: runs the local platform's broker and clock for functions run by Compose.

Replaces Knative's Broker, Triggers and PingSource by one process with the same retries and dead
letters.  Undelivered events are kept in the folder ``data`` across restarts.  Starts no functions.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from shop.registry import all_specs
from shop.runtime import config
from shop.runtime.config import Settings
from shop.runtime.publisher import signer_of
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.broker import Broker
from tools.local_platform.clock import SOURCE, Clock, DueWork
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.delivery_store import DeliveryStore
from tools.local_platform.http_listener import (
    Application,
    Receive,
    Scope,
    Send,
    listen,
    serving,
)
from tools.local_platform.ingress import ingress
from tools.local_platform.running_functions import RunningFunctions

CHECK_SECONDS = 5.0


def run_broker(*, host: str, port: int, data: Path, functions: str) -> int:
    """Serves until SIGTERM; raises ConfigurationError, ValueError or OSError when it cannot start.

    Settings: DATABASE_URL (role relay), EVENT_SIGNING_KEY (the clock's) and EVENT_KEYS.
    """
    settings = config.load(needs=("postgres", "signs"), sources=(SOURCE,))
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
        due_work = DueWork(settings.database_url.reveal())
        clock = Clock(specs, functions, activity_log, signer_of(settings), due_work)

        def status() -> dict[str, object]:
            return {"pending": broker.pending, "counters": dict(activity_log.counts)}

        receivers = [spec.name for spec in specs if spec.receives_events]
        unanswered = await _check_addresses(functions, receivers)
        await broker.resume()
        await stack.enter_async_context(_running(clock.run()))
        await stack.enter_async_context(
            _running(_report_answers(functions, unanswered, activity_log))
        )
        application = noting_events(ingress(broker, status), clock.note_traffic)
        await stack.enter_async_context(serving(application, listener))
        activity_log.write(f"broker ready at port {address[1]}")
        await stopped.wait()
    activity_log.write(activity_log.summary())


def noting_events(application: Application, note: Callable[[], None]) -> Application:
    """Notes each event: requests do not pass through this process, but their events do."""

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            note()
        await application(scope, receive, send)

    return noting


async def _check_addresses(functions: RunningFunctions, receivers: list[str]) -> dict[str, str]:
    """The functions that cannot be reached now; ValueError for addresses that are wrong.

    A function that is down or starts later gets its events by retries.  A 4xx comes from a server
    that does not know the function: every delivery would fail.
    """
    unanswered = await functions.unanswered(receivers)
    wrong = [f"{name}: {found}" for name, found in unanswered.items() if found.startswith("4")]
    if wrong:
        raise ValueError("no function at the address of " + "; ".join(wrong))
    return unanswered


async def _report_answers(
    functions: RunningFunctions, unanswered: dict[str, str], activity_log: ActivityLog
) -> None:
    """Logs which functions do not answer, again after each change, until all do."""
    while unanswered:
        found = ", ".join(f"{name} ({what})" for name, what in unanswered.items())
        activity_log.write(f"not answering, events are retried: {found}")
        before = unanswered
        while unanswered and unanswered.keys() == before.keys():
            await asyncio.sleep(CHECK_SECONDS)
            unanswered = await functions.unanswered(before)
    activity_log.write("every function that receives events answers")


@asynccontextmanager
async def _running(job: Coroutine[None, None, None]) -> AsyncGenerator[None]:
    """Runs a job in the background until the block ends."""
    task = asyncio.create_task(job)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
