"""Bodies and responses of login."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from shop.accounts import EMAIL, EMAIL_LENGTH_MAX, check_email
from shop.adapters.passwords import LENGTH_MAX, prepare
from shop.runtime.model import Model
from shop.second_factors import CODE_PATTERN

RefreshToken = Annotated[
    SecretStr,
    Field(
        min_length=1,
        max_length=1024,
        description="From the last log-in or refresh.",
    ),
]


def _of_possible_length(password: SecretStr) -> SecretStr:
    """The password as typed, since older hashes are of that form."""
    if not prepare(password.get_secret_value()):
        raise ValueError("must not be empty")
    return password


Email = Annotated[
    str,
    AfterValidator(check_email),
    Field(
        max_length=EMAIL_LENGTH_MAX,
        json_schema_extra={"pattern": rf"^ *{EMAIL.pattern} *$"},
    ),
]
Password = Annotated[
    SecretStr,
    AfterValidator(_of_possible_length),
    Field(json_schema_extra={"minLength": 1, "maxLength": LENGTH_MAX}),
]


def _of_known_form(code: SecretStr) -> SecretStr:
    if not re.fullmatch(CODE_PATTERN, code.get_secret_value()):
        raise ValueError("must be 6 digits, or a recovery code")
    return code


Code = Annotated[
    SecretStr,
    AfterValidator(_of_known_form),
    Field(
        description="6 digits of the application, or a recovery code.",
        json_schema_extra={"pattern": CODE_PATTERN},
    ),
]


class Login(Model):
    """E-mail and password of an account, and a code where it has a second factor."""

    email: Email
    password: Password
    code: Code | None = None


class SecondFactorRequest(Model):
    """E-mail and password of an operator's account."""

    email: Email
    password: Password


class SecondFactorProof(Model):
    """E-mail, password and a code of the second factor."""

    email: Email
    password: Password
    code: Code


class NewSecondFactor(Model):
    """What an application for codes needs: a secret to type, or an address for a QR code."""

    secret: Annotated[str, Field(pattern=r"^[A-Z2-7]{32}$")]
    uri: Annotated[str, Field(pattern=r"^otpauth://totp/")]


class Refresh(Model):
    """A refresh token; it is valid once, and using it again after 10 seconds ends its session.

    With the header ``Refresh-Token: cookie`` it is in the cookie, and the body is ``{}``.
    """

    refresh_token: RefreshToken | None = None


class Logout(Model):
    """The session to end when the request has no access token."""

    refresh_token: RefreshToken | None = None


class TokenPair(Model):
    """An access token for ten minutes and the refresh token that renews it once.

    With the header ``Refresh-Token: cookie`` the refresh token is in a cookie only.
    """

    access_token: Annotated[str, Field(pattern=r"^[\w-]+\.[\w-]+\.[\w-]+$")]
    refresh_token: str | None = None
    token_type: Literal["Bearer"]
    expires_in: int


class SecondFactorEnabled(TokenPair):
    """A session, and ten codes that are valid once each, for when the application is lost."""

    recovery_codes: list[Annotated[str, Field(pattern=CODE_PATTERN)]]


class RecoveryCodes(Model):
    """Ten codes that are valid once each; those before are rejected."""

    recovery_codes: list[Annotated[str, Field(pattern=CODE_PATTERN)]]


class PublicKey(Model):
    """An Ed25519 public key as a JWK (RFC 8037)."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    kid: str
    use: Literal["sig"]
    alg: Literal["EdDSA"]


class KeySet(Model):
    """A JWK set: the current key, and during a rotation also the next."""

    keys: list[PublicKey]
