"""Sends signed clock ticks: ``python -m tools.tick <schedule> <function's /events URL>``.

Sends one tick, for a CronJob; with ``--every=SECONDS`` repeated ticks until SIGTERM, for a
container next to a function that KEDA scales.  Settings: EVENT_SIGNING_KEY (the clock's) and
EVENT_KEYS.  A tick has no data, so the next one replaces a lost one.
"""

from __future__ import annotations

import argparse
import http.client
import signal
import sys
import threading
from urllib.parse import urlsplit

from events import envelope
from events.envelope import CloudEvent
from events.vocabulary import CLOCK_TICKED
from shop.primitives.clock import utc_now
from shop.primitives.ids import new_uuid
from shop.runtime import config
from shop.runtime.config import Settings
from shop.runtime.publisher import signer_of

SOURCE = "/shop/clock"
TIMEOUT_SECONDS = 60
PROCESSED = 204


def tick(schedule: str, sink: str, settings: Settings) -> int:
    """Sends one tick, returns the response's status; raises OSError when there is no response."""
    event = CloudEvent(
        id=str(new_uuid()),
        source=SOURCE,
        type=CLOCK_TICKED,
        subject=schedule,
        time=utc_now(),
        datacontenttype="application/json",
        data=b"{}",
    )
    headers, body = envelope.to_binary(signer_of(settings).sign(event))
    url = urlsplit(sink)
    if url.scheme != "http" or not url.hostname:
        raise ValueError(f"not the http URL of a function: {sink!r}")
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", url.path or "/", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    """Sends the ticks and returns the exit code, 2 for invalid arguments or settings.

    One tick returns 0 when the function responds 204, else 1; ``--every`` returns 0 when stopped.
    """
    try:
        options = _options().parse_args(arguments)
        settings = config.load(needs=("signs",), sources=(SOURCE,))
        if options.every is None:
            return _tick_once(options.schedule, options.sink, settings)
        return _tick_until_stopped(options.schedule, options.sink, settings, options.every)
    except SystemExit as exit_:  # argparse has printed the error
        return int(exit_.code or 0)
    except (config.ConfigurationError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.tick")
    parser.add_argument("schedule")
    parser.add_argument("sink")
    parser.add_argument("--every", type=float, metavar="SECONDS")
    return parser


def _tick_once(schedule: str, sink: str, settings: Settings) -> int:
    try:
        status = tick(schedule, sink, settings)
    except OSError as error:
        sys.stderr.write(f"no response from {sink}: {error}\n")
        return 1
    sys.stdout.write(f"{schedule}: {status}\n")
    return 0 if status == PROCESSED else 1


def _tick_until_stopped(schedule: str, sink: str, settings: Settings, seconds: float) -> int:
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopped.set())
    signal.signal(signal.SIGINT, lambda _number, _frame: stopped.set())
    while not stopped.is_set():
        _tick_once(schedule, sink, settings)
        stopped.wait(seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
