"""Whom a run acts as: customers it registers itself, and the shop's own people."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.e2e.client import Call, Client, GaveUp, new_key

STAFF_ROLES = ("staff", "support", "finance")
# A token is replaced before its last half minute, so that none expires between two tries of a call.
TOKEN_MARGIN_SECONDS = 30.0


class NoAccount(RuntimeError):
    """A scenario needs a person whom nobody told us how to log in as."""


@dataclass(frozen=True)
class Credentials:
    """An e-mail address and a password."""

    email: str
    password: str


class Account:
    """A person with an access token that is renewed before it expires; threads may share it."""

    def __init__(self, client: Client, credentials: Credentials, name: str) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = 0.0
        self.credentials = credentials
        self.name = name
        self.user_id: int | None = None

    @property
    def email(self) -> str:
        """The address the account was registered with."""
        return self.credentials.email

    def token(self) -> str:
        """A valid access token; logs in when there is none.  Raises NoAccount when refused."""
        with self._lock:
            if time.monotonic() >= self._good_until:
                answer = log_in(self._client, self.credentials)
                self._token = answer["accessToken"]
                self._good_until = time.monotonic() + answer["expiresIn"] - TOKEN_MARGIN_SECONDS
            return self._token


def log_in(client: Client, credentials: Credentials) -> dict[str, Any]:
    """The answer of ``POST /auth/login``; a try without an answer is started over.

    Raises NoAccount when the shop refuses them.
    """
    body = {"email": credentials.email, "password": credentials.password}
    response = client.send(Call("POST", "/auth/login", json=body, repeats=True))
    if response.status_code != 200:
        raise NoAccount(f"cannot log in as {credentials.email}: {response.status_code}")
    answer: dict[str, Any] = response.json()
    return answer


def register(client: Client, credentials: Credentials, name: str) -> Account:
    """A new customer.  409 after a lost answer means that the first try had arrived."""
    body = {"email": credentials.email, "password": credentials.password, "name": name}
    response = client.send(Call("POST", "/users", json=body, key=new_key()))
    if response.status_code not in (201, 409):
        raise GaveUp(f"POST /users: {response.status_code} {response.text[:200]}")
    account = Account(client, credentials, name)
    me = client.send(Call("GET", "/users/me", token=account.token()))
    account.user_id = me.json()["id"]
    return account


def known_people(file: Path | None, environment: Mapping[str, str]) -> dict[str, Credentials]:
    """Credentials by role: those in ``file``, else those in the environment, else the local seed's.

    ``file`` is JSON ``{"staff": {"email": …, "password": …}, …}``; the environment's names are
    ``SHOP_E2E_STAFF_EMAIL`` and ``SHOP_E2E_STAFF_PASSWORD``.  Raises ValueError for a bad file.
    """
    people = _seeded_people()
    for role in STAFF_ROLES:
        email = environment.get(f"SHOP_E2E_{role.upper()}_EMAIL")
        password = environment.get(f"SHOP_E2E_{role.upper()}_PASSWORD")
        if email and password:
            people[role] = Credentials(email, password)
    if file is not None:
        people.update(_people_in(file))
    return people


def _people_in(file: Path) -> dict[str, Credentials]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        return {role: Credentials(who["email"], who["password"]) for role, who in read.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        shape = '{"staff": {"email": "…", "password": "…"}, …}'
        raise ValueError(f"{file} must be JSON like {shape}: {error!r}") from error


def _seeded_people() -> dict[str, Credentials]:
    # Imported here because a run against a cluster with --accounts needs nothing of the local seed.
    from tools.seed import LOCAL_ACCOUNTS

    return {
        role: Credentials(email, password)
        for role, email, password in LOCAL_ACCOUNTS
        if role in STAFF_ROLES
    }
