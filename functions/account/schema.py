"""Requests and responses of account."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    RootModel,
    SecretStr,
    StringConstraints,
    model_validator,
)

from shop.accounts import EMAIL, EMAIL_LENGTH_MAX, NAME_LENGTH_MAX, check_email
from shop.adapters.passwords import LENGTH_MAX, LENGTH_MIN, prepare, prepare_new
from shop.one_time_links import TOKEN_LENGTH
from shop.primitives.text import one_line
from shop.request_models import Address
from shop.response_models import AccountView as AccountView
from shop.response_models import OrderAddress
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


PresentPassword = Annotated[
    SecretStr,
    AfterValidator(_of_possible_length),
    Field(json_schema_extra={"minLength": 1, "maxLength": LENGTH_MAX}),
]
Email = Annotated[
    str,
    AfterValidator(check_email),
    Field(json_schema_extra={"maxLength": EMAIL_LENGTH_MAX, "pattern": rf"^ *{EMAIL.pattern} *$"}),
]
LinkToken = Annotated[SecretStr, Field(min_length=TOKEN_LENGTH, max_length=TOKEN_LENGTH)]


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


# null is rejected; None means that the property is absent
_OPTIONAL: Any = Field(
    default=None,
    exclude_if=lambda value: value is None,
    json_schema_extra=_without_default,
)


class PasswordChange(Model):
    """The password until now and the next one."""

    current_password: PresentPassword
    new_password: NewPassword


class PasswordResetRequest(Model):
    """The address of the account."""

    email: Email


class PasswordReset(Model):
    """The token of a link, and the next password."""

    token: LinkToken
    new_password: NewPassword


class AccountClosure(Model):
    """The account's password, as proof that its owner closes it."""

    password: PresentPassword


class PersonalData(RootModel[dict[str, list[dict[str, Any]]]]):
    """The rows of each table that hold something of the caller, by the table's name."""


class EmailChange(Model):
    """The next address, and the account's password."""

    email: Email
    password: PresentPassword


class EmailConfirmation(Model):
    """The token of a link."""

    token: LinkToken


class ProfileChange(Model):
    """The properties to change, at least one."""

    name: Annotated[
        str,
        AfterValidator(partial(one_line, length_max=NAME_LENGTH_MAX)),
        Field(min_length=1, max_length=NAME_LENGTH_MAX),
    ] = _OPTIONAL
    language: Literal["ko", "en"] = _OPTIONAL

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("there is nothing to change")
        return self


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


class NewAddress(Model):
    """An address for the caller's book; the first one is the default in any case."""

    address: Address
    is_default: bool = False


class AddressChange(Model):
    """The whole address as it is to be, or that it is to be the default, or both.

    ``isDefault: false`` changes nothing: an address ends to be the default when another is chosen.
    """

    address: Address = _OPTIONAL
    is_default: bool = _OPTIONAL

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if "address" not in self.model_fields_set and not self.is_default:
            raise ValueError("there is nothing to change")
        return self


class AddressId(Model):
    """The id of an address that was added."""

    id: Uuid


class SavedAddress(Model):
    """An address of the caller's book."""

    id: Uuid
    address: OrderAddress
    is_default: bool
    created_at: Timestamp
    updated_at: Timestamp


class SavedAddresses(RootModel[list[SavedAddress]]):
    """The addresses of a book, its default first."""
