"""Runs the payment simulator: ``python -m tools.payment_simulator --port 8099 --data FILE``."""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import sys
import threading
from pathlib import Path

from tools.payment_simulator.dashboard import plan_unrequested
from tools.payment_simulator.faults import FaultSource, read_fault_settings
from tools.payment_simulator.records import ProviderRecords
from tools.payment_simulator.server import SimulatorServer, plan_webhook
from tools.payment_simulator.webhook_sender import WebhookSender

POLL_SECONDS = 3600.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(arguments: list[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT; prints one line with the address once it listens."""
    # Blocked in every thread, for sigwait below: a flag set by a signal handler between the accept
    # loop's check and its wait would be noticed only after POLL_SECONDS.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    options = _read_options(arguments)
    options.data.parent.mkdir(parents=True, exist_ok=True)
    records = ProviderRecords(options.data, sends_webhooks=bool(options.webhook_url))
    settings = read_fault_settings(json.loads(records.setting("faults") or "{}"))
    fault_source = FaultSource(settings)
    records.key_life_seconds = settings.key_life_seconds
    records.plan_webhook = functools.partial(plan_webhook, fault_source)
    records.plan_unrequested = functools.partial(plan_unrequested, fault_source)
    webhook_sender = WebhookSender(records, options.webhook_url, options.webhook_secret)
    server = SimulatorServer(
        (options.host, options.port),
        records,
        fault_source,
        options.api_key,
        return_url=options.return_url,
        public_url=options.public_url,
    )
    webhook_sender.start()
    try:
        threading.Thread(
            target=server.serve_forever, args=(POLL_SECONDS,), daemon=True, name="accept"
        ).start()
        print(f"sandbox ready http://{options.host}:{server.server_port}", flush=True)
        signal.sigwait(STOP_SIGNALS)
    finally:
        server.server_close()
        webhook_sender.stop()
        records.close()


def _setting(name: str) -> str | None:
    """The value of a variable, or the content of the file named by ``<name>_FILE``."""
    file = os.environ.get(f"{name}_FILE")
    if os.environ.get(name) or not file:
        return os.environ.get(name)
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        sys.exit(f"{name}_FILE cannot be read, or is not text in UTF-8")


def _read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.payment_simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8099, help="0 selects a free port")
    parser.add_argument("--data", type=Path, default=Path(".shop/sandbox.sqlite3"))
    parser.add_argument("--webhook-url", help="without it no webhooks are recorded or sent")
    parser.add_argument(
        "--public-url",
        default="",
        help="where customers reach it, if that is not where the shop does",
    )
    parser.add_argument(
        "--webhook-secret",
        default=_setting("PAYMENT_WEBHOOK_SECRET"),
        help="default: $PAYMENT_WEBHOOK_SECRET, which does not appear in the process list, or "
        "the file $PAYMENT_WEBHOOK_SECRET_FILE",
    )
    parser.add_argument(
        "--api-key",
        default=_setting("PAYMENT_PROVIDER_API_KEY"),
        help="default: $PAYMENT_PROVIDER_API_KEY, or the file $PAYMENT_PROVIDER_API_KEY_FILE",
    )
    parser.add_argument(
        "--return-url",
        default=os.environ.get("PAYMENT_RETURN_URL", ""),
        help="page of the shop to which customers return; {orderId} and {paymentId} are replaced",
    )
    options = parser.parse_args(arguments)
    if not options.api_key:
        parser.error("pass --api-key or set PAYMENT_PROVIDER_API_KEY")
    if options.webhook_url and not options.webhook_secret:
        parser.error("pass --webhook-secret or set PAYMENT_WEBHOOK_SECRET, to sign webhooks")
    return options


if __name__ == "__main__":
    main()
