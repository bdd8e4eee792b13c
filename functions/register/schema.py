"""Requests and responses of register."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from shop.accounts import EMAIL_LENGTH_MAX, NAME_LENGTH_MAX, check_email, check_name
from shop.adapters.passwords import LENGTH_MAX, LENGTH_MIN
from shop.runtime.model import Model


class Registration(Model):
    """A new customer.  It has no role: staff accounts are created by an operator.

    The password is a ``SecretStr``, so neither a log, nor an error, nor the fingerprint kept with
    an idempotency key contains anything computed from it; only the Argon2id hash does.
    """

    email: Annotated[
        str,
        AfterValidator(check_email),
        Field(
            description="Address in ASCII; upper and lower case are the same address.",
            examples=["kim@example.com"],
            json_schema_extra={"maxLength": EMAIL_LENGTH_MAX},
        ),
    ]
    password: Annotated[
        SecretStr,
        Field(
            min_length=LENGTH_MIN,
            max_length=LENGTH_MAX,
            description="8 to 128 characters, not a well-known one, not the e-mail address.",
        ),
    ]
    name: Annotated[
        str,
        Field(min_length=1, max_length=NAME_LENGTH_MAX, examples=["김철수"]),
        AfterValidator(check_name),
    ]


class AccountView(Model):
    """An account, as its owner sees it."""

    id: int
    email: str
    name: str
    role: str
    created_at: datetime
