"""Checks that the session of an access token is still open.

A token is valid for ten minutes and cannot be revoked, so the runtime sends this statement with the
BEGIN of each request with a token: it adds no round trip, and log-out takes effect at once.
"""

from __future__ import annotations

from uuid import UUID

from shop.adapters.statements import Query, Row, Statement


class SessionAccount(Row):
    """The account of an open session."""

    role: str


OPEN_SESSION = Query(
    SessionAccount,
    """
select u.role from shop.sessions s join shop.users u using (user_id)
where s.session_id = %(session_id)s and s.user_id = %(user_id)s
  and s.revoked_at is null and s.expires_at > now() and u.active
""",
)


def open_session(session_id: UUID, user_id: int) -> Statement[SessionAccount]:
    """Reads the account's present role; no row means that the session has ended."""
    return OPEN_SESSION(session_id=session_id, user_id=user_id)
