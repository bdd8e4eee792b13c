"""Events about accounts."""

from typing import ClassVar

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
