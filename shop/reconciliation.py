"""Where reconciliation with the provider's books stands.  Writer of ``reconciliation``."""

from __future__ import annotations

from typing import LiteralString

# Pushed into the future before the books are asked: a provider that is down keeps nobody awake, and
# of two sweepers that found the books due the second finds that they no longer are.  ran_at is the
# moment from which payments are news: a minute before now, for a payment that is being committed
# carries its transaction's begin.
TAKE: LiteralString = """
update shop.reconciliation set ran_at = now() - interval '1 minute',
  next_run_at = now() + interval '2 minutes'
where provider = (select provider from shop.reconciliation where provider = %(provider)s
  for update skip locked)
  and exists (select from shop.due_work
    where kind = 'reconcile' and id = %(provider)s and due_at <= now())
returning cursor
"""

KEEP_PLACE: LiteralString = """
update shop.reconciliation set cursor = %(cursor)s, next_run_at = now() + interval '2 minutes'
where provider = %(provider)s
"""

# The time of a tick was over before the books were.
GO_ON: LiteralString = """
update shop.reconciliation set next_run_at = now() where provider = %(provider)s
"""

# After a restore the place itself may be wrong; what is read twice changes nothing.
READ_AGAIN: LiteralString = """
update shop.reconciliation set cursor = '', next_run_at = now()
"""

# Five minutes after the first payment since the last run; a quiet shop is looked at once a day.
ADVANCE: LiteralString = """
update shop.reconciliation set cursor = %(cursor)s,
  next_run_at = now() + case when %(found)s then interval '1 hour' else interval '1 day' end
where provider = %(provider)s
"""
