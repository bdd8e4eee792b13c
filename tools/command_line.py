"""What all ``shop`` commands share: exit codes, errors without tracebacks, and their settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, ParamSpec, get_args, get_type_hints

import typer

from shop.primitives.languages import LANGUAGES
from shop.runtime import setting_checks
from shop.runtime.config import ConfigurationError, look_up
from tools.operations.reporting import EXIT_FAILED

P = ParamSpec("P")
# set to any text, it prints the traceback of an error
TRACEBACK = "SHOP_TRACEBACK"
SEOUL = "Asia/Seoul"
REPLICA_VARIABLE = "AUDITOR_DATABASE_REPLICA_URL"


class Commands(typer.Typer):
    """A group of commands, each of which returns its exit code and may raise anything."""

    # Any: the options of typer.Typer.command
    def command(
        self, name: str | None = None, **options: Any
    ) -> Callable[[Callable[P, int]], Callable[P, int]]:
        """Registers a command, whose errors are printed in one line and exit with 2."""
        register = super().command(name, **options)

        def decorate(command: Callable[P, int]) -> Callable[P, int]:
            @wraps(command)
            def run(*args: P.args, **kwargs: P.kwargs) -> None:
                raise typer.Exit(_exit_code_of(command, lambda: command(*args, **kwargs)))

            register(run)
            return command

        return decorate


def _exit_code_of(command: Callable[..., int], call: Callable[[], int]) -> int:
    try:
        code = call()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # the reader is gone; without this the interpreter reports the rest at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (typer.BadParameter, typer.Exit):
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_FAILED
    except Exception as error:
        # the last place before a person would see a traceback
        if os.environ.get(TRACEBACK):
            raise
        print(_described(error, command), file=sys.stderr)
        raise typer.Exit(EXIT_FAILED) from None


def _described(error: Exception, command: Callable[..., int]) -> str:
    """What failed, and what to do about it."""
    # imported here: only a failure needs them, and psycopg is slow to import
    from httpx import HTTPError
    from psycopg import Error
    from psycopg.errors import InsufficientPrivilege
    from sqlalchemy.exc import DBAPIError

    from shop.primitives.errors import Unavailable
    from tools.operations.snapshot import HiddenRows

    if isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        error = error.orig
    if isinstance(error, ConfigurationError):
        return f"the settings are wrong:\n{error}"
    text = f"failed: {type(error).__name__}: {str(error).strip()}"
    if isinstance(error, InsufficientPrivilege | HiddenRows):
        return f"{text}\n{_right_role(command)}"
    expected = isinstance(error, Error | HTTPError | Unavailable | ValueError | OSError)
    if expected or type(error) is LookupError:
        return text
    return f"{text}\nthis is a bug; {TRACEBACK}=1 prints where it happened"


def _right_role(command: Callable[..., int]) -> str:
    hint = get_type_hints(command, include_extras=True).get("database_url")
    options = get_args(hint)[1:]
    for role, option in ROLES.items():
        if option in options:
            return f"this command needs the role {role}: set {_variable(role)} to its URL"
    return "this command needs an administrator's DATABASE_URL"


def _variable(role: str) -> str:
    return f"{role.removeprefix('shop_').upper()}_DATABASE_URL"


def setting(
    *names: str,
    what: str,
    option: str = "",
    default: str = "",
    check: Callable[[str], str] | None = None,
) -> Any:
    """An option whose default is the first setting that is given: a variable or a secret file.

    Any: ``Annotated`` takes it as it is.
    """

    def value() -> str:
        try:
            return next((text for name in names if (text := look_up(name.lower()))), default)
        except ConfigurationError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.Option(
        *([option] if option else []),
        default_factory=value,
        envvar=list(names),
        show_envvar=True,
        help=what,
        callback=check,
        show_default=False,
    )


def _check_replica(url: str) -> str:
    if url:
        try:
            setting_checks.CHECKS["database_replica_url"](url)
        except ValueError as error:
            # without the URL, which has a password
            raise typer.BadParameter(f"{REPLICA_VARIABLE} {error}") from None
    return url


def _database(role: str) -> Any:
    """The option ``--database-url`` of a command for this role."""
    variable = _variable(role)

    def check(url: str) -> str:
        if not url:
            file = variable.lower().replace("_", "-")
            raise typer.BadParameter(
                f"no database is given: set {variable} (or DATABASE_URL) to a URL of the role "
                f"{role}, postgresql://{role}:PASSWORD@HOST:5432/shop, or mount it as the secret "
                f"file {file}"
            )
        try:
            setting_checks.CHECKS["database_url"](url)
        except ValueError as error:
            # without the URL, which has a password
            raise typer.BadParameter(f"{variable} or DATABASE_URL {error}") from None
        return url

    return setting(variable, "DATABASE_URL", what=f"URL of {role}", check=check)


def recorded(name: str, exit_code: int) -> int:
    """Stores the result of an audit as the role shop_ops; returns its exit code."""
    from tools.operations.audits import record

    url = look_up("ops_database_url")
    if not url:
        raise ConfigurationError("OPS_DATABASE_URL is missing: --record writes as shop_ops")
    return record(url, name, exit_code)


def _required_catcher(url: str) -> str:
    if not url:
        raise typer.BadParameter(
            "no mail catcher is given: set MAIL_CATCHER_URL. With make dev it is in "
            ".shop/operator.env (run: . .shop/operator.env), with Compose http://127.0.0.1:8025"
        )
    return url


def _language(name: str) -> str:
    if name not in LANGUAGES:
        raise typer.BadParameter(f"must be one of {', '.join(LANGUAGES)}")
    return name


def _time_zone(name: str) -> str:
    try:
        setting_checks.check_time_zone(name)
    except ValueError as error:
        raise typer.BadParameter(f"{name!r} {error}") from None
    return name


# the roles that read, that act and that manage accounts (shop/schema/grants.py), with their options
ROLES = {role: _database(role) for role in ("shop_auditor", "shop_ops", "shop_accounts")}

# Pass secrets as variables or files: other users of the machine can read a command line.
ReaderUrl = Annotated[str, ROLES["shop_auditor"]]
ReplicaUrl = Annotated[
    str,
    setting(
        REPLICA_VARIABLE,
        what="URL of shop_auditor at a streaming replica, which is read instead while it is close",
        check=_check_replica,
    ),
]
OperatorUrl = Annotated[str, ROLES["shop_ops"]]
AccountsUrl = Annotated[str, ROLES["shop_accounts"]]
LinkKey = Annotated[str, setting("LINK_KEY", what="key of one-time links, which --link needs")]
SecondFactorKeys = Annotated[
    str,
    setting("SECOND_FACTOR_KEY", what="the new key of second factors, a space, the one before"),
]
ShopLanguage = Annotated[
    str,
    setting(
        "SHOP_LANGUAGE",
        option="--language",
        default="ko",
        what="language of its mails",
        check=_language,
    ),
]
CATCHER_VARIABLE, CATCHER = "MAIL_CATCHER_URL", "HTTP address of the mail catcher"
MailCatcherUrl = Annotated[str, setting(CATCHER_VARIABLE, what=CATCHER, check=_required_catcher)]
OptionalMailCatcherUrl = Annotated[
    str, setting(CATCHER_VARIABLE, what=f"{CATCHER}; without it no mails are read")
]
OptionalSimulatorUrl = Annotated[
    str,
    setting(
        "PAYMENT_SIMULATOR_URL",
        what="HTTP address of the payment simulator; without it no customer acts there",
    ),
]
ProviderKind = Annotated[
    str,
    setting(
        "PAYMENT_PROVIDER",
        default="sandbox",
        what="payment provider: sandbox (the simulator) or stripe",
    ),
]
ProviderUrl = Annotated[str, setting("PAYMENT_PROVIDER_URL", what="URL of the payment provider")]
ProviderApiKey = Annotated[
    str, setting("PAYMENT_PROVIDER_API_KEY", what="API key of the payment provider")
]
BusinessTimeZone = Annotated[
    str,
    setting(
        "BUSINESS_TIME_ZONE", default=SEOUL, what="time zone of the business day", check=_time_zone
    ),
]
Record = Annotated[
    bool,
    typer.Option(
        "--record", help="store whether something was found, for metrics; needs OPS_DATABASE_URL"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
