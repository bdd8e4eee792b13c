"""Where reconciliation with the provider's books stands.  Writer of ``reconciliation``."""

from __future__ import annotations

from typing import LiteralString

POSITION: LiteralString = """
select cursor from shop.reconciliation where provider = %(provider)s for update skip locked
"""

# Five minutes after the first payment since the last run; a quiet shop is looked at once a day.
ADVANCE: LiteralString = """
update shop.reconciliation set cursor = %(cursor)s, ran_at = now(),
  next_run_at = now() + case when %(found)s then interval '1 hour' else interval '1 day' end
where provider = %(provider)s
"""
