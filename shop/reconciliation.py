"""When reconciliation runs, and how far it has read.  Writer of ``reconciliation``."""

from __future__ import annotations

from shop.adapters.statements import Command, Query, Row, Statement


class Position(Row):
    """The cursor at which this run continues."""

    cursor: str


# Postponed before the provider is called: while the provider is down this does not run in a loop,
# and of two processes that read the row as due the second one skips it.  ran_at is the time from
# which payments count as new: one minute ago, because the row of a payment that is being committed
# carries the time at which its transaction began.
TAKE = Query(
    Position,
    """
update shop.reconciliation set ran_at = now() - interval '1 minute',
  next_run_at = now() + interval '2 minutes'
where provider = (select provider from shop.reconciliation where provider = %(provider)s
  for update skip locked)
  and exists (select from shop.due_work
    where kind = 'reconcile' and id = %(provider)s and due_at <= now())
returning cursor
""",
)

SAVE_POSITION = Command(
    """
update shop.reconciliation set cursor = %(cursor)s, next_run_at = now() + interval '2 minutes'
where provider = %(provider)s
"""
)

# The tick ended before the provider's transactions were all read.
CONTINUE_NOW = Command(
    """
update shop.reconciliation set next_run_at = now() where provider = %(provider)s
"""
)

# After a restore the position may be wrong; reading a transaction twice changes nothing.
START_OVER = Command(
    """
update shop.reconciliation set cursor = '', next_run_at = now()
"""
)

# In an hour, or in a day when this run read nothing; the view due_work makes it due earlier, five
# minutes after the first new payment.
FINISH = Command(
    """
update shop.reconciliation set cursor = %(cursor)s,
  next_run_at = now() + case when %(found)s then interval '1 hour' else interval '1 day' end
where provider = %(provider)s
"""
)


def take(provider: str) -> Statement[Position]:
    """Claims the run that is due; no row: not due, or claimed by another process."""
    return TAKE(provider=provider)


def save_position(provider: str, cursor: str) -> Statement[Row]:
    """Records how far this run has read, so that another run continues there after a crash."""
    return SAVE_POSITION(provider=provider, cursor=cursor)


def continue_now(provider: str) -> Statement[Row]:
    """Makes the run due again at once, for the next tick."""
    return CONTINUE_NOW(provider=provider)


def finish(provider: str, cursor: str, *, found: bool) -> Statement[Row]:
    """Records the end of a run; ``found`` means that it read any transaction."""
    return FINISH(provider=provider, cursor=cursor, found=found)


def start_over() -> Statement[Row]:
    """Makes the next run read everything from the beginning."""
    return START_OVER()
