"""Requests and responses of manage_accounts."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, RootModel, StringConstraints, model_validator

from shop.accounts import EMAIL, EMAIL_LENGTH_MAX, NAME_LENGTH_MAX, check_email
from shop.primitives.languages import Phrase
from shop.primitives.spec import SCOPES
from shop.primitives.statuses import AccountState, ActorKind
from shop.primitives.text import one_line
from shop.runtime.model import Model, PageSize, QueryModel, QueryNumber, Timestamp, Uuid

Role = Literal["customer", "staff", "support", "finance", "admin"]
Email = Annotated[str, AfterValidator(check_email), Field(max_length=EMAIL_LENGTH_MAX)]
Cursor = Annotated[QueryNumber, Field(ge=1)]
ObjectKind = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
ObjectId = Annotated[str, Field(min_length=1, max_length=100)]
ActionName = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}\.[a-z_]{1,40}$")]


class ListAccounts(QueryModel):
    """Filters are combined; keyset paging: ``cursor`` is the id of the last account before."""

    email: Email | None = None
    role: Role | None = None
    state: Literal["ACTIVE", "DISABLED", "CLOSED"] | None = None
    limit: PageSize = 20
    cursor: Cursor | None = None


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


# null is rejected; None means that the property is absent
_OPTIONAL: Any = Field(
    default=None,
    exclude_if=lambda value: value is None,
    json_schema_extra=_without_default,
)


class Invitation(Model):
    """A new account, whose owner sets the password."""

    email: Annotated[
        str,
        AfterValidator(check_email),
        Field(
            json_schema_extra={"maxLength": EMAIL_LENGTH_MAX, "pattern": rf"^ *{EMAIL.pattern} *$"}
        ),
    ]
    name: Annotated[
        str,
        AfterValidator(partial(one_line, length_max=NAME_LENGTH_MAX)),
        Field(min_length=1, max_length=NAME_LENGTH_MAX),
    ]
    role: Role
    language: Annotated[
        Literal["ko", "en"],
        Field(
            description="Language of the account's mails; by default the one that Accept-Language "
            "prefers, or the shop's.",
            default=None,
            exclude_if=lambda value: value is None,
            json_schema_extra=_without_default,
        ),
    ]


class AccountChange(Model):
    """The properties to change, at least one; an account is closed by its owner only."""

    role: Role = _OPTIONAL
    state: Literal["ACTIVE", "DISABLED"] = _OPTIONAL

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("there is nothing to change")
        return self


class ServiceAccount(Model):
    """A new account of a machine, which acts with API keys."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,39}$")]
    role: Literal["staff", "support", "finance"]


def _known(scope: str) -> str:
    if scope not in SCOPES:
        raise ValueError(Phrase("must be one of {scopes}", scopes=", ".join(SCOPES)))
    return scope


Scope = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(SCOPES)})]
Days = Annotated[int, Field(ge=1, le=365, description="Days until the key expires.")]


class KeyRequest(Model):
    """What a new API key is for: groups of routes, to read or to change what they show."""

    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))]
    days: Days = 90


class KeyRotation(Model):
    """How long the next key is valid, and the one before beside it."""

    days: Days = 90
    overlap_hours: Annotated[int, Field(ge=0, le=168)] = 24


class ListKeys(QueryModel):
    """Keyset paging: ``cursor`` is the id of the last key of the page before."""

    limit: PageSize = 20
    cursor: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")] | None = None


class ApiKey(Model):
    """An API key without its secret; ``lastUsedAt`` is up to an hour old."""

    id: Uuid
    prefix: str
    scopes: list[str]
    created_at: Timestamp
    expires_at: Timestamp
    ended_at: Timestamp | None
    last_used_at: Timestamp | None


class NewApiKey(ApiKey):
    """An API key, which is shown this once: ``Authorization: Bearer msk_...``."""

    key: str


class ApiKeys(RootModel[list[ApiKey]]):
    """A page of keys, newest first."""


class ManagedAccount(Model):
    """An account as administrators see it."""

    id: int
    email: str
    name: str
    role: Role
    state: AccountState
    language: Literal["ko", "en"]
    email_verified: bool
    service: bool
    created_at: Timestamp


class Accounts(RootModel[list[ManagedAccount]]):
    """A page of accounts, newest first."""


class ListEntries(QueryModel):
    """Filters are combined; keyset paging: ``cursor`` is the seq of the last entry before."""

    actor_id: Annotated[QueryNumber, Field(ge=1)] | None = None
    action: ActionName | None = None
    object_kind: ObjectKind | None = None
    object_id: ObjectId | None = None
    limit: PageSize = 20
    cursor: Cursor | None = None


class Actor(Model):
    """Who acted; a command has neither id nor role."""

    kind: ActorKind
    id: int | None
    role: str | None


class Object(Model):
    """What was changed."""

    kind: str
    id: str


class Entry(Model):
    """One write of an operator; ``before`` and ``after`` have what it changed."""

    seq: int
    at: Timestamp
    actor: Actor
    action: str
    object: Object
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    trace_id: str


class Entries(RootModel[list[Entry]]):
    """A page of the audit log, newest first."""
