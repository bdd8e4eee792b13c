"""Groups of products, for ``handler.py``: what a product's membership may be, and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop import catalog
from shop.catalog import Membership
from shop.primitives.errors import ClientError, not_found
from shop.primitives.languages import Phrase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from functions.manage_products.schema import Membership as MembershipBody
    from shop.adapters.db import Transaction
    from shop.catalog import Group, Member


def membership_of(tx: Transaction, product_id: int, body: MembershipBody | None) -> Membership:
    """The membership that a locked product is to have; the groups concerned are locked too.

    422 UNKNOWN_GROUP, 422 for other options than the group's, 409 OPTIONS_TAKEN or GROUP_FULL.
    """
    group_id = None if body is None else body.id
    groups, members = tx.pipeline(
        catalog.lock_groups(product_id, group_id), catalog.members(group_id)
    )
    if body is None:
        return Membership()
    if not groups:
        raise ClientError(422, "UNKNOWN_GROUP", "there is no such product group")
    group = groups[0]
    if set(body.options) != set(group.options):
        message = Phrase("group.options must be {options}", options=", ".join(group.options))
        raise ClientError(422, "INVALID", message)
    values = [body.options[option] for option in group.options]
    others = [member for member in members if member.product_id != product_id]
    _check_room(others, values)
    return Membership(group_id=group.group_id, values=values)


def lock(tx: Transaction, group_id: int) -> tuple[Group, list[Member]]:
    """A group that is to be changed, with its members; 404 without it."""
    groups, members = tx.pipeline(catalog.lock_group(group_id), catalog.members(group_id))
    if not groups:
        raise not_found("the product group")
    return groups[0], members


def etag_of(group: Group) -> str:
    """A group's entity tag: its version, which its members change too."""
    return f'"{group.version}"'


def represent(group: Group) -> dict[str, object]:
    """A group without its members."""
    return {"id": group.group_id, "name": group.name, "options": group.options}


def represent_with_members(group: Group, members: Sequence[Member]) -> dict[str, object]:
    """A group with all its members, for sale or not."""
    shown = [
        {
            "productId": member.product_id,
            "options": dict(zip(group.options, member.option_values, strict=True)),
            "active": member.active,
        }
        for member in members
    ]
    return {**represent(group), "members": shown}


def _check_room(others: Sequence[Member], values: list[str]) -> None:
    for other in others:
        if other.option_values == values:
            message = "another product of the group has these options"
            extra = {"productId": other.product_id}
            raise ClientError(409, "OPTIONS_TAKEN", message, extra=extra)
    if len(others) >= catalog.MEMBERS_MAX:
        message = Phrase("a group has at most {count} products", count=catalog.MEMBERS_MAX)
        raise ClientError(409, "GROUP_FULL", message)
