"""Sends webhooks at least once, and executes what is due later; waits while nothing is due."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from sqlite3 import Row
from urllib.parse import urlsplit

from tools.payment_simulator.dashboard import Dashboard
from tools.payment_simulator.records import ProviderRecords

WORKERS = 4
SEND_TIMEOUT_SECONDS = 10.0
RETRY_FIRST_SECONDS = 1.0
RETRY_MAX_SECONDS = 3600.0
RETRY_WINDOW_SECONDS = 24 * 3600.0


class WebhookSender:
    """Threads that send due webhooks, execute due confirmations and drawn actions.

    A webhook is retried after 1, 2, 4, … seconds, at most an hour apart, until a 2xx response.
    After 24 hours it gets the status ``parked``.
    """

    def __init__(self, records: ProviderRecords, url: str | None, secret: str) -> None:
        self._records = records
        self._dashboard = Dashboard(records)
        self._url = url
        self._secret = secret
        self._changed = threading.Condition()
        self._version = 0
        self._in_flight: set[int] = set()
        self._is_stopping = False
        self._threads = [threading.Thread(target=self._run_late, daemon=True)]
        if url:
            self._threads += [
                threading.Thread(target=self._run_webhooks, daemon=True) for _ in range(WORKERS)
            ]

    def start(self) -> None:
        """Starts the threads, which continue with pending webhooks of an earlier run."""
        self._records.wake = self.wake
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Makes the threads check again for due work; called after a commit."""
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Waits for the deliveries in flight (bounded by their timeout) and starts no more."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=SEND_TIMEOUT_SECONDS)

    def _run_late(self) -> None:
        while not self._is_stopping:
            seen = self._version
            now = time.time()
            due = (self._records.confirm_late(now), self._dashboard.run_due(now))
            self._wait(seen, min((at for at in due if at is not None), default=None))

    def _run_webhooks(self) -> None:
        while not self._is_stopping:
            seen = self._version
            webhook, due_at = self._claim()
            if webhook is None:
                self._wait(seen, due_at)
                continue
            try:
                self._deliver(webhook)
            finally:
                with self._changed:
                    self._in_flight.discard(webhook["webhook_id"])
                self.wake()

    def _claim(self) -> tuple[Row | None, float | None]:
        """A due webhook that no other worker is sending, or the time of the next one."""
        with self._changed:
            # Read under the lock: a row that another worker has just closed would be sent again.
            pending = self._records.pending_webhooks()
            free = [row for row in pending if row["webhook_id"] not in self._in_flight]
            if not free:
                return None, None
            if free[0]["next_at"] > time.time():
                return None, free[0]["next_at"]
            self._in_flight.add(free[0]["webhook_id"])
            return free[0], None

    def _wait(self, seen: int, due_at: float | None) -> None:
        with self._changed:
            if self._version == seen and not self._is_stopping:
                self._changed.wait(None if due_at is None else max(0.0, due_at - time.time()))

    def _deliver(self, webhook: Row) -> None:
        tries = webhook["tries"] + 1
        acknowledged = [self._send(webhook["body"].encode()) for _ in range(webhook["copies"])]
        if any(acknowledged):
            self._records.close_webhook(webhook["webhook_id"], tries, "delivered")
            return
        now = time.time()
        next_at = now + min(RETRY_FIRST_SECONDS * 2 ** min(tries - 1, 20), RETRY_MAX_SECONDS)
        if next_at > webhook["created_at"] + RETRY_WINDOW_SECONDS:
            self._records.close_webhook(webhook["webhook_id"], tries, "parked")
        else:
            self._records.delay_webhook(webhook["webhook_id"], tries, next_at)

    def _send(self, body: bytes) -> bool:
        """True if the receiver responded with a 2xx status."""
        parts = urlsplit(self._url or "")
        connection_class = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = connection_class(
            parts.hostname or "", parts.port, timeout=SEND_TIMEOUT_SECONDS
        )
        headers = {
            "Content-Type": "application/json",
            "Webhook-Signature": sign(body, self._secret, int(time.time())),
        }
        try:
            connection.request("POST", parts.path or "/", body, headers)
            response = connection.getresponse()
            response.read(65_536)
            return 200 <= response.status < 300
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def sign(body: bytes, secret: str, at: int) -> str:
    """The signature header: ``t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">``."""
    digest = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
