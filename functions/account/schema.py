"""Requests and responses of account."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, RootModel, SecretStr, StringConstraints

from shop.accounts import EMAIL, EMAIL_LENGTH_MAX, check_email
from shop.adapters.passwords import LENGTH_MAX, LENGTH_MIN, prepare, prepare_new
from shop.one_time_links import TOKEN_LENGTH
from shop.runtime.model import Model, PageSize, QueryModel, Timestamp, Uuid


def _prepared(password: SecretStr) -> SecretStr:
    return SecretStr(prepare_new(password.get_secret_value()))


def _of_possible_length(password: SecretStr) -> SecretStr:
    """The password as typed, since older hashes are of that form."""
    if not prepare(password.get_secret_value()):
        raise ValueError("must not be empty")
    return password


NewPassword = Annotated[
    SecretStr,
    Field(
        description="As at registration.",
        json_schema_extra={"minLength": LENGTH_MIN, "maxLength": LENGTH_MAX},
    ),
    AfterValidator(_prepared),
]


class PasswordChange(Model):
    """The password until now and the next one."""

    current_password: Annotated[
        SecretStr,
        AfterValidator(_of_possible_length),
        Field(json_schema_extra={"minLength": 1, "maxLength": LENGTH_MAX}),
    ]
    new_password: NewPassword


class PasswordResetRequest(Model):
    """The address of the account."""

    email: Annotated[
        str,
        AfterValidator(check_email),
        Field(
            json_schema_extra={"maxLength": EMAIL_LENGTH_MAX, "pattern": rf"^ *{EMAIL.pattern} *$"}
        ),
    ]


class PasswordReset(Model):
    """The token of a link, and the next password."""

    token: Annotated[SecretStr, Field(min_length=TOKEN_LENGTH, max_length=TOKEN_LENGTH)]
    new_password: NewPassword


class AccountClosure(Model):
    """The account's password, as proof that its owner closes it."""

    password: Annotated[
        SecretStr,
        AfterValidator(_of_possible_length),
        Field(json_schema_extra={"minLength": 1, "maxLength": LENGTH_MAX}),
    ]


class PersonalData(RootModel[dict[str, list[dict[str, Any]]]]):
    """The rows of each table that hold something of the caller, by the table's name."""


class ListSessions(QueryModel):
    """Keyset paging: ``cursor`` is the id of the last session of the page before."""

    limit: PageSize = 20
    cursor: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")] | None = None


class SessionView(Model):
    """An open session; ``current`` is that of the request itself."""

    id: Uuid
    created_at: Timestamp
    renewed_at: Timestamp
    expires_at: Timestamp
    current: bool


class Sessions(RootModel[list[SessionView]]):
    """A page of sessions, newest first."""
