"""Accounts of an end-to-end run: customers that it registers, and the shop's staff."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.e2e.client import Call, Client, JsonObject, RetriesExhausted, new_key

STAFF_ROLES = ("staff", "support", "finance", "admin")
# A token is replaced before its last half minute, so that none expires between two tries of a call.
TOKEN_MARGIN_SECONDS = 30.0


class MissingAccount(RuntimeError):
    """There are no valid credentials for an account that a scenario needs."""


@dataclass(frozen=True)
class Credentials:
    """An e-mail address and a password."""

    email: str
    password: str


class Account:
    """An account with an access token that is renewed before it expires; thread-safe."""

    def __init__(self, client: Client, credentials: Credentials, name: str) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._token = ""
        self._valid_until = 0.0
        self.credentials = credentials
        self.name = name
        self.user_id: int | None = None

    @property
    def email(self) -> str:
        """The address the account was registered with."""
        return self.credentials.email

    def token(self) -> str:
        """A valid access token; logs in when there is none.  Raises MissingAccount on failure."""
        with self._lock:
            if time.monotonic() >= self._valid_until:
                session = log_in(self._client, self.credentials)
                self._token = session["accessToken"]
                self._valid_until = time.monotonic() + session["expiresIn"] - TOKEN_MARGIN_SECONDS
            return self._token


def log_in(client: Client, credentials: Credentials) -> JsonObject:
    """The body of ``POST /auth/login``; repeated when there is no response.

    Raises MissingAccount when the login fails.
    """
    body = {"email": credentials.email, "password": credentials.password}
    response = client.send(Call("POST", "/auth/login", json=body, repeats=True))
    if response.status_code != 200:
        raise MissingAccount(f"cannot log in as {credentials.email}: {response.status_code}")
    session: JsonObject = response.json()
    return session


def register(
    client: Client, credentials: Credentials, name: str, accept_language: str = "ko"
) -> Account:
    """Registers a customer.  409 means that an attempt whose response was lost succeeded."""
    body = {"email": credentials.email, "password": credentials.password, "name": name}
    headers = {"Accept-Language": accept_language}
    response = client.send(Call("POST", "/users", json=body, key=new_key(), headers=headers))
    if response.status_code not in (201, 409):
        raise RetriesExhausted(f"POST /users: {response.status_code} {response.text[:200]}")
    account = Account(client, credentials, name)
    me = client.send(Call("GET", "/users/me", token=account.token()))
    account.user_id = me.json()["id"]
    return account


def load_credentials(file: Path | None, environment: Mapping[str, str]) -> dict[str, Credentials]:
    """Credentials by role: from ``file``, else from the environment, else from the local seed.

    ``file`` is JSON ``{"staff": {"email": …, "password": …}, …}``; the variables are named
    ``SHOP_E2E_STAFF_EMAIL`` and ``SHOP_E2E_STAFF_PASSWORD``.  Raises ValueError for a bad file.
    """
    credentials = _seeded_credentials()
    for role in STAFF_ROLES:
        email = environment.get(f"SHOP_E2E_{role.upper()}_EMAIL")
        password = environment.get(f"SHOP_E2E_{role.upper()}_PASSWORD")
        if email and password:
            credentials[role] = Credentials(email, password)
    if file is not None:
        credentials.update(_read_credentials(file))
    return credentials


def _read_credentials(file: Path) -> dict[str, Credentials]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        return {role: Credentials(e["email"], e["password"]) for role, e in read.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        shape = '{"staff": {"email": "…", "password": "…"}, …}'
        raise ValueError(f"{file} must be JSON like {shape}: {error!r}") from error


def _seeded_credentials() -> dict[str, Credentials]:
    # Imported here because a run against a cluster with --accounts does not need the local seed.
    from tools.seed import LOCAL_ACCOUNTS

    return {
        role: Credentials(email, password)
        for role, email, password in LOCAL_ACCOUNTS
        if role in STAFF_ROLES
    }
