"""The question every request with a token asks: is this session still open?

A token lives ten minutes and cannot be called back, so the runtime sends this statement with the
BEGIN of each request: no round trip more, and log-out holds at once, in every function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

if TYPE_CHECKING:
    from shop.adapters.db import Statement

OPEN_SESSION: LiteralString = """
select u.role from shop.sessions s join shop.users u using (user_id)
where s.session_id = %(session_id)s and s.user_id = %(user_id)s
  and s.revoked_at is null and s.expires_at > now() and u.active
"""


def open_session(session_id: UUID, user_id: int) -> Statement:
    """The statement that answers one row with the account's role of now, or none: then 401."""
    return OPEN_SESSION, {"session_id": session_id, "user_id": user_id}
