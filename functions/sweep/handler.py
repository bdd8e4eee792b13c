"""Does everything that is due, in batches, until nothing is (shop/due_jobs.py)."""

from __future__ import annotations

from shop.due_jobs import run_due_jobs

sweep = run_due_jobs
