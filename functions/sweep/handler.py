"""Runs due jobs (``shop/due_jobs.py``) until none is left or the time of one tick is over."""

from __future__ import annotations

from shop.due_jobs import run_due_jobs

sweep = run_due_jobs
