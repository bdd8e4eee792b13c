"""Every ``shop`` command ends with 0, 1 or 2, whatever fails, and no traceback is printed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.main import get_command
from typer.testing import CliRunner, Result

from shop.runtime.config import look_up
from tests.harness import PASSWORD, ShopHarness
from tests.tools.operations.bounce_messages import POSTFIX_FAILED
from tests.tools.payment_simulator.simulator_process import API_KEY
from tools.cli import app

ID = "0199aa00-0000-7000-8000-000000000000"
# a value of each type of parameter; a Path is one that cannot be written
VALUES: dict[object, str] = {
    datetime: "2026-11-28T00:00:00+0000",
    int: "1",
    float: "1",
    Path: "/dev/null/x",
}
# parameters whose value must be another than that of their type
NAMED = {
    "url": "not an address",
    "function": "login",
    "email": "kim@example.kr",
    "role": "staff",
}
# they run until they are stopped, and what they print is a log
SERVERS = {"broker", "dev", "exporter"}
# without it their output has no end
ENDED_BY = {"events tail": ("--no-follow",)}
# options that these need although their parameters are not required: a password is else asked for
# at a terminal, and keys are else read from the environment
NEEDED = {
    "account create": ("--password-stdin",),
    "account reset-password": ("--password-stdin",),
    "account rotate-second-factor-key": ("--keys", f"{'1' * 32} {'2' * 32}"),
}
# what these read from standard input before they connect; others read a password
READ_FROM_INPUT = {
    "mail bounced": POSTFIX_FAILED.replace("MAIL\n", f"<{ID}@shop.kr>\n").replace("ENVELOPE", ID)
}
NOWHERE = "postgresql://shop_auditor@127.0.0.1:9/shop"


Parameters = list[TyperOption | TyperArgument]


def _commands(command: object, name: str) -> Iterator[tuple[str, Parameters]]:
    assert isinstance(command, TyperGroup)
    for word, member in command.commands.items():
        if isinstance(member, TyperGroup):
            yield from _commands(member, f"{word} ")
        else:
            options = [each for each in member.params if isinstance(each, TyperOption)]
            arguments = [each for each in member.params if isinstance(each, TyperArgument)]
            yield name + word, [*options, *arguments]


COMMANDS = dict(_commands(get_command(app), ""))


def _type(parameter: TyperOption | TyperArgument) -> object:
    return parameter.type_descriptor.annotation


def _is_id(parameter: TyperOption | TyperArgument) -> bool:
    return (parameter.name or "").removesuffix("s").endswith("_id")


def _text_for(parameter: TyperOption | TyperArgument) -> str:
    if _is_id(parameter):
        return ID
    return NAMED.get(parameter.name or "") or VALUES.get(_type(parameter)) or "text"


def arguments_of(name: str) -> list[str]:
    """What a command needs to run; without a database it needs its paths and ``--url``."""
    made: list[str] = []
    has_database = any(parameter.name == "database_url" for parameter in COMMANDS[name])
    for parameter in COMMANDS[name]:
        is_address = _type(parameter) is Path or parameter.name == "url"
        if isinstance(parameter, TyperArgument):
            made += [_text_for(parameter)] if parameter.required or _is_id(parameter) else []
        elif parameter.required or (is_address and not has_database):
            made += [parameter.opts[0], _text_for(parameter)]
    return [*made, *ENDED_BY.get(name, ()), *NEEDED.get(name, ())]


def _read_by(variable: str) -> list[str]:
    """The commands with an option that is read from this variable."""
    return [
        name
        for name, parameters in COMMANDS.items()
        if any(variable in (parameter.envvar or ()) for parameter in parameters)
    ]


READS = _read_by("AUDITOR_DATABASE_URL")
ACTS = [name for name in _read_by("OPS_DATABASE_URL") if name not in SERVERS]
MANAGES = _read_by("ACCOUNTS_DATABASE_URL")


# these ask the provider before the database
ASKS_PROVIDER = {name for name in _read_by("PAYMENT_PROVIDER_URL") if name != "check"}


def run(command: str, *arguments: str, **environment: str) -> Result:
    """Runs a command with these arguments, or its own, and with these variables only."""
    # kubectl, where there is one, keeps a cache in HOME
    cleared = dict.fromkeys(os.environ, None) | {"HOME": "/dev/null"} | environment
    return CliRunner().invoke(
        app,
        [*command.split(), *(arguments or arguments_of(command))],
        env=cleared,
        input=READ_FROM_INPUT.get(command, f"{PASSWORD}\n"),
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


def test_every_command_but_servers_prints_json_on_demand() -> None:
    without = {n for n, ps in COMMANDS.items() if not any("--json" in one.opts for one in ps)}

    assert without == SERVERS
    assert READS and ACTS


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in SERVERS])
def test_output_with_json_is_one_document_or_one_a_line(
    shop: ShopHarness, provider: dict[str, str], name: str
) -> None:
    names = ("auditor", "ops", "accounts")
    roles = {f"{role.upper()}_DATABASE_URL": shop.role_url(role) for role in names}
    broker = {"BROKER_URL": "http://127.0.0.1:9/"}

    result = run(name, *arguments_of(name), "--json", **roles, **provider, **broker)

    assert result.exit_code in (0, 1, 2) and isinstance(result.exception, SystemExit | None)
    assert "Traceback" not in result.output
    if result.exit_code == 2:
        assert (result.stdout, bool(result.stderr)) == ("", True)
    elif name != "events tail" or result.stdout:
        assert _documents(result.stdout)
    if name in READS:
        assert result.exit_code in (0, 1), result.output


def _documents(text: str) -> int:
    """How many JSON documents a text is; raises ValueError when it is anything else."""
    try:
        json.loads(text)
    except ValueError:
        return len([json.loads(line) for line in text.splitlines()])
    return 1


def test_unreachable_database_exits_2() -> None:
    wrong = [
        name
        for name in (*READS, *ACTS, *MANAGES, "migrate")
        if name not in ASKS_PROVIDER
        and not fails(run(name, DATABASE_URL=NOWHERE), "failed: OperationalError:", "refused")
    ]
    assert wrong == []


def test_unknown_account_exits_2(shop: ShopHarness, provider: dict[str, str]) -> None:
    url = shop.role_url("unknown")
    wrong = [
        name
        for name in (*READS, *ACTS, *MANAGES, "migrate")
        if not fails(run(name, DATABASE_URL=url, **provider), "OperationalError", "shop_unknown")
    ]
    assert wrong == []


def test_wrong_password_exits_2_and_is_not_printed(shop: ShopHarness) -> None:
    address = shop.role_url("auditor").rpartition("@")[2]
    url = f"postgresql://shop_auditor:wrong-word@{address}"
    results = {name: run(name, DATABASE_URL=url) for name in (*READS, *ACTS, "migrate")}
    wrong = [
        name
        for name, result in results.items()
        if name not in ASKS_PROVIDER
        and (
            not fails(result, "OperationalError", "password authentication failed")
            or "wrong-word" in result.output
        )
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
    manages = "this command needs the role shop_accounts: set ACCOUNTS_DATABASE_URL"
    url = shop.role_url("settlement")
    wrong += [name for name in MANAGES if not fails(run(name, DATABASE_URL=url), manages)]
    assert wrong == []


def test_reader_that_may_not_see_all_rows_is_sent_to_the_auditor(shop: ShopHarness) -> None:
    result = run("check", DATABASE_URL=shop.role_url("ops"))

    assert fails(result, "this command needs the role shop_auditor: set AUDITOR_DATABASE_URL")


def test_missing_setting_exits_2_and_names_the_variable_and_the_file() -> None:
    readers = dict.fromkeys(READS, ("AUDITOR_DATABASE_URL", "auditor-database-url"))
    operators = dict.fromkeys(ACTS, ("OPS_DATABASE_URL", "ops-database-url"))
    managers = dict.fromkeys(MANAGES, ("ACCOUNTS_DATABASE_URL", "accounts-database-url"))
    needed = readers | operators | managers
    wrong = [name for name, words in needed.items() if not fails(run(name), *words)]

    assert wrong == []
    assert fails(run("migrate"), "DATABASE_URL is missing")
    assert fails(run("exporter"), "OPS_DATABASE_URL")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_unknown_option_and_value_of_a_wrong_type_exit_2(name: str) -> None:
    wrong = [
        parameter.opts[0]
        for parameter in COMMANDS[name]
        if isinstance(parameter, TyperOption)
        and _type(parameter) in {*VALUES} - {Path}
        and not fails(run(name, parameter.opts[0], "no", DATABASE_URL=NOWHERE), parameter.opts[0])
    ]

    assert wrong == []
    assert fails(run(name, "--no-such-option", DATABASE_URL=NOWHERE), "--no-such-option")


@pytest.mark.parametrize(
    "name", sorted(COMMANDS.keys() - {*READS, *ACTS, *MANAGES, "doctor", "exporter", "migrate"})
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


@pytest.mark.parametrize("name", [*READS, *ACTS])
def test_interrupt_exits_2(name: str, provider: dict[str, str]) -> None:
    with silent_server() as (url, accepted):
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            if accepted.wait(20):
                signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        address = url.replace("postgresql://shop_auditor@", "http://").removesuffix("/shop")
        asked = {"PAYMENT_PROVIDER_URL": address} if name in ASKS_PROVIDER else {}
        result = run(name, DATABASE_URL=url, **provider | asked)

    assert fails(result, "interrupted")


@pytest.mark.parametrize("name", [name for name in READS if name not in ENDED_BY])
def test_closed_output_exits_2_silently(
    shop: ShopHarness,
    provider: dict[str, str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    variables = {"DATABASE_URL": shop.role_url("auditor"), **provider}
    for variable, text in variables.items():
        monkeypatch.setenv(variable, text)
    with os.fdopen(writing, "w") as output, monkeypatch.context() as changed:
        changed.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as ended:
            app([*name.split(), *arguments_of(name), "--json"])

    assert (ended.value.code, capfd.readouterr().err) == (2, "")


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
