"""``shop``: the table of commands.  Each lives in its own module, loaded when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Probability = Annotated[float, typer.Option(min=0.0, max=1.0)]


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
    from scripts.dev.command import run_desk

    faults = {"duplicate": duplicate, "reorder": reorder, "lose": lose, "kill": kill}
    raise typer.Exit(run_desk(port=port, data=data, idle_seconds=idle, seed=seed, **faults))


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
    from scripts.e2e.run import run_e2e

    exit_code = run_e2e(
        url=url,
        groups=group or (),
        accounts=accounts,
        without=without or (),
        webhook_secret_file=webhook_secret_file,
        time_zone=time_zone,
    )
    raise typer.Exit(exit_code)


if __name__ == "__main__":
    app()
