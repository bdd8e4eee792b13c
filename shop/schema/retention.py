"""How long rows are kept: the setting ``RETENTION``, and the function that deletions ask.

``tools.migrate`` creates ``shop.retention`` with the ages that the tables declare and the setting
replaces.  Rows of monthly partitions have the declared age: months are dropped as a whole.
"""

from __future__ import annotations

from datetime import timedelta

from shop.schema.tables import METADATA, DeletedAfter, deletions_of, partitions_of

# Replaceable while functions read it, and inlined: indexes on a time answer for it.
FUNCTION = """
create or replace function shop.retention(job text) returns interval
language sql stable parallel safe as $$
  select case job {ages} end
$$
"""


def changeable() -> dict[str, DeletedAfter]:
    """The rules whose ages the setting may replace, by the job's name."""
    return {
        rule.job: rule
        for table in METADATA.sorted_tables
        if partitions_of(table) is None
        for rule in deletions_of(table)
    }


def retention_statement(setting: str) -> str:
    """The function with the ages of ``setting``, such as ``sessions=90 days, idempotency=2 days``.

    ``ValueError`` for an unknown job, an age that cannot be read, and one below the job's least.
    """
    rules = changeable()
    ages = {job: rule.age for job, rule in rules.items()}
    for entry in filter(None, (part.strip() for part in setting.split(","))):
        job, _, age = (part.strip() for part in entry.partition("="))
        if job not in rules:
            raise ValueError(f"RETENTION: no rows named {job!r}; there are {', '.join(ages)}")
        if _seconds(age) < _seconds(rules[job].least):
            raise ValueError(f"RETENTION: {job} are kept for at least {rules[job].least}")
        ages[job] = age
    whens = " ".join(f"when '{job}' then interval '{age}'" for job, age in sorted(ages.items()))
    return FUNCTION.format(ages=whens)


def _seconds(age: str) -> float:
    number, _, unit = age.partition(" ")
    unit = unit if unit.endswith("s") else f"{unit}s"
    if not number.isdecimal() or unit not in ("minutes", "hours", "days"):
        raise ValueError(f"RETENTION: {age!r} is no age such as 90 days")
    return timedelta(**{unit: int(number)}).total_seconds()
