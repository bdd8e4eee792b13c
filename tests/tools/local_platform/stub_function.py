"""A function for tests of the platform, whose responses are chosen by the request.

Started as ``stub_function.py <name> <record file>``.  ``/slow`` sleeps, ``/crash`` kills the
process, ``/echo`` returns what it received.  An event's subject lists the status codes of the
responses, one per try; ``body`` is 200 with text, ``hang`` is no response.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from urllib.parse import parse_qs, urlsplit

NAME, RECORD = sys.argv[1], Path(sys.argv[2])
LOCK = threading.Lock()
SEEN: list[str] = []
RUNNING = {"now": 0, "most": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        url = urlsplit(self.path)
        if url.path == "/events":
            return self._receive_event(body)
        if url.path == "/crash":
            os.kill(os.getpid(), signal.SIGKILL)
        with LOCK:
            RUNNING["now"] += 1
            RUNNING["most"] = max(RUNNING.values())
        seconds = float(parse_qs(url.query).get("seconds", ["0"])[0])
        time.sleep(seconds)  # slow: as long as the request asks
        with LOCK:
            RUNNING["now"] -= 1
        self._reply(200, json.dumps(self._description(body)).encode())
        return None

    do_POST = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def _description(self, body: bytes) -> dict[str, object]:
        return {
            "function": NAME,
            "pid": os.getpid(),
            "most": RUNNING["most"],
            "method": self.command,
            "target": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body.decode(),
        }

    def _receive_event(self, body: bytes) -> None:
        event = {
            name[3:].lower(): v for name, v in self.headers.items() if name[:3].lower() == "ce-"
        }
        line = {"function": NAME, "at": time.time(), "event": event, "body": body.decode()}
        with LOCK, RECORD.open("a+", encoding="utf-8") as record:
            record.seek(0)
            known = [json.loads(known_line) for known_line in record]
            tries = sum(k["function"] == NAME and k["event"]["id"] == event["id"] for k in known)
            record.write(json.dumps(line) + "\n")
        responses = event.get("subject", "204").split(",")
        response = responses[min(tries, len(responses) - 1)]
        if NAME == "dead_letters" and "undeliverable" not in event["id"]:
            response = "204"
        if response == "hang":
            time.sleep(60)  # slow: longer than any delivery may take
        elif response == "body":
            self._reply(200, b"OK")
        else:
            self._reply(int(response), b"" if response == "204" else b"x" * 2000)

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Does not log."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _exit(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def main() -> None:
    if NAME == "failing":
        sys.exit("the stub fails on purpose")
    signal.signal(signal.SIGTERM, _exit)
    Server((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
