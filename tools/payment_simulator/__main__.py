"""Starts the payment simulator: ``python -m tools.payment_simulator --port 8099 --data FILE``."""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import threading
from pathlib import Path

from tools.payment_simulator.faults import FaultDice, read_fault_settings
from tools.payment_simulator.records import Books
from tools.payment_simulator.server import SandboxServer, plan_webhook
from tools.payment_simulator.webhook_sender import WebhookSender

POLL_SECONDS = 3600.0
ENDING = (signal.SIGTERM, signal.SIGINT)


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; prints one line with the address when it can serve."""
    # held back for sigwait in every thread: a handler that interrupts an accept loop can come
    # between its last look at signals and its wait, and is then not seen for an hour
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    options = _read_options(arguments)
    options.data.parent.mkdir(parents=True, exist_ok=True)
    books = Books(options.data, sends_webhooks=bool(options.webhook_url))
    settings = read_fault_settings(json.loads(books.setting("faults") or "{}"))
    dice = FaultDice(settings)
    books.key_life_seconds = settings.key_life_seconds
    books.plan_webhook = functools.partial(plan_webhook, dice)
    courier = WebhookSender(books, options.webhook_url, options.webhook_secret)
    server = SandboxServer((options.host, options.port), books, dice, options.api_key)
    courier.start()
    try:
        threading.Thread(
            target=server.serve_forever, args=(POLL_SECONDS,), daemon=True, name="accept"
        ).start()
        print(f"sandbox ready http://{options.host}:{server.server_port}", flush=True)
        signal.sigwait(ENDING)
    finally:
        server.server_close()
        courier.stop()
        books.close()


def _setting(name: str) -> str | None:
    """A variable, or the file that the variable ``<name>_FILE`` names."""
    file = os.environ.get(f"{name}_FILE")
    return os.environ.get(name) or (Path(file).read_text("utf-8").strip() if file else None)


def _read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.payment_simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8099, help="0 takes a free one")
    parser.add_argument("--data", type=Path, default=Path(".shop/sandbox.sqlite3"))
    parser.add_argument("--webhook-url", help="without it no webhooks are written or sent")
    parser.add_argument(
        "--webhook-secret",
        default=_setting("PAYMENT_WEBHOOK_SECRET"),
        help="default: $PAYMENT_WEBHOOK_SECRET, which other users of the machine cannot list, or "
        "the file $PAYMENT_WEBHOOK_SECRET_FILE",
    )
    parser.add_argument(
        "--api-key",
        default=_setting("PAYMENT_PROVIDER_API_KEY"),
        help="default: $PAYMENT_PROVIDER_API_KEY, or the file $PAYMENT_PROVIDER_API_KEY_FILE",
    )
    options = parser.parse_args(arguments)
    if not options.api_key:
        parser.error("--api-key or PAYMENT_PROVIDER_API_KEY is needed")
    if options.webhook_url and not options.webhook_secret:
        parser.error("--webhook-secret or PAYMENT_WEBHOOK_SECRET is needed to sign webhooks")
    return options


if __name__ == "__main__":
    main()
