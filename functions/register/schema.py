"""Requests and responses of register."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from shop.accounts import EMAIL, EMAIL_LENGTH_MAX, NAME_LENGTH_MAX, check_email
from shop.adapters.passwords import LENGTH_MAX, LENGTH_MIN, prepare_new
from shop.primitives.text import one_line
from shop.response_models import AccountView as AccountView
from shop.runtime.model import Model


def _prepared(password: SecretStr) -> SecretStr:
    return SecretStr(prepare_new(password.get_secret_value()))


class Registration(Model):
    """A new customer.  It has no role: staff accounts are created by an operator.

    The password is a ``SecretStr``, so no log and no error contains it.  The fingerprint kept with
    an idempotency key covers it by a digest under a key that the database does not have.
    """

    email: Annotated[
        str,
        AfterValidator(check_email),
        Field(
            description="Address in ASCII; upper and lower case are the same address.",
            examples=["kim@example.com"],
            json_schema_extra={"maxLength": EMAIL_LENGTH_MAX, "pattern": rf"^ *{EMAIL.pattern} *$"},
        ),
    ]
    password: Annotated[
        SecretStr,
        Field(
            description=(
                "8 to 128 characters in Unicode normalization form C, without control characters; "
                "not a well-known one, not the e-mail address."
            ),
            json_schema_extra={"minLength": LENGTH_MIN, "maxLength": LENGTH_MAX},
        ),
        AfterValidator(_prepared),
    ]
    name: Annotated[
        str,
        AfterValidator(partial(one_line, length_max=NAME_LENGTH_MAX)),
        Field(
            min_length=1,
            max_length=NAME_LENGTH_MAX,
            description="Stored, and counted, in Unicode normalization form C.",
            examples=["김철수"],
        ),
    ]
