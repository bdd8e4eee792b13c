"""``shop``: the table of commands.  Each lives in its own module, loaded when it is called."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
ledger = typer.Typer(no_args_is_help=True, help="The ledger's hash chains.")
dlq = typer.Typer(no_args_is_help=True, help="Dead letters: events that nobody could take.")
order = typer.Typer(no_args_is_help=True, help="One order.")
alarms = typer.Typer(no_args_is_help=True, help="What a person has to look at.")
app.add_typer(ledger, name="ledger")
app.add_typer(dlq, name="dlq")
app.add_typer(order, name="order")
app.add_typer(alarms, name="alarms")
ghosts = typer.Typer(no_args_is_help=True, help="Charges that only the provider knows.")
app.add_typer(ghosts, name="ghosts")

Probability = Annotated[float, typer.Option(min=0.0, max=1.0)]
# Secrets are better given as variables: other people of the machine can read a command line.
Database = Annotated[
    str,
    typer.Option(envvar="DATABASE_URL", show_envvar=True, help="PostgreSQL", show_default=False),
]
Kind = Annotated[str, typer.Option(envvar="PAYMENT_PROVIDER", help="sandbox or stripe")]
Address = Annotated[str, typer.Option(envvar="PAYMENT_PROVIDER_URL", help="the provider's address")]
Key = Annotated[str, typer.Option(envvar="PAYMENT_PROVIDER_API_KEY", help="the provider's key")]
Zone = Annotated[str, typer.Option(envvar="BUSINESS_TIME_ZONE", help="where a day begins")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document")]
SEOUL = "Asia/Seoul"


@app.callback()
def shop() -> None:
    """Tools for the shop on scale-to-zero functions."""


@app.command()
def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="public port on 127.0.0.1")] = 8080,
    data: Annotated[Path, typer.Option(help="folder for databases, keys and logs")] = Path(".shop"),
    idle: Annotated[float, typer.Option(min=0.1, help="seconds until a function sleeps")] = 30.0,
    duplicate: Probability = 0.0,
    reorder: Probability = 0.0,
    lose: Probability = 0.0,
    kill: Probability = 0.0,
    seed: Annotated[int, typer.Option(help="decides which messages meet a fault")] = 0,
) -> None:
    """Run the whole shop at the desk; Ctrl-C stops it."""
    from tools.local_platform.command import run_local_platform

    faults = {"duplicate": duplicate, "reorder": reorder, "lose": lose, "kill": kill}
    raise typer.Exit(
        run_local_platform(port=port, data=data, idle_seconds=idle, seed=seed, **faults)
    )


@app.command()
def e2e(
    url: Annotated[str, typer.Option(help="the shop's public address")] = "http://127.0.0.1:8080",
    group: Annotated[list[str] | None, typer.Option(help="repeatable; all by default")] = None,
    accounts: Annotated[
        Path | None, typer.Option(help="JSON credentials by role; the local seed's by default")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="leave out what needs staff, support or finance")
    ] = None,
    webhook_secret_file: Annotated[
        Path | None, typer.Option(help="the provider's secret, to try signed notices too")
    ] = None,
    time_zone: Annotated[str, typer.Option(help="the shop's business time zone")] = "Asia/Seoul",
) -> None:
    """Try the shop at an address end to end; ends with ``N passed, N failed``."""
    from tools.e2e.run import run_e2e

    exit_code = run_e2e(
        url=url,
        groups=group or (),
        accounts=accounts,
        without=without or (),
        webhook_secret_file=webhook_secret_file,
        time_zone=time_zone,
    )
    raise typer.Exit(exit_code)


@app.command()
def check(
    database_url: Database,
    at_rest: Annotated[bool, typer.Option(help="also what holds only at rest")] = False,
    provider: Kind = "sandbox",
    provider_url: Address = "",
    api_key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Ask every invariant in one snapshot: 0 all hold, 1 one is broken, 2 could not check."""
    from tools.checker.command import run_check
    from tools.checker.provider_transactions import ProviderAccess

    access = ProviderAccess(provider, provider_url, api_key) if provider_url or api_key else None
    _exit(lambda: run_check(database_url, access, at_rest=at_rest, as_json=as_json))


