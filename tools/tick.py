"""Sends one signed clock tick: ``python -m tools.tick <schedule> <function's /events URL>``.

Cron or KEDA runs it.  Settings: EVENT_SIGNING_KEY (the clock's) and EVENT_KEYS.  A tick has no
data, so the next one replaces a lost one.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from urllib.parse import SplitResult, urlsplit

from events import envelope
from events.envelope import CloudEvent
from events.vocabulary import CLOCK_TICKED
from shop.adapters.connection_attempts import ConnectionAttempts
from shop.primitives.clock import utc_now
from shop.primitives.ids import new_uuid
from shop.runtime import config
from shop.runtime.config import Settings
from shop.runtime.publisher import signer_of

SOURCE = "/shop/clock"
# the limit of a function with a schedule, and its cold start
TIMEOUT_SECONDS = 75
# a Job's pod is new at each tick, so its first connections may be refused
CONNECT_SECONDS = 10.0
PROCESSED = 204
# of a queue in front of the function, such as OpenFaaS's /async-function/
QUEUED = 202
CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


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
    return post_event(url_of(sink), headers, body, seconds=TIMEOUT_SECONDS)


def url_of(text: str) -> SplitResult:
    """The URL of a broker or of a function's events; raises ValueError for another."""
    url = urlsplit(text)
    if url.scheme not in CONNECTIONS or not url.hostname:
        raise ValueError(f"not the URL of a broker or a function: {text!r}")
    return url


def post_event(url: SplitResult, headers: dict[str, str], body: bytes, *, seconds: float) -> int:
    """Posts an event, returns the response's status; waits for it at most ``seconds``.

    Raises OSError or HTTPException when there is no response, ValueError for headers that HTTP does
    not allow.  Only the opening of a connection is repeated, so nothing is sent twice.
    """
    connection = CONNECTIONS[url.scheme](url.hostname or "", url.port, timeout=CONNECT_SECONDS)
    try:
        ConnectionAttempts(CONNECT_SECONDS).open(
            connection.connect, until=time.monotonic() + seconds
        )
        connection.sock.settimeout(seconds)
        connection.request("POST", url.path or "/", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    """The exit code: 0 for a tick processed (204) or queued (202), else 1; 2 for wrong options."""
    try:
        options = _options().parse_args(arguments)
        settings = config.load(needs=("signs",), sources=(SOURCE,))
        return _tick_once(options.schedule, options.sink, settings, as_json=options.json)
    except SystemExit as exit_:  # argparse has printed the error
        return int(exit_.code or 0)
    except (config.ConfigurationError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.tick")
    parser.add_argument("schedule")
    parser.add_argument("sink")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _tick_once(schedule: str, sink: str, settings: Settings, *, as_json: bool) -> int:
    try:
        status = tick(schedule, sink, settings)
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"no response from {sink}: {error}\n")
        return 1
    document = json.dumps({"schedule": schedule, "status": status})
    sys.stdout.write(f"{document if as_json else f'{schedule}: {status}'}\n")
    return 0 if status in (PROCESSED, QUEUED) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
