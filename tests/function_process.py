"""Starts functions as a platform starts them: processes with settings in their environment."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from shop.adapters.tokens import TokenIssuer
from shop.registry import spec_of
from tests.openapi_document import undocumented
from tests.rows import rows_of
from tests.waiting import wait_for
from tools.local_platform.function_environment import AUDIENCE, ISSUER, Endpoints
from tools.local_platform.servers import free_port

ROOT = Path(__file__).resolve().parents[1]

HttpResult = tuple[int, dict[str, str], bytes]


class FunctionProcess:
    """One function process, and requests to its port."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> HttpResult:
        """Sends one request on a connection of its own; returns status, headers and body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            return request_on(connection, method, path, body, headers)
        finally:
            connection.close()

    def send_bytes(self, *parts: bytes) -> bytes:
        """Sends the bytes as they are; returns what is received until the connection closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            received = b""
            try:
                for part in parts:
                    connection.sendall(part)
                while chunk := connection.recv(65_536):
                    received += chunk
            except ConnectionError:
                pass  # the server closed the connection before it had read everything
            return received

    def is_up(self) -> bool:
        assert self.process.poll() is None, f"exited with {self.process.returncode}"
        try:
            return self.request("GET", "/health/liveness")[0] == 200
        except OSError:
            return False


def request_on(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> HttpResult:
    """Sends one request on an open connection; returns status, headers and body."""
    sent = dict(headers or {})
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    if content is not None and "content-type" not in {name.lower() for name in sent}:
        sent["Content-Type"] = "application/json"
    connection.request(method, path, content, sent)
    response = connection.getresponse()
    received = response.read()
    seen = {k.lower(): v for k, v in response.getheaders()}
    # from a function, which has the path: no edge and no double of one sends this header
    if "x-content-type-options" in seen and response.status not in (404, 405):
        flaws = undocumented(method, path, response.status, seen)
        assert flaws == [], f"the OpenAPI document is incomplete: {flaws}"
    return response.status, seen, received


class ProcessHarness:
    """The endpoints and settings that function processes run with, and accounts to call them."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints

    def environment(self, function: str, **settings: str) -> dict[str, str]:
        port = free_port()
        values = self.endpoints.environment_for(spec_of(function))
        own = {"HOST": "127.0.0.1", "PORT": str(port), "RATE_LIMIT_PER_MINUTE": "0"}
        return values | own | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | settings

    def sql(self, statement: str, *parameters: Any) -> list[Any]:
        """Runs a statement as the administrator."""
        with psycopg.connect(self.endpoints.admin_url, autocommit=True) as connection:
            return rows_of(connection.execute(statement.encode(), parameters))

    def customer(self) -> dict[str, str]:
        """The Authorization header of a new customer."""
        return self.account("customer")

    def account(self, role: str) -> dict[str, str]:
        """The Authorization header of a new account with this role."""
        email, session_id = f"{uuid4().hex}@test.kr", uuid4()
        ((user_id,),) = self.sql(
            "insert into shop.users (email, email_key, name, password_hash, role) "
            "values (%s, %s, 'Test', '!', %s) returning user_id",
            email,
            email,
            role,
        )
        self.sql(
            "insert into shop.sessions (session_id, user_id, expires_at) "
            "values (%s, %s, now() + interval '1 day')",
            session_id,
            user_id,
        )
        key = self.endpoints.secrets.jwt_private_key
        issuer = TokenIssuer(key, ISSUER, AUDIENCE, lambda: datetime.now(UTC))
        return {"Authorization": f"Bearer {issuer.issue(user_id, role, session_id)[0]}"}


def command(entry: str, function: str, port: str) -> list[str]:
    """The command line that serves the function: our container entry or functions-framework."""
    if entry == "container":
        return [sys.executable, "-m", "shop.runtime", function]
    source = str(ROOT / "functions" / function / "main.py")
    framework = str(Path(sys.executable).parent / "functions-framework")
    options = ["--source", source, "--target", "main", "--host", "127.0.0.1", "--port", port]
    return [framework, *options]


@contextmanager
def running_function(
    entry: str, function: str, environment: dict[str, str], cwd: Path = ROOT
) -> Generator[FunctionProcess]:
    """Starts the function, waits until it is healthy, and kills it afterwards."""
    process = subprocess.Popen(
        command(entry, function, environment["PORT"]),
        env=environment,
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    running = FunctionProcess(process, int(environment["PORT"]))
    try:
        wait_for(running.is_up, f"{function} is healthy under the {entry} entry")
        yield running
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