def faults(
    tier: Annotated[str, typer.Option(help="smoke, full or soak")] = "smoke",
    seed: Annotated[int, typer.Option(help="decides what meets which fault")] = 1,
    orders: Annotated[int | None, typer.Option(min=1, help="the tier's by default")] = None,
    seconds: Annotated[float | None, typer.Option(min=10, help="of load; the tier's")] = None,
    kinds: Annotated[str, typer.Option(help="such as F-01,F-09; all by default")] = "",
    out: Annotated[Path, typer.Option(help="folder for the reports")] = Path(".shop/faults"),
    fail_fast: Annotated[bool, typer.Option("--fail-fast/--keep-going")] = True,
) -> None:
    """Attack the shop with every fault and check its books: 1 when something is wrong."""
    from chaos.command import run_faults

    _exit(
        lambda: run_faults(
            tier=tier,
            seed=seed,
            orders=orders,
            seconds=seconds,
            kinds=kinds,
            out=out,
            fail_fast=fail_fast,
        )
    )


# The tools image has no fault injection; there the command is not offered.
if find_spec("chaos") is not None:
    app.command()(faults)


@ledger.command("verify")
def ledger_verify(
    database_url: Database,
    anchor: Annotated[
        Path | None, typer.Option(help="file with the heads of the last walk; kept up to date")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Walk the hash chains and name the first posting of each that is not true."""
    from tools.operations.ledger import run_verify

    _exit(lambda: run_verify(database_url, anchor=anchor, as_json=as_json))


@app.command()
def reconcile(
    database_url: Database,
    day: Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d"], help="business day")],
    provider: Kind = "sandbox",
    provider_url: Address = "",
    api_key: Key = "",
    time_zone: Zone = SEOUL,
    as_json: AsJson = False,
) -> None:
    """List every difference between provider, payments and ledger of a day: 1 when there is one."""
    from tools.checker.provider_transactions import ProviderAccess
    from tools.operations.reconcile import run_reconcile

    access = ProviderAccess(provider, provider_url, api_key)
    when: date = day.date()
    _exit(
        lambda: run_reconcile(database_url, access, day=when, time_zone=time_zone, as_json=as_json)
    )


@dlq.command("list")
def dlq_list(
    database_url: Database,
    replayed: Annotated[bool, typer.Option(help="the replayed ones too")] = False,
    as_json: AsJson = False,
) -> None:
    """List the dead letters that wait, newest first."""
    from tools.operations.dead_letters import run_list

    _exit(lambda: run_list(database_url, replayed_too=replayed, as_json=as_json))


@dlq.command("show")
def dlq_show(letter_id: str, database_url: Database, as_json: AsJson = False) -> None:
    """Print one dead letter whole."""
    from tools.operations.dead_letters import run_show

    _exit(lambda: run_show(database_url, letter_id, as_json=as_json))


@dlq.command("replay")
def dlq_replay(
    database_url: Database,
    letter_ids: Annotated[list[str] | None, typer.Argument()] = None,
    every: Annotated[bool, typer.Option("--all", help="all that wait, oldest first")] = False,
    url: Annotated[
        str, typer.Option("--to", envvar=["BROKER_URL", "K_SINK"], help="broker or /events")
    ] = "",
    dry_run: Annotated[bool, typer.Option(help="only say what would be sent")] = False,
) -> None:
    """Send dead letters again, to the broker or straight to a function."""
    from tools.operations.dead_letters import run_replay

    wanted = letter_ids or ()
    _exit(lambda: run_replay(database_url, url, wanted, every=every, dry_run=dry_run))


@order.command("explain")
def order_explain(
    order_id: str, database_url: Database, time_zone: Zone = SEOUL, as_json: AsJson = False
) -> None:
    """Tell an order's whole story from the tables."""
    from tools.operations.explain_order import run_explain

    _exit(lambda: run_explain(database_url, order_id, time_zone=time_zone, as_json=as_json))


@alarms.command("list")
def alarms_list(
    database_url: Database,
    resolved: Annotated[bool, typer.Option(help="the resolved ones too")] = False,
    as_json: AsJson = False,
) -> None:
    """List open alarms, newest first."""
    from tools.operations.operator_alerts import run_list

    _exit(lambda: run_list(database_url, resolved_too=resolved, as_json=as_json))


@alarms.command("resolve")
def alarms_resolve(alarm_ids: list[str], database_url: Database) -> None:
    """Say that somebody has looked; the same can ring again from now on."""
    from tools.operations.operator_alerts import run_resolve

    _exit(lambda: run_resolve(database_url, alarm_ids))


Since = Annotated[
    datetime,
    typer.Option(
        "--since", formats=["%Y-%m-%dT%H:%M:%S%z"], help="the moment restored to, with its offset"
    ),
]


@ghosts.command("list")
def ghosts_list(
    database_url: Database,
    since: Since,
    provider: Kind = "sandbox",
    provider_url: Address = "",
    api_key: Key = "",
    as_json: AsJson = False,
) -> None:
    """List charges since the restored moment that no payment announced: 1 when there is one."""
    from tools.checker.provider_transactions import ProviderAccess
    from tools.operations.unmatched_charges import run_list

    access = ProviderAccess(provider, provider_url, api_key)
    _exit(lambda: run_list(database_url, access, since=since, as_json=as_json))


@ghosts.command("return")
def ghosts_return(
    database_url: Database,
    since: Since,
    provider: Kind = "sandbox",
    provider_url: Address = "",
    api_key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Give their money back, each once however often this is run: 1 when one is left."""
    from tools.checker.provider_transactions import ProviderAccess
    from tools.operations.unmatched_charges import run_return

    access = ProviderAccess(provider, provider_url, api_key)
    _exit(lambda: run_return(database_url, access, since=since, as_json=as_json))


@app.command()
def exporter(
    database_url: Database,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 9187,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
) -> None:
    """Serve the business in numbers to Prometheus, as the role shop_ops; Ctrl-C stops it."""
    from tools.exporter import run_exporter

    _exit(lambda: run_exporter(database_url, host=host, port=port))


def _exit(work: Callable[[], int]) -> None:
    from tools.operations.reporting import attempt

    raise typer.Exit(attempt(work))


@app.command()
def migrate(
    passwords: Annotated[
        Path | None, typer.Option(help="folder of files password-<role>, given to the roles")
    ] = None,
    seed: Annotated[bool, typer.Option(help="add the local accounts and products")] = False,
) -> None:
    """Bring the database at DATABASE_URL (an administrator's) to this version."""
    from tools.compose.database import run_migrate

    raise typer.Exit(run_migrate(passwords=passwords, with_seed=seed))


@app.command()
def broker(
    functions: Annotated[str, typer.Option(help="where they are")] = "http://{name}:8080",
    host: Annotated[str, typer.Option(help="address to listen at")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8080,
    data: Annotated[Path, typer.Option(help="folder for undelivered events")] = Path(".shop"),
) -> None:
    """Run the broker and the clock for functions that run elsewhere, such as in containers."""
    from tools.compose.broker import run_broker

    raise typer.Exit(run_broker(host=host, port=port, data=data, functions=functions))


@app.command()
def compose_secrets(folder: Annotated[Path, typer.Option(help="one folder per service")]) -> None:
    """Make the secrets of a Compose shop and give each service its own."""
    from tools.compose.secrets import write_secrets

    print(f"secrets of {write_secrets(folder)} services are in place")


if __name__ == "__main__":
    app()
