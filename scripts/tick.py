"""Sends one signed clock tick: ``python -m scripts.tick <schedule> <function's /events URL>``.

What a CronJob runs where no clock of ours does.  Settings: EVENT_SIGNING_KEY (the clock's) and
EVENT_KEYS.  A tick carries nothing, so one that is lost is made good by the next.
"""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

from events import envelope
from events.envelope import CloudEvent
from events.vocabulary import CLOCK_TICKED
from shop.clock import utc_now
from shop.ids import new_uuid
from shop.runtime import config
from shop.runtime.config import Settings
from shop.runtime.publisher import signer_of

SOURCE = "/shop/clock"
TIMEOUT_SECONDS = 60
DONE = 204


def tick(schedule: str, sink: str, settings: Settings) -> int:
    """The status that ``sink`` answers to a tick of ``schedule``; raises OSError for no answer."""
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
        raise ValueError(f"not the URL of a function beside us: {sink!r}")
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", url.path or "/", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    """0 when the function did its work, 1 when it did not, 2 for wrong use or settings."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m scripts.tick <schedule> <url>\n")
        return 2
    try:
        status = tick(arguments[0], arguments[1], config.load(needs=("events",)))
    except (config.ConfigurationError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"{arguments[1]} does not answer: {error}\n")
        return 1
    sys.stdout.write(f"{arguments[0]}: {status}\n")
    return 0 if status == DONE else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
