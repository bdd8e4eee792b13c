"""Events about accounts."""

from typing import ClassVar
from uuid import UUID

from events.event import ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class UserRegistered(ShopEvent):
    """An account was created."""

    name: ClassVar[str] = "user.registered"
    external: ClassVar[bool] = False

    user_id: int


@frozen(kw_only=True)
class UserPasswordChanged(ShopEvent):
    """An account has another password."""

    name: ClassVar[str] = "user.password-changed"
    external: ClassVar[bool] = False

    user_id: int


@frozen(kw_only=True)
class UserPasswordResetRequested(ShopEvent):
    """A link to reset a password was made; it has no account where the address has none."""

    name: ClassVar[str] = "user.password-reset-requested"
    external: ClassVar[bool] = False

    link_id: UUID


@frozen(kw_only=True)
class UserClosed(ShopEvent):
    """The owner of an account has closed it; nothing else is known of the person any more."""

    name: ClassVar[str] = "user.closed"

    user_id: int


@frozen(kw_only=True)
class UserEmailVerificationRequested(ShopEvent):
    """A link to verify the address of an account was made."""

    name: ClassVar[str] = "user.email-verification-requested"
    external: ClassVar[bool] = False

    link_id: UUID


@frozen(kw_only=True)
class UserEmailChangeRequested(ShopEvent):
    """A link to another address was made; it is sent unless that address has an account."""

    name: ClassVar[str] = "user.email-change-requested"
    external: ClassVar[bool] = False

    link_id: UUID
    user_id: int


@frozen(kw_only=True)
class UserEmailChangeStarted(ShopEvent):
    """A change of the address was requested: the address of before, in the link, gets a notice."""

    name: ClassVar[str] = "user.email-change-started"
    external: ClassVar[bool] = False

    user_id: int
    link_id: UUID


@frozen(kw_only=True)
class UserEmailChanged(ShopEvent):
    """An account has another address; the link has the one before, which is to get a notice."""

    name: ClassVar[str] = "user.email-changed"
    external: ClassVar[bool] = False

    user_id: int
    link_id: UUID


@frozen(kw_only=True)
class UserSecondFactorEnabled(ShopEvent):
    """Log-in to an account needs codes of a second factor from now on."""

    name: ClassVar[str] = "user.second-factor-enabled"
    external: ClassVar[bool] = False

    user_id: int


@frozen(kw_only=True)
class UserSecondFactorRemoved(ShopEvent):
    """Log-in to an account needs the password only, by its owner's or an operator's request."""

    name: ClassVar[str] = "user.second-factor-removed"
    external: ClassVar[bool] = False

    user_id: int


@frozen(kw_only=True)
class UserRecoveryCodesRenewed(ShopEvent):
    """The recovery codes of a second factor were replaced."""

    name: ClassVar[str] = "user.recovery-codes-renewed"
    external: ClassVar[bool] = False

    user_id: int


@frozen(kw_only=True)
class UserRecoveryCodeUsed(ShopEvent):
    """A recovery code took the place of a code of a second factor, once."""

    name: ClassVar[str] = "user.recovery-code-used"
    external: ClassVar[bool] = False

    user_id: int


@frozen(kw_only=True)
class UserInvited(ShopEvent):
    """An administrator made an account without a password, and a link to set one."""

    name: ClassVar[str] = "user.invited"
    external: ClassVar[bool] = False

    link_id: UUID
