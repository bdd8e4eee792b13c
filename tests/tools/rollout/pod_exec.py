"""The subresource ``exec`` of a pod: a command's streams over a WebSocket, as for ``kubectl``.

RFC 6455 with the subprotocol ``v5.channel.k8s.io``: the first byte of each message is the stream.
The command runs on this machine, with the test's interpreter first on the PATH.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from hashlib import sha1
from http.server import BaseHTTPRequestHandler
from struct import pack
from typing import Any

SUBPROTOCOL = "v5.channel.k8s.io"
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, CLOSE = 0x82, 0x88
STDOUT, STDERR, STATUS = 1, 2, 3
NORMAL_CLOSURE = 1000


def execute(handler: BaseHTTPRequestHandler, command: list[str]) -> None:
    """Answers the request for ``exec`` with a command's output and exit status."""
    key = handler.headers["sec-websocket-key"] + GUID
    # the hash that RFC 6455 prescribes; it protects nothing
    accept = b64encode(sha1(key.encode(), usedforsecurity=False).digest()).decode()
    handler.send_response(101)
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "Upgrade")
    handler.send_header("Sec-WebSocket-Accept", accept)
    handler.send_header("Sec-WebSocket-Protocol", SUBPROTOCOL)
    handler.end_headers()
    environment = {**os.environ, "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=100)
    for stream, content in ((STDOUT, result.stdout), (STDERR, result.stderr)):
        if content:
            handler.wfile.write(frame(BINARY, bytes((stream,)) + content))
    status = json.dumps(status_of(result.returncode)).encode()
    handler.wfile.write(frame(BINARY, bytes((STATUS,)) + status))
    handler.wfile.write(frame(CLOSE, pack("!H", NORMAL_CLOSURE)))
    handler.close_connection = True


def frame(kind: int, payload: bytes) -> bytes:
    """One unmasked frame, as a server sends it."""
    length = len(payload)
    head = pack("!BB", kind, length) if length < 126 else pack("!BBH", kind, 126, length)
    return head + payload


def status_of(code: int) -> dict[str, Any]:
    """The status that ends an execution."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
