"""Closing an account is killed at each failpoint: repeated, it is complete, and happened once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from shop.adapters.passwords import hash_password
from tests.chaos.test_process_crashes import started, tick
from tests.function_process import FunctionProcess, ProcessHarness, running_function
from tests.harness import PASSWORD
from tests.tools.payment_simulator.simulator_process import WebhookReceiver
from tests.waiting import wait_for
from tools.local_platform.secrets import Secrets

OF_ACCOUNT = """
select u.state, u.email not like %s,
  (select count(*) from shop.sessions s where s.user_id = u.user_id),
  (select count(*) from shop.outbox o
    where o.type = 'user.closed' and o.subject = u.user_id::text),
  (select count(*) from shop.audit_log a
    where a.action = 'user.closed' and a.object_id = u.user_id::text)
from shop.users u where u.user_id = %s
"""
LEFT = "select table_name from shop.personal_data_left()"


class Closing(NamedTuple):
    """A request that closes an account."""

    function: str
    path: str
    body: dict[str, str] | None
    headers: dict[str, str]


@pytest.fixture(scope="module")
def broker() -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def unharmed(
    processes: ProcessHarness, broker: WebhookReceiver
) -> Iterator[dict[str, FunctionProcess]]:
    """A process of each function that closes accounts, without a failpoint."""
    account = processes.environment("account", BROKER_URL=broker.url)
    manage = processes.environment("manage_accounts", BROKER_URL=broker.url)
    with (
        running_function("container", "account", account) as first,
        running_function("container", "manage_accounts", manage) as second,
    ):
        yield {"account": first, "manage_accounts": second}


@pytest.fixture(scope="module")
def password_hash() -> str:
    return hash_password(PASSWORD)


def closing_of(processes: ProcessHarness, function: str, password_hash: str) -> tuple[int, Closing]:
    """A customer with a cart, and the request that closes the account."""
    headers = processes.customer()
    ((user_id,),) = processes.sql("select max(user_id) from shop.users")
    processes.sql(
        "update shop.users set password_hash = %s where user_id = %s", password_hash, user_id
    )
    processes.sql(
        "insert into shop.cart_items (user_id, product_id, qty) "
        "select %s, min(product_id), 1 from shop.products",
        user_id,
    )
    if function == "account":
        return user_id, Closing(function, "/users/me", {"password": PASSWORD}, headers)
    key = {"Idempotency-Key": uuid4().hex}
    return user_id, Closing(
        function, f"/admin/users/{user_id}", None, processes.account("admin") | key
    )


def state_of(processes: ProcessHarness, user_id: int) -> str:
    ((state,),) = processes.sql("select state from shop.users where user_id = %s", user_id)
    return str(state)


@pytest.mark.parametrize(
    ("function", "failpoint", "is_committed"),
    [
        # the transaction before the closing reads the account's password
        ("account", "W0:1", False),
        ("account", "W2:1", False),
        ("account", "W3:2", True),
        ("account", "W4:2", True),
        ("account", "W5:1", True),
        ("account", "W6:1", True),
        ("manage_accounts", "W1:1", False),
        ("manage_accounts", "W2:1", False),
        ("manage_accounts", "W3:1", True),
        ("manage_accounts", "W5:1", True),
    ],
)
def test_account_is_closed_once_wherever_the_process_crashes(
    processes: ProcessHarness,
    broker: WebhookReceiver,
    unharmed: dict[str, FunctionProcess],
    password_hash: str,
    tmp_path: Path,
    function: str,
    failpoint: str,
    is_committed: bool,
) -> None:
    user_id, closing = closing_of(processes, function, password_hash)
    armed = processes.environment(
        function, SHOP_CRASH=f"{function}:{failpoint}", BROKER_URL=broker.url
    )
    with started(tmp_path, armed, function) as running:
        with pytest.raises((OSError, HTTPException)):
            running.request("DELETE", closing.path, closing.body, closing.headers)
        assert running.process.wait(5) == -signal.SIGKILL
    expected = "CLOSED" if is_committed else "ACTIVE"
    wait_for(lambda: state_of(processes, user_id) == expected, "PostgreSQL ended the transaction")

    answers = [
        unharmed[function].request("DELETE", closing.path, closing.body, closing.headers)
        for _ in range(2)
    ]

    assert [answer[0] for answer in answers] == [204, 204]
    is_operators = function == "manage_accounts"
    rows = processes.sql(OF_ACCOUNT, "%@test.kr", user_id)
    assert [tuple(row) for row in rows] == [("CLOSED", True, 0, 1, int(is_operators))]
    assert processes.sql(LEFT) == []


@pytest.mark.parametrize("failpoint", ["W0", "W2", "W3", "W4", "W6"])
def test_erasure_is_complete_wherever_sweep_crashes(
    processes: ProcessHarness,
    broker: WebhookReceiver,
    unharmed: dict[str, FunctionProcess],
    secrets: Secrets,
    password_hash: str,
    tmp_path: Path,
    failpoint: str,
) -> None:
    """A transaction that began before the closing has added rows after it."""
    user_id, closing = closing_of(processes, "account", password_hash)
    unharmed["account"].request("DELETE", closing.path, closing.body, closing.headers)
    processes.sql(
        "insert into shop.cart_items (user_id, product_id, qty) "
        "select %s, min(product_id), 1 from shop.products",
        user_id,
    )
    processes.sql(
        "update shop.users set closed_at = now() - interval '2 minutes' where user_id = %s", user_id
    )
    for crash in (f"sweep:{failpoint}:1", ""):
        settings = {"BROKER_URL": broker.url} | ({"SHOP_CRASH": crash} if crash else {})
        environment = processes.environment("sweep", **settings)
        with started(tmp_path, environment, "sweep") as running:
            headers, body = tick(secrets, "sweep")
            if crash:
                with pytest.raises((OSError, HTTPException)):
                    running.request("POST", "/events", body, headers)
                assert running.process.wait(5) == -signal.SIGKILL
            else:
                assert running.request("POST", "/events", body, headers)[0] == 204

    erased = "select erased_at is not null from shop.users where user_id = %s"
    assert [tuple(row) for row in processes.sql(erased, user_id)] == [(True,)]
    assert processes.sql("select 1 from shop.cart_items where user_id = %s", user_id) == []
    assert processes.sql(LEFT) == []
