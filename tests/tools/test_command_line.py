"""Every ``shop`` command ends with 0, 1 or 2, whatever fails, and no traceback is printed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

from shop.runtime.config import look_up
from tests.harness import ShopHarness
from tests.tools.payment_simulator.simulator_process import API_KEY
from tools.cli import app

ID = "0199aa00-0000-7000-8000-000000000000"
SINCE = ("--since", "2026-11-28T00:00:00+0000")
ALERTS, UNMATCHED = "alarms", "ghosts"
# what each command needs to run
ARGUMENTS: dict[str, tuple[str, ...]] = {
    f"{ALERTS} list": (),
    f"{ALERTS} resolve": (ID,),
    "broker": (),
    "check": (),
    "compose-secrets": ("--folder", "/dev/null/x"),
    "cost": (),
    "dev": ("--data", "/dev/null/x"),
    "dlq drop": (ID, "--reason", "test"),
    "dlq list": (),
    "dlq release": (ID,),
    "dlq replay": ("--all",),
    "dlq show": (ID,),
    "e2e": ("--url", "not an address"),
    "exporter": (),
    "faults": ("--out", "/dev/null/x"),
    f"{UNMATCHED} list": SINCE,
    f"{UNMATCHED} return": SINCE,
    "ledger verify": (),
    "migrate": (),
    "doctor": (),
    "events tail": ("--no-follow",),
    "order explain": (ID,),
    "order list": (),
    "status": (),
    "reconcile": ("--date", "2026-11-28"),
    "rollout pin": (),
    "rollout return": (),
    "rollout run": (),
    "rollout smoke": ("login", "not an address"),
    "rollout status": (),
    "rollout unpin": (),
}
ACTS = (f"{ALERTS} resolve", "dlq drop", "dlq release", "dlq replay", f"{UNMATCHED} return")
READS = (
    f"{ALERTS} list",
    "check",
    "dlq list",
    "dlq show",
    f"{UNMATCHED} list",
    "ledger verify",
    "events tail",
    "order explain",
    "order list",
    "reconcile",
    "status",
)
# they run until they are stopped, or have no result
WITHOUT_JSON = {
    *("broker", "compose-secrets", "dev", "e2e", "exporter", "faults", "migrate"),
    *(f"rollout {name}" for name in ("pin", "return", "run", "smoke", "unpin")),
}
NOWHERE = "postgresql://shop_auditor@127.0.0.1:9/shop"


def commands() -> dict[str, set[str]]:
    """The options of every command."""
    return dict(_commands(get_command(app), ""))


def _commands(command: object, name: str) -> Iterator[tuple[str, set[str]]]:
    assert isinstance(command, TyperGroup)
    for word, member in command.commands.items():
        if isinstance(member, TyperGroup):
            yield from _commands(member, f"{word} ")
        else:
            yield name + word, {option for one in member.params for option in one.opts}


def run(command: str, *arguments: str, **environment: str) -> Result:
    """Runs a command of the table with these variables only."""
    cleared = dict.fromkeys(os.environ, None) | environment
    return CliRunner().invoke(
        app, [*command.split(), *(arguments or ARGUMENTS[command])], env=cleared
    )


def fails(result: Result, *words: str) -> bool:
    """Whether a command exited with 2 and a message with these words, and nothing else."""
    text = result.stderr
    return (
        result.exit_code == 2
        and isinstance(result.exception, SystemExit)
        and "Traceback" not in text
        and all(word in " ".join(text.replace("│", " ").split()) for word in words)
    )


@pytest.fixture
def provider(shop: ShopHarness) -> dict[str, str]:
    """The variables of the payment provider."""
    return {"PAYMENT_PROVIDER_URL": shop.provider_url, "PAYMENT_PROVIDER_API_KEY": API_KEY}


def test_table_has_every_command() -> None:
    assert set(ARGUMENTS) == set(commands())


def test_every_command_with_a_result_prints_json_on_demand() -> None:
    without = {name for name, options in commands().items() if "--json" not in options}

    assert without == WITHOUT_JSON


def test_unreachable_database_exits_2() -> None:
    wrong = [
        name
        for name in (*READS, *ACTS, "migrate")
        if name not in (f"{UNMATCHED} list", f"{UNMATCHED} return", "reconcile")
        and not fails(run(name, DATABASE_URL=NOWHERE), "failed: OperationalError:", "refused")
    ]
    assert wrong == []


def test_unknown_account_exits_2(shop: ShopHarness, provider: dict[str, str]) -> None:
    url = shop.role_url("unknown")
    wrong = [
        name
        for name in (*READS, *ACTS, "migrate")
        if not fails(run(name, DATABASE_URL=url, **provider), "OperationalError", "shop_unknown")
    ]
    assert wrong == []


def test_wrong_role_exits_2_and_names_the_right_one(
    shop: ShopHarness, provider: dict[str, str]
) -> None:
    # every role reads the outbox, so events tail has no wrong role
    readers = [name for name in READS if name != "events tail"]
    right = dict.fromkeys(readers, "the role shop_auditor: set AUDITOR_DATABASE_URL")
    right |= dict.fromkeys(ACTS, "the role shop_ops: set OPS_DATABASE_URL")
    right |= {"migrate": "an administrator's DATABASE_URL"}
    url = shop.role_url("identity")
    wrong = [
        name
        for name, words in right.items()
        if not fails(run(name, DATABASE_URL=url, **provider), f"this command needs {words}")
    ]
    assert wrong == []


def test_reader_that_may_not_see_all_rows_is_sent_to_the_auditor(shop: ShopHarness) -> None:
    result = run("check", DATABASE_URL=shop.role_url("ops"))

    assert fails(result, "this command needs the role shop_auditor: set AUDITOR_DATABASE_URL")


def test_missing_setting_exits_2_and_names_the_variable_and_the_file() -> None:
    readers = dict.fromkeys(READS, ("AUDITOR_DATABASE_URL", "auditor-database-url"))
    operators = dict.fromkeys(ACTS, ("OPS_DATABASE_URL", "ops-database-url"))
    wrong = [name for name, words in (readers | operators).items() if not fails(run(name), *words)]

    assert wrong == []
    assert fails(run("migrate"), "DATABASE_URL is missing")
    assert fails(run("exporter"), "OPS_DATABASE_URL")


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_unknown_option_exits_2(name: str) -> None:
    assert fails(run(name, "--no-such-option", DATABASE_URL=NOWHERE), "--no-such-option")


@pytest.mark.parametrize(
    "name",
    [
        *("broker", "compose-secrets", "cost", "dev", "e2e", "faults"),
        *(name for name in ARGUMENTS if name.startswith("rollout")),
    ],
)
def test_wrong_argument_or_setting_exits_2(name: str) -> None:
    assert fails(run(name))


def test_password_of_a_malformed_url_is_not_printed() -> None:
    result = run("check", AUDITOR_DATABASE_URL="postgresql:/shop_auditor:secret-word@db/shop")

    assert fails(result, "AUDITOR_DATABASE_URL or DATABASE_URL is not an address")
    assert "secret-word" not in result.output


def test_variable_of_the_role_precedes_database_url_and_a_secret_file_replaces_both(
    shop: ShopHarness, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("secrets")
    right = shop.role_url("auditor")
    (folder / "auditor-database-url").write_text(right)

    by_variable = run("dlq list", "--json", DATABASE_URL=NOWHERE, AUDITOR_DATABASE_URL=right)
    by_file = run("dlq list", "--json", SHOP_SECRETS_DIR=str(folder))

    assert (by_variable.exit_code, by_file.exit_code) == (0, 0)
    assert look_up("auditor_database_url") is None


@contextmanager
def silent_server() -> Generator[tuple[str, threading.Event]]:
    """A URL of a server that accepts a connection and sends nothing, and when it was accepted."""
    accepted = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            accepted.set()
            with connection:
                connection.recv(65_536)
                connection.recv(1)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"postgresql://shop_auditor@127.0.0.1:{listener.getsockname()[1]}/shop", accepted


@pytest.mark.parametrize("name", [name for name in (*READS, *ACTS) if "ghosts" not in name])
def test_interrupt_exits_2(name: str, provider: dict[str, str]) -> None:
    with silent_server() as (url, accepted):
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            if accepted.wait(20):
                signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        result = run(name, DATABASE_URL=url, **provider)

    assert fails(result, "interrupted")


@pytest.mark.parametrize("name", ["check", "dlq list", "ledger verify"])
def test_closed_output_exits_2_silently(shop: ShopHarness, name: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "tools.cli", *name.split()],
            env={"PATH": os.environ["PATH"], "DATABASE_URL": shop.role_url("auditor")},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)

    assert (ended.returncode, ended.stderr) == (2, "")


def test_bug_is_reported_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> int:
        raise KeyError("x")

    monkeypatch.setattr("tools.operations.dead_letters.run_list", broken)

    assert fails(run("dlq list", DATABASE_URL=NOWHERE), "failed: KeyError", "SHOP_TRACEBACK=1")


@pytest.mark.parametrize("name", ["check", "ledger verify"])
def test_recorded_audit_stores_whether_something_was_found(shop: ShopHarness, name: str) -> None:
    roles = {"AUDITOR_DATABASE_URL": shop.role_url("auditor")}
    both = roles | {"OPS_DATABASE_URL": shop.role_url("ops")}

    results = [run(name, "--record", **both).exit_code]
    shop.product()
    shop.sql("update shop.stock set on_hand = on_hand + 1")
    shop.sql("update shop.ledger_chains set chain_seq = chain_seq + 1")
    results.append(run(name, "--record", **both).exit_code)

    assert results == [0, 1]
    assert shop.sql("select name, found from shop.audits") == [{"name": name, "found": True}]
    assert fails(run(name, "--record", **roles), "OPS_DATABASE_URL is missing")


def test_version_is_printed() -> None:
    result = run("--version", "--version")

    assert (result.exit_code, result.stdout.count(".")) == (0, 2)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_the_commands(shell: str) -> None:
    words = {"COMP_WORDS": "shop dl", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "shop dl"}
    action = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    ended = subprocess.run(
        [sys.executable, "-c", "from tools.cli import app; app(prog_name='shop')"],
        env={"PATH": os.environ["PATH"], "_SHOP_COMPLETE": f"complete_{shell}", **words, **action},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "dlq" in ended.stdout
