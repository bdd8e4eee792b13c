"""Fills a run's record with totals, per fault and overall."""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

from chaos.environment import DATABASE, Environment
from chaos.faults.catalogue import POST_RUN_FAULTS, SCHEDULED_FAULTS, TITLES
from chaos.report.record import FaultSummary, Injection, RunRecord
from chaos.schedule import FaultSchedule

PROVIDER_FAULTS = (
    "timeout", "error", "rate_limited", "slow", "late", "wrong", "webhook", "provider_refund",
    "dispute", "other_shop",
)  # fmt: skip
UNKNOWN_OUTCOMES = ("timeout", "error", "rate_limited", "late")
COUNT_DEAD_LETTERS: LiteralString = "select count(distinct event_id) from shop.dead_letters"
SHOW_FSYNC: LiteralString = "show fsync"


def add_fault_summaries(
    record: RunRecord,
    environment: Environment,
    schedule: FaultSchedule,
    selected: frozenset[str],
    provider_counts: Mapping[str, int],
) -> None:
    """Adds counts and fault summaries; called before the faults are removed."""
    counts, plan = environment.activity_log.counts, environment.kill_plan
    record.events = counts["events"]
    record.events_duplicated = counts["duplicates"]
    record.events_reordered, record.events_lost = counts["reordered"], counts["lost"]
    for pair in plan.pairs:
        record.kills.setdefault(pair.function, {})[pair.failpoint] = plan.kills[pair]
    record.kills_per_pair = plan.kills_per_pair
    record.injections = sorted(schedule.injections, key=lambda injection: injection.began)
    record.provider_unknown = _count(provider_counts, UNKNOWN_OUTCOMES)
    continuous = {
        "F-01": (plan.kills_total, plan.kills_planned),
        "F-05": (record.events_duplicated, 0),
        "F-06": (record.events_reordered, 0),
        "F-07": (record.events_lost, 0),
        "F-15": (_count(provider_counts, PROVIDER_FAULTS), 0),
    }
    for fault_id in sorted(TITLES):
        summary = _summarize(fault_id, record, environment, continuous)
        if fault_id not in selected:
            summary.state = "not selected"
            is_post_run = fault_id in POST_RUN_FAULTS
            summary.reason = "not in this tier" if is_post_run else "not among --kinds"
        elif summary.injections:
            summary.state = "injected"
        else:
            summary.reason = _why_not_injected(fault_id, schedule)
        record.faults.append(summary)


def add_checker_counts(record: RunRecord, evaluations: int) -> None:
    """Adds the number of evaluations and violations to every fault summary."""
    record.evaluations = evaluations
    for fault in record.faults:
        fault.evaluations = evaluations
        fault.violations = len(record.violations) if fault.state == "injected" else 0


async def count_ambiguous_commits(record: RunRecord, environment: Environment) -> None:
    """Adds the number of COMMIT replies that the proxy dropped (F-10)."""
    metrics = await environment.proxies.metrics()
    record.ambiguous_commits = metrics[DATABASE].get("drop_commit_reply", 0)
    fault = record.fault("F-10")
    fault.injections = record.ambiguous_commits
    fault.state = "injected" if record.ambiguous_commits else fault.state


async def count_dead_letters(record: RunRecord, environment: Environment) -> None:
    """Adds the number of dead letters; invariant Q-09 compares them with the poison events."""
    async with environment.database() as database:
        row = await (await database.execute(COUNT_DEAD_LETTERS)).fetchone()
    fault = record.fault("F-19")
    fault.dead_letters = row[0] if row else 0
    fault.dead_letters_expected = len(environment.poison_events)


async def note_fsync(record: RunRecord, environment: Environment) -> None:
    """Adds the server's fsync setting: whether commits survive a crash of the machine."""
    async with environment.database() as database:
        row = await (await database.execute(SHOW_FSYNC)).fetchone()
    record.fsync = str(row[0]) if row else ""


def _count(counts: Mapping[str, int], prefixes: tuple[str, ...]) -> int:
    return sum(n for name, n in counts.items() if name.startswith(prefixes))


def _summarize(
    fault_id: str,
    record: RunRecord,
    environment: Environment,
    continuous: Mapping[str, tuple[int, int]],
) -> FaultSummary:
    injections = [each for each in record.injections if each.fault_id == fault_id]
    for injection in injections:
        _measure(injection, record)
    scheduled = (len(injections), environment.tier.repetitions.get(fault_id, 0))
    count, planned = continuous.get(fault_id, scheduled)
    available = [each.availability for each in injections if each.availability is not None]
    return FaultSummary(
        id=fault_id,
        title=TITLES[fault_id],
        injections=count,
        planned=planned,
        pairs_completed=environment.kill_plan.pairs_completed if fault_id == "F-01" else 0,
        orders_in_flight=sum(each.orders_in_flight for each in injections),
        unknown=sum(each.unknown for each in injections),
        recovery_seconds=[
            each.recovery_seconds for each in injections if each.recovery_seconds is not None
        ],
        availability=sum(available) / len(available) if available else None,
    )


def _why_not_injected(fault_id: str, schedule: FaultSchedule) -> str:
    if fault_id in schedule.unavailable:
        return schedule.unavailable[fault_id]
    if fault_id in {fault.id for fault in SCHEDULED_FAULTS}:
        return "the run ended before its first injection"
    return "it never occurred"


def _measure(injection: Injection, record: RunRecord) -> None:
    """Adds what the clients observed while the fault was active."""
    during = [s for s in record.samples if injection.began <= s.at <= injection.ended + 1.0]
    requests = sum(sample.requests for sample in during)
    injection.unknown = sum(sample.unknown for sample in during)
    injection.orders_in_flight = max((sample.open_orders for sample in during), default=0)
    if requests:
        injection.availability = 1 - injection.unknown / requests
