"""Facts about accounts."""

from dataclasses import dataclass
from typing import ClassVar

from events.event import ShopEvent


@dataclass(frozen=True, kw_only=True)
class UserRegistered(ShopEvent):
    """Someone created an account."""

    name: ClassVar[str] = "user.registered"

    user_id: int
