"""The command line ``shop``; each command imports only the modules that it needs."""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from shop.primitives.spec import ROLES
from shop.primitives.statuses import AccountState, OrderStatus
from tools.command_line import (
    AccountsUrl,
    AsJson,
    BusinessTimeZone,
    Commands,
    LinkKey,
    MailCatcherUrl,
    OperatorUrl,
    OptionalMailCatcherUrl,
    OptionalSimulatorUrl,
    ProviderApiKey,
    ProviderKind,
    ProviderUrl,
    ReaderUrl,
    Record,
    ReplicaUrl,
    SecondFactorKeys,
    ShopLanguage,
    recorded,
    setting,
)

app = Commands(no_args_is_help=True, pretty_exceptions_enable=False)
ledger = Commands(no_args_is_help=True, help="Verify the ledger's hash chains.")
dlq = Commands(
    no_args_is_help=True,
    help="List, show, replay and drop dead letters: events that ran out of retries.",
)
order = Commands(no_args_is_help=True, help="List orders, and inspect one.")
account = Commands(no_args_is_help=True, help="Create and change the accounts of operators.")
events = Commands(no_args_is_help=True, help="Watch the events of the shop.")
alerts = Commands(no_args_is_help=True, help="List and resolve operator alerts.")
mail = Commands(no_args_is_help=True, help="Read the mails of the mail catcher; record bounces.")
unmatched = Commands(no_args_is_help=True, help="List and refund charges without a payment row.")
app.add_typer(ledger, name="ledger")
app.add_typer(dlq, name="dlq")
app.add_typer(order, name="order")
app.add_typer(account, name="account")
app.add_typer(events, name="events")
app.add_typer(alerts, name="alarms")
app.add_typer(mail, name="mail")
app.add_typer(unmatched, name="unmatched-charges")
# as the command was called in version 0.1.0
app.add_typer(unmatched, name="ghosts", hidden=True)
rollout = Commands(
    no_args_is_help=True,
    help="Move requests to new revisions step by step, or return them (Knative, through kubectl).",
)
app.add_typer(rollout, name="rollout")

Namespace = Annotated[
    str,
    typer.Option("--namespace", "-n", envvar="SHOP_NAMESPACE", help="namespace of the shop"),
]
Context = Annotated[str, typer.Option(help="context of kubectl; the current one by default")]
MINUTES_MAX = 52_560_000  # a century
Probability = Annotated[float, typer.Option(min=0.0, max=1.0, help="probability of the fault")]


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        # an image has the code without the package's metadata
        print(os.environ.get("SHOP_VERSION") or version("msa-shop"))
        raise typer.Exit


