"""The image's health check: ``python -I -S probe.py [path]`` checks the liveness of its container.

A separate script on a bare socket: it runs every few seconds in each container, and importing an
HTTP client takes longer than the whole check.
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT_SECONDS = 2
LIVENESS = "/health/liveness"
REQUEST = "GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def is_alive(port: int, path: str = LIVENESS) -> bool:
    """Whether ``GET path`` on this port of this machine returns 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
            connection.sendall(REQUEST.format(path).encode("ascii"))
            return connection.recv(64)[8:].startswith(b" 200 ")
    except OSError:
        return False


def main(arguments: list[str]) -> int:
    """The exit status: 0 when the function is alive, else 1."""
    return 0 if is_alive(int(os.environ.get("PORT", "8080")), *arguments) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
