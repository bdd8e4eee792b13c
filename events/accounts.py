"""Events about accounts."""

from typing import ClassVar
from uuid import UUID

from events.event import ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class UserRegistered(ShopEvent):
    """An account was created."""

    name: ClassVar[str] = "user.registered"

    user_id: int


@frozen(kw_only=True)
class UserPasswordChanged(ShopEvent):
    """The owner of an account has replaced its password."""

    name: ClassVar[str] = "user.password-changed"

    user_id: int


@frozen(kw_only=True)
class UserPasswordResetRequested(ShopEvent):
    """A link to reset a password was made; it has no account where the address has none."""

    name: ClassVar[str] = "user.password-reset-requested"

    link_id: UUID


@frozen(kw_only=True)
class UserClosed(ShopEvent):
    """The owner of an account has closed it; nothing else is known of the person any more."""

    name: ClassVar[str] = "user.closed"

    user_id: int


@frozen(kw_only=True)
class UserInvited(ShopEvent):
    """An administrator made an account without a password, and a link to set one."""

    name: ClassVar[str] = "user.invited"

    link_id: UUID
