"""When reconciliation runs, and how far it has read.  Writer of ``reconciliation``.

Each run has a number.  What a run writes is ignored when it is not the newest any more: a later one
was claimed, as after a pause of its process, or an operator started over.
"""

from __future__ import annotations

from shop.adapters.statements import Command, Query, Row, Statement


class Position(Row):
    """The number of this run, and the cursor at which it continues."""

    run_number: int
    cursor: str


# Postponed before the provider is called: while the provider is down this does not run in a loop,
# and of two processes that read the row as due the second one skips it.  ran_at is the time from
# which payments count as new: one minute ago, because the row of a payment that is being committed
# carries the time at which its transaction began.
TAKE = Query(
    Position,
    """
update shop.reconciliation set ran_at = now() - interval '1 minute',
  next_run_at = now() + interval '2 minutes', run_number = run_number + 1
where provider = (select provider from shop.reconciliation where provider = %(provider)s
  for update skip locked)
  and exists (select from shop.due_work
    where kind = 'reconcile' and id = %(provider)s and due_at <= now())
returning run_number, cursor
""",
)

SAVE_POSITION = Query(
    Row,
    """
update shop.reconciliation set cursor = %(cursor)s, next_run_at = now() + interval '2 minutes'
where provider = %(provider)s and run_number = %(run_number)s
returning provider
""",
)

# The tick ended before the provider's transactions were all read.
CONTINUE_NOW = Command(
    """
update shop.reconciliation set next_run_at = now()
where provider = %(provider)s and run_number = %(run_number)s
"""
)

# After a restore the position may be wrong; reading a transaction twice changes nothing.
START_OVER = Command(
    """
update shop.reconciliation set cursor = '', next_run_at = now(), run_number = run_number + 1
"""
)

# In an hour, or in a day when this run read nothing; the view due_work makes it due earlier, five
# minutes after the first new payment.
FINISH = Command(
    """
update shop.reconciliation set cursor = %(cursor)s,
  next_run_at = now() + case when %(found)s then interval '1 hour' else interval '1 day' end
where provider = %(provider)s and run_number = %(run_number)s
"""
)


def take(provider: str) -> Statement[Position]:
    """Claims the run that is due; no row: not due, or claimed by another process."""
    return TAKE(provider=provider)


def save_position(provider: str, run_number: int, cursor: str) -> Statement[Row]:
    """Records how far this run has read, so that another run continues there after a crash.

    No row: this run is not the newest any more, and must stop.
    """
    return SAVE_POSITION(provider=provider, run_number=run_number, cursor=cursor)


def continue_now(provider: str, run_number: int) -> Statement[Row]:
    """Makes reconciliation due again at once, for the next tick."""
    return CONTINUE_NOW(provider=provider, run_number=run_number)


def finish(provider: str, run_number: int, cursor: str, *, found: bool) -> Statement[Row]:
    """Records the end of a run; ``found`` means that it read any transaction."""
    return FINISH(provider=provider, run_number=run_number, cursor=cursor, found=found)


def start_over() -> Statement[Row]:
    """Makes the next run read everything from the beginning, also if one is running now."""
    return START_OVER()