@app.callback()
def shop(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Run, test and operate the shop.

    Exit codes: 0 success; 1 a problem was found or a check failed; 2 the command could not run.
    """


@app.command()
def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="public port on 127.0.0.1")] = 8080,
    live_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="port of the live view; the one after --port"),
    ] = None,
    data: Annotated[Path, typer.Option(help="folder for databases, keys and logs")] = Path(".shop"),
    idle: Annotated[
        float, typer.Option(min=0.1, help="idle seconds until a function is stopped")
    ] = 30.0,
    duplicate: Probability = 0.0,
    reorder: Probability = 0.0,
    lose: Probability = 0.0,
    kill: Probability = 0.0,
    seed: Annotated[int, typer.Option(help="random seed of the faults")] = 0,
    broker: Annotated[
        str,
        typer.Option(help="local stores events; imc delivers as Knative's in-memory broker"),
    ] = "local",
) -> int:
    """Run the whole shop on this machine; Ctrl-C stops it."""
    from tools.local_platform.broker import LocalBrokerClass
    from tools.local_platform.command import run_local_platform

    if broker not in tuple(LocalBrokerClass):
        raise typer.BadParameter("must be local or imc", param_hint="--broker")
    faults = {"duplicate": duplicate, "reorder": reorder, "lose": lose, "kill": kill}
    return run_local_platform(
        port=port,
        live_port=live_port,
        data=data,
        idle_seconds=idle,
        seed=seed,
        broker_class=LocalBrokerClass(broker),
        **faults,
    )


@app.command()
def e2e(
    *,
    url: Annotated[str, typer.Option(help="public URL of the shop")] = "http://127.0.0.1:8080",
    group: Annotated[
        list[str] | None, typer.Option(help="group to run, repeatable; all by default")
    ] = None,
    accounts: Annotated[
        Path | None,
        typer.Option(help="JSON file of credentials by role; the local seed's by default"),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="role whose scenarios are skipped, repeatable: staff, support, finance or admin"
        ),
    ] = None,
    webhook_secret_file: Annotated[
        Path | None,
        typer.Option(help="file with the webhook secret; without it signed webhooks are skipped"),
    ] = None,
    catcher_url: OptionalMailCatcherUrl,
    simulator_url: OptionalSimulatorUrl,
    time_zone: BusinessTimeZone,
    as_json: AsJson = False,
) -> int:
    """Run the end-to-end scenarios against a shop; the last line is "N passed, N failed"."""
    from tools.e2e.run import run_e2e

    return run_e2e(
        url=url,
        groups=group or (),
        accounts=accounts,
        without=without or (),
        webhook_secret_file=webhook_secret_file,
        catcher_url=catcher_url,
        simulator_url=simulator_url,
        time_zone=time_zone,
        as_json=as_json,
    )


@app.command()
def check(
    *,
    database_url: ReaderUrl,
    at_rest: Annotated[
        bool,
        typer.Option(
            "--at-rest", help="also check the invariants that hold only when no work is pending"
        ),
    ] = False,
    only_broken: Annotated[
        bool, typer.Option("--only-broken", help="print broken invariants only")
    ] = False,
    provider: ProviderKind,
    provider_url: ProviderUrl,
    api_key: ProviderApiKey,
    record: Record = False,
    as_json: AsJson = False,
) -> int:
    """Check every invariant in one snapshot; exits 1 when one is broken."""
    from tools.checker.command import run_check
    from tools.checker.provider_transactions import ProviderAccess

    access = ProviderAccess(provider, provider_url, api_key) if provider_url or api_key else None
    code = run_check(
        database_url, access, at_rest=at_rest, only_broken=only_broken, as_json=as_json
    )
    return recorded("check", code) if record else code


def faults(
    tier: Annotated[str, typer.Option(help="smoke, full or soak")] = "smoke",
    seed: Annotated[int, typer.Option(help="random seed of the run")] = 1,
    orders: Annotated[
        int | None, typer.Option(min=1, help="number of orders; the tier's by default")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=10, help="seconds of load; the tier's by default")
    ] = None,
    kinds: Annotated[
        str, typer.Option(help="ids of faults, such as F-01,F-09; all by default")
    ] = "",
    broker: Annotated[
        str, typer.Option(help="local or imc; by default imc for odd seeds, local for even ones")
    ] = "",
    out: Annotated[Path, typer.Option(help="folder for the reports")] = Path(".shop/faults"),
    fail_fast: Annotated[bool, typer.Option("--fail-fast/--keep-going")] = True,
    as_json: AsJson = False,
) -> int:
    """Inject every fault under load and check the invariants; exits 1 when one is broken."""
    from chaos.command import run_faults
    from tools.operations.reporting import progress_apart

    with progress_apart(as_json=as_json):
        code = run_faults(
            tier=tier,
            seed=seed,
            orders=orders,
            seconds=seconds,
            kinds=kinds,
            broker=broker,
            out=out,
            fail_fast=fail_fast,
        )
    if as_json:
        print((out / "run.jsonl").read_text("ascii"), end="")
    return code


# The tools image does not contain the package chaos, so it has no such command.
if find_spec("chaos") is not None:
    app.command()(faults)


@app.command()
def status(
    database_url: ReaderUrl,
    replica_url: ReplicaUrl,
    namespace: Namespace = "shop",
    context: Context = "",
    watch: Annotated[
        bool, typer.Option("--watch", help="repeat every two seconds until Ctrl-C")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Print the state of the shop on one screen; exits 1 when something needs an operator."""
    from tools.operations.status import run_status

    return run_status(
        database_url,
        replica_url,
        namespace=namespace,
        context=context,
        watch=watch,
        as_json=as_json,
    )


@app.command()
def doctor(as_json: AsJson = False) -> int:
    """Examine settings, roles and what they reach; exits 1 when something is missing or wrong."""
    from tools.operations.doctor import run_doctor

    return run_doctor(as_json=as_json)


@ledger.command("verify")
def ledger_verify(
    database_url: ReaderUrl,
    anchor: Annotated[
        Path | None,
        typer.Option(help="file with the chain heads of the last verification; updated on success"),
    ] = None,
    record: Record = False,
    as_json: AsJson = False,
) -> int:
    """Verify the hash chains and report each chain's first error; exits 1 when there is one."""
    from tools.operations.ledger import run_verify

    code = run_verify(database_url, anchor=anchor, as_json=as_json)
    return recorded("ledger verify", code) if record else code


@app.command()
def reconcile(
    *,
    database_url: ReaderUrl,
    day: Annotated[
        datetime | None,
        typer.Option("--date", formats=["%Y-%m-%d"], help="business day; yesterday by default"),
    ] = None,
    provider: ProviderKind,
    provider_url: ProviderUrl,
    api_key: ProviderApiKey,
    time_zone: BusinessTimeZone,
    record: Record = False,
    as_json: AsJson = False,
) -> int:
    """List the differences between provider, payments and ledger; exits 1 when there is one."""
    from tools.checker.provider_transactions import ProviderAccess
    from tools.operations.reconcile import run_reconcile

    access = ProviderAccess(provider, provider_url, api_key)
    code = run_reconcile(
        database_url,
        access,
        day=day.date() if day else None,
        time_zone=time_zone,
        as_json=as_json,
    )
    return recorded("reconcile", code) if record else code


@dlq.command("list")
def dlq_list(
    database_url: ReaderUrl,
    closed: Annotated[
        bool, typer.Option("--closed", help="include those that were replayed or dropped")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """List the open dead letters, newest first."""
    from tools.operations.dead_letters import run_list

    return run_list(database_url, include_closed=closed, as_json=as_json)


@dlq.command("show")
def dlq_show(letter_id: str, database_url: ReaderUrl, as_json: AsJson = False) -> int:
    """Print all fields of one dead letter, and why its consumer rejected it."""
    from tools.operations.dead_letters import run_show

    return run_show(database_url, letter_id, as_json=as_json)


@dlq.command("replay")
def dlq_replay(
    *,
    database_url: OperatorUrl,
    letter_ids: Annotated[list[str] | None, typer.Argument()] = None,
    every: Annotated[bool, typer.Option("--all", help="all open ones, oldest first")] = False,
    url: Annotated[
        str,
        setting(
            "BROKER_URL",
            "K_SINK",
            option="--to",
            what="URL of the broker or of a function's /events",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what would be sent")] = False,
    as_json: AsJson = False,
) -> int:
    """Send dead letters again, to the broker or to one function; exits 1 when one is rejected."""
    from tools.operations.dead_letters import run_replay

    selected = letter_ids or ()
    return run_replay(database_url, url, selected, every=every, dry_run=dry_run, as_json=as_json)


@dlq.command("drop")
def dlq_drop(
    letter_ids: list[str],
    database_url: OperatorUrl,
    reason: Annotated[str, typer.Option(help="why it will never be processed, and who decided it")],
    as_json: AsJson = False,
) -> int:
    """Close dead letters that will never be processed; exits 1 when one is not open."""
    from tools.operations.dead_letters import run_drop

    return run_drop(database_url, letter_ids, reason=reason, as_json=as_json)


@dlq.command("release")
def dlq_release(event_ids: list[str], database_url: OperatorUrl, as_json: AsJson = False) -> int:
    """Publish quarantined events again; exits 1 when one is not quarantined."""
    from tools.operations.quarantine import run_release

    return run_release(database_url, event_ids, as_json=as_json)


@order.command("list")
def order_list(
    database_url: ReaderUrl,
    replica_url: ReplicaUrl,
    status: Annotated[
        OrderStatus | None, typer.Option(case_sensitive=False, help="orders in this status only")
    ] = None,
    older_than: Annotated[
        float,
        typer.Option(
            min=0,
            max=MINUTES_MAX,
            help="orders that were placed so many minutes ago or earlier",
        ),
    ] = 0.0,
    product: Annotated[int | None, typer.Option(help="orders with this product id only")] = None,
    customer: Annotated[int | None, typer.Option(help="orders of this user id only")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="orders at most")] = 50,
    as_json: AsJson = False,
) -> int:
    """List orders, newest first."""
    from shop.orders.search import Criteria
    from shop.primitives.clock import utc_now
    from tools.operations.list_orders import run_list

    criteria = Criteria(
        user_id=customer,
        product_id=product,
        status=status,
        placed_before=utc_now() - timedelta(minutes=older_than),
    )
    return run_list(database_url, replica_url, criteria, limit=limit, as_json=as_json)


Email = Annotated[str, typer.Argument(help="its e-mail address")]
PasswordFromStdin = Annotated[
    bool,
    typer.Option("--password-stdin", help="read the password from the standard input"),
]

ByLink = Annotated[
    bool, typer.Option("--link", help="print the token of a link by which its owner sets it")
]


def _role(name: str | None) -> str | None:
    if name is not None and name not in ROLES:
        raise typer.BadParameter(f"must be one of {', '.join(ROLES)}")
    return name


@account.command("create")
def account_create(
    email: Email,
    database_url: AccountsUrl,
    role: Annotated[str, typer.Option(help="what it may do", callback=_role)],
    name: Annotated[str, typer.Option(help="the person's name")],
    language: ShopLanguage,
    link_key: LinkKey,
    from_stdin: PasswordFromStdin = False,
    by_link: ByLink = False,
    as_json: AsJson = False,
) -> int:
    """Create an account with a role; the password is typed, read, or set by its owner."""
    from tools.operations.accounts import password_or_key, run_create

    secret = password_or_key(from_stdin=from_stdin, by_link=by_link, link_key=link_key)
    return run_create(
        database_url,
        email,
        name=name,
        role=role,
        language=language,
        secret=secret,
        as_json=as_json,
    )


@account.command("list")
def account_list(
    database_url: AccountsUrl,
    email: Annotated[str | None, typer.Option(help="the account of this address only")] = None,
    role: Annotated[
        str | None, typer.Option(help="accounts with this role only", callback=_role)
    ] = None,
    state: Annotated[
        AccountState | None, typer.Option(case_sensitive=False, help="accounts in this state only")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="accounts at most")] = 50,
    as_json: AsJson = False,
) -> int:
    """List accounts, newest first."""
    from tools.operations.accounts import run_list

    return run_list(database_url, email=email, role=role, state=state, limit=limit, as_json=as_json)


@account.command("role")
def account_role(
    email: Email,
    role: Annotated[str, typer.Argument(help="what it may do from now on", callback=_role)],
    database_url: AccountsUrl,
    as_json: AsJson = False,
) -> int:
    """Change the role of an account; tokens with the old role are rejected at once."""
    from tools.operations.accounts import run_change

    return run_change(database_url, email, role=role, as_json=as_json)


@account.command("disable")
def account_disable(email: Email, database_url: AccountsUrl, as_json: AsJson = False) -> int:
    """Disable an account and end its sessions; exits 1 for the last active administrator."""
    from tools.operations.accounts import run_change

    return run_change(database_url, email, state=AccountState.DISABLED, as_json=as_json)


@account.command("enable")
def account_enable(email: Email, database_url: AccountsUrl, as_json: AsJson = False) -> int:
    """Enable an account that was disabled."""
    from tools.operations.accounts import run_change

    return run_change(database_url, email, state=AccountState.ACTIVE, as_json=as_json)


@account.command("close")
def account_close(email: Email, database_url: AccountsUrl, as_json: AsJson = False) -> int:
    """Close a customer's account and erase its personal data; exits 1 while an order is open."""
    from tools.operations.accounts import run_close

    return run_close(database_url, email, as_json=as_json)


@account.command("reset-password")
def account_reset_password(
    email: Email,
    database_url: AccountsUrl,
    link_key: LinkKey,
    from_stdin: PasswordFromStdin = False,
    by_link: ByLink = False,
    as_json: AsJson = False,
) -> int:
    """Replace the password of an account and end its sessions, or let its owner do it."""
    from tools.operations.accounts import password_or_key, run_reset

    secret = password_or_key(from_stdin=from_stdin, by_link=by_link, link_key=link_key)
    return run_reset(database_url, email, secret=secret, as_json=as_json)


@account.command("reset-second-factor")
def account_reset_second_factor(
    email: Email, database_url: AccountsUrl, as_json: AsJson = False
) -> int:
    """Remove the second factor of an account, such as one that was lost, and end its sessions."""
    from tools.operations.accounts import run_remove_factor

    return run_remove_factor(database_url, email, as_json=as_json)


@account.command("rotate-second-factor-key")
def account_rotate_second_factor_key(
    database_url: AccountsUrl, keys: SecondFactorKeys, as_json: AsJson = False
) -> int:
    """Give all second factors the new key; exits 1 when some are of neither key."""
    from tools.operations.accounts import run_rotate_factors, two_keys

    return run_rotate_factors(database_url, two_keys(keys), as_json=as_json)


@events.command("tail")
def events_tail(
    database_url: ReaderUrl,
    since: Annotated[float, typer.Option(min=0, help="begin so many seconds ago")] = 60.0,
    event_type: Annotated[
        str | None, typer.Option("--type", help="events of this type only, such as order.paid")
    ] = None,
    order_id: Annotated[
        str | None, typer.Option("--order", help="events of this order only")
    ] = None,
    follow: Annotated[bool, typer.Option(help="go on until Ctrl-C")] = True,
    as_json: AsJson = False,
) -> int:
    """Print events as functions write them; with --json one document a line."""
    from tools.operations.tail_events import run_tail

    return run_tail(
        database_url,
        since_seconds=since,
        event_type=event_type,
        order_id=UUID(order_id) if order_id else None,
        follow=follow,
        as_json=as_json,
    )


@order.command("explain")
def order_explain(
    order_id: str,
    *,
    database_url: ReaderUrl,
    time_zone: BusinessTimeZone,
    as_json: AsJson = False,
) -> int:
    """Print an order's timeline: status changes, stock, payments, ledger, events and alerts."""
    from tools.operations.explain_order import run_explain

    return run_explain(database_url, order_id, time_zone=time_zone, as_json=as_json)


@alerts.command("list")
def alerts_list(
    database_url: ReaderUrl,
    resolved: Annotated[bool, typer.Option("--resolved", help="include resolved alerts")] = False,
    as_json: AsJson = False,
) -> int:
    """List the open operator alerts, newest first."""
    from tools.operations.operator_alerts import run_list

    return run_list(database_url, include_resolved=resolved, as_json=as_json)


@alerts.command("resolve")
def alerts_resolve(alert_ids: list[str], database_url: OperatorUrl, as_json: AsJson = False) -> int:
    """Resolve operator alerts; afterwards the same alert can be raised again."""
    from tools.operations.operator_alerts import run_resolve

    return run_resolve(database_url, alert_ids, as_json=as_json)


@mail.command("list")
def mail_list(
    catcher_url: MailCatcherUrl,
    to: Annotated[str, typer.Option(help="address of the recipient; all by default")] = "",
    as_json: AsJson = False,
) -> int:
    """List the mails that the mail catcher has, newest first."""
    from tools.operations.mails import run_list

    return run_list(catcher_url, to=to, as_json=as_json)


@mail.command("show")
def mail_show(mail_id: int, catcher_url: MailCatcherUrl, as_json: AsJson = False) -> int:
    """Show one mail with its text."""
    from tools.operations.mails import run_show

    return run_show(catcher_url, mail_id, as_json=as_json)


@mail.command("bounced")
def mail_bounced(database_url: OperatorUrl, as_json: AsJson = False) -> int:
    """Record the delivery status notification on the standard input; exits 1 when it is none."""
    from tools.operations.bounced_mails import run_bounced

    return run_bounced(database_url, sys.stdin.buffer, as_json=as_json)


Since = Annotated[
    datetime,
    typer.Option(
        "--since",
        formats=["%Y-%m-%dT%H:%M:%S%z"],
        help="time that the database was restored to, with offset",
    ),
]


@unmatched.command("list")
def unmatched_list(
    *,
    database_url: ReaderUrl,
    since: Since,
    provider: ProviderKind,
    provider_url: ProviderUrl,
    api_key: ProviderApiKey,
    as_json: AsJson = False,
) -> int:
    """List charges without a payment row since the restore time; exits 1 when there is one."""
    from tools.checker.provider_transactions import ProviderAccess
    from tools.operations.unmatched_charges import run_list

    access = ProviderAccess(provider, provider_url, api_key)
    return run_list(database_url, access, since=since, as_json=as_json)


@unmatched.command("return")
def unmatched_return(
    *,
    database_url: OperatorUrl,
    since: Since,
    provider: ProviderKind,
    provider_url: ProviderUrl,
    api_key: ProviderApiKey,
    as_json: AsJson = False,
) -> int:
    """Refund charges without a payment row, each exactly once; exits 1 when one stays open."""
    from tools.checker.provider_transactions import ProviderAccess
    from tools.operations.unmatched_charges import run_return

    access = ProviderAccess(provider, provider_url, api_key)
    return run_return(database_url, access, since=since, as_json=as_json)


@app.command()
def exporter(
    database_url: OperatorUrl,
    port: Annotated[int, typer.Option(min=0, max=65535, help="port; 0 selects a free one")] = 9187,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
) -> int:
    """Serve business metrics to Prometheus, as the role shop_ops; Ctrl-C stops it."""
    from tools.exporter import run_exporter

    return run_exporter(database_url, host=host, port=port)


@app.command()
def cost(
    prometheus: Annotated[str, typer.Option(envvar="PROMETHEUS", help="URL of Prometheus")] = "",
    hours: Annotated[float, typer.Option(min=0.1, help="hours of metrics until now")] = 24.0,
    scrape_seconds: Annotated[
        float, typer.Option(min=0.1, help="Prometheus's interval for the functions")
    ] = 15.0,
    logs: Annotated[
        Path | None, typer.Option(help="folder of the functions' logs, such as .shop/log")
    ] = None,
    usage: Annotated[Path | None, typer.Option(help="file that --json wrote")] = None,
    vcpu_hour: Annotated[float, typer.Option(min=0, help="price of a vCPU for an hour")] = 0.04,
    gib_hour: Annotated[float, typer.Option(min=0, help="price of a GiB for an hour")] = 0.0045,
    sidecar_cpu_millis: Annotated[int, typer.Option(min=0, help="of queue-proxy, per pod")] = 5,
    sidecar_memory_mib: Annotated[int, typer.Option(min=0, help="of queue-proxy, per pod")] = 16,
    platform_cpu_millis: Annotated[int, typer.Option(min=0, help="of Knative itself")] = 600,
    platform_memory_mib: Annotated[int, typer.Option(min=0, help="of Knative itself")] = 360,
    replicas: Annotated[
        int, typer.Option(min=1, help="always-on replicas of each function, for comparison")
    ] = 1,
    as_json: AsJson = False,
) -> int:
    """Print what the functions used, what one order costs, and the break-even with replicas."""
    from tools.cost.command import run_cost
    from tools.cost.report import Prices

    sidecar = (sidecar_cpu_millis, sidecar_memory_mib)
    platform = (platform_cpu_millis, platform_memory_mib)
    prices = Prices(vcpu_hour, gib_hour, *sidecar, *platform, replicas)
    return run_cost(
        prices,
        prometheus=prometheus,
        hours=hours,
        scrape_seconds=scrape_seconds,
        logs=logs,
        usage_file=usage,
        as_json=as_json,
    )


Functions = Annotated[
    list[str] | None, typer.Argument(help="functions, such as place_order; all by default")
]


@rollout.command("pin")
def rollout_pin(
    functions: Functions = None,
    namespace: Namespace = "shop",
    context: Context = "",
    as_json: AsJson = False,
) -> int:
    """Keep all requests at today's revisions, so that an upgrade's new ones receive none."""
    from tools.rollout.cluster import Cluster
    from tools.rollout.command import run_pin

    return run_pin(Cluster(namespace, context), functions or (), as_json=as_json)


@rollout.command("unpin")
def rollout_unpin(
    functions: Functions = None,
    namespace: Namespace = "shop",
    context: Context = "",
    as_json: AsJson = False,
) -> int:
    """Let each new revision receive all requests at once, Knative's default."""
    from tools.rollout.cluster import Cluster
    from tools.rollout.command import run_unpin

    return run_unpin(Cluster(namespace, context), functions or (), as_json=as_json)


StepSeconds = Annotated[
    float, typer.Option(min=0, help="seconds that each step is watched at least")
]
StepSecondsMax = Annotated[
    float, typer.Option(min=0, help="and at most, while there are too few requests to judge")
]
CheckSeconds = Annotated[float, typer.Option(min=0.1, max=20, help="seconds between two checks")]
ReadySeconds = Annotated[float, typer.Option(min=1, help="seconds for a revision to become Ready")]
RequestsMin = Annotated[int, typer.Option(min=0, help="requests that a step needs")]
ErrorPercent = Annotated[
    float, typer.Option(min=0, max=100, help="share of 5xx at most; 3 errors decide at least")
]
LatencyRatio = Annotated[
    float, typer.Option(min=1, help="95th percentile at most, x the stable revision's")
]
ColdStartSeconds = Annotated[
    float, typer.Option(min=0, help="95th percentile of cold starts at most")
]
Prometheus = Annotated[
    str,
    typer.Option(
        envvar="PROMETHEUS",
        help="URL, or namespace/service:port; without it the functions' logs are read",
    ),
]
SmokeFrom = Annotated[
    str, typer.Option(help="workload that sends the smoke requests; empty: this machine")
]


@rollout.command("run")
def rollout_run(
    functions: Functions = None,
    namespace: Namespace = "shop",
    context: Context = "",
    steps: Annotated[str, typer.Option(help="percents of the steps")] = "1,10,50,100",
    step_seconds: StepSeconds = 60.0,
    step_seconds_max: StepSecondsMax = 300.0,
    check_seconds: CheckSeconds = 5.0,
    ready_seconds: ReadySeconds = 300.0,
    requests_min: RequestsMin = 20,
    error_percent: ErrorPercent = 1.0,
    latency_ratio: LatencyRatio = 2.0,
    cold_start_seconds: ColdStartSeconds = 5.0,
    prometheus: Prometheus = "",
    smoke_from: SmokeFrom = "deploy/shop-tools",
    as_json: AsJson = False,
) -> int:
    """Move requests to the newest revisions; exits 1 when they were returned.

    Ctrl-C returns them.  A roll-out that was killed is continued by the next, or ended by "return".
    """
    from tools.rollout.cluster import Cluster
    from tools.rollout.command import run_rollout
    from tools.rollout.limits import Limits
    from tools.rollout.steps import Pace

    pace = (step_seconds, max(step_seconds, step_seconds_max), check_seconds, ready_seconds)
    limits = Limits(error_percent, latency_ratio, cold_start_seconds, requests_min)
    return run_rollout(
        Cluster(namespace, context),
        functions or (),
        pace=Pace.of(steps, *pace),
        limits=limits,
        prometheus=prometheus,
        smoke_from=smoke_from,
        as_json=as_json,
    )


@rollout.command("return")
def rollout_return(
    functions: Functions = None,
    namespace: Namespace = "shop",
    context: Context = "",
    as_json: AsJson = False,
) -> int:
    """Send all requests to the revisions before the last; exits 1 when there are none."""
    from tools.rollout.cluster import Cluster
    from tools.rollout.command import run_return

    return run_return(Cluster(namespace, context), functions or (), as_json=as_json)


@rollout.command("status")
def rollout_status(
    functions: Functions = None,
    namespace: Namespace = "shop",
    context: Context = "",
    as_json: AsJson = False,
) -> int:
    """Print how requests are divided; exits 1 while a roll-out is in progress."""
    from tools.rollout.cluster import Cluster
    from tools.rollout.command import run_status

    return run_status(Cluster(namespace, context), functions or (), as_json=as_json)


@rollout.command("smoke")
def rollout_smoke(function: str, url: str, as_json: AsJson = False) -> int:
    """Send requests that change nothing to one revision; exits 1 when one is answered wrongly."""
    from tools.rollout.command import run_smoke

    return run_smoke(function, url, as_json=as_json)


@app.command()
def migrate(
    passwords: Annotated[
        Path | None,
        typer.Option(help="folder of files password-<role> that set the roles' passwords"),
    ] = None,
    seed: Annotated[
        bool, typer.Option("--seed", help="add the local accounts and products")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Migrate the database at DATABASE_URL (an administrator's) to this version."""
    from tools.compose.database import run_migrate

    return run_migrate(passwords=passwords, with_seed=seed, as_json=as_json)


@app.command()
def broker(
    functions: Annotated[
        str,
        typer.Option(help="URL of a function, with {name}, or {group} for its group in stack.yml"),
    ] = "http://{name}:8080",
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port; 0 selects a free one")] = 8080,
    data: Annotated[Path, typer.Option(help="folder that keeps undelivered events")] = Path(
        ".shop"
    ),
) -> int:
    """Run the broker and the clock for functions that run in containers."""
    from tools.compose.broker import run_broker

    return run_broker(host=host, port=port, data=data, functions=functions)


@app.command()
def compose_secrets(
    folder: Annotated[Path, typer.Option(help="one folder per service")], as_json: AsJson = False
) -> int:
    """Write the secrets of a Compose deployment, one folder per service."""
    from tools.compose.secrets import write_secrets
    from tools.operations.reporting import show_json

    count = write_secrets(folder)
    if as_json:
        show_json({"services": count})
    else:
        print(f"wrote the secrets of {count} services")
    return 0


if __name__ == "__main__":
    app()
