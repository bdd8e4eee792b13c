"""Runs the mail catcher: ``python -m tools.mail_catcher --smtp-port 1025 --port 8025``.

A mail server for development and tests: it accepts every mail, delivers none, and shows them.
"""

from __future__ import annotations

import argparse
import signal
import threading

from tools.mail_catcher.messages import CaughtMails
from tools.mail_catcher.pages import PagesServer
from tools.mail_catcher.smtp import Catcher, smtp_server

POLL_SECONDS = 3600.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(arguments: list[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT; prints one line with the address once it listens."""
    # as in the payment simulator: blocked in every thread, for sigwait below
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    options = _read_options(arguments)
    mails = CaughtMails(options.kept)
    catcher = Catcher(mails, options.seed)
    server = smtp_server(catcher, options.host, options.smtp_port)
    pages = PagesServer((options.host, options.port), mails, catcher)
    server.start()
    try:
        threading.Thread(target=pages.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        print(f"mail catcher ready http://{options.host}:{pages.server_port}", flush=True)
        signal.sigwait(STOP_SIGNALS)
    finally:
        pages.server_close()
        server.stop()


def _read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.mail_catcher", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--smtp-port", type=int, default=1025)
    parser.add_argument("--port", type=int, default=8025, help="of the page and of JSON")
    parser.add_argument("--kept", type=int, default=1000, help="mails that are kept at most")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the faults")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
