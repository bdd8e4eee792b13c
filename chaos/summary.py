"""Adds up what a run did, kind by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

from chaos.environment import DATABASE, Environment
from chaos.faults.catalogue import AFTERWARDS, KINDS, NAMES, NOT_MADE
from chaos.run_record import Injection, KindSum, RunRecord
from chaos.schedule import FaultSchedule

PROVIDER_FAULTS = ("timeout", "error", "rate_limited", "slow", "late", "wrong", "webhook")
SAY_NOTHING = ("timeout", "error", "rate_limited", "late")
COUNT_DEAD_LETTERS: LiteralString = "select count(distinct event_id) from shop.dead_letters"
SHOW_FSYNC: LiteralString = "show fsync"


def collect(
    record: RunRecord,
    scene: Environment,
    lanes: FaultSchedule,
    asked: frozenset[str],
    provider_counts: Mapping[str, int],
) -> None:
    """Fills the record with what the load's faults came to; called before they are healed."""
    counts, crashes = scene.activity_log.counts, scene.crashes
    record.events = counts["events"]
    record.duplicates, record.reordered = counts["duplicates"], counts["reordered"]
    record.lost = counts["lost"]
    for pair in crashes.pairs:
        record.pairs.setdefault(pair.function, {})[pair.window] = crashes.hits[pair]
    record.pairs_wanted = crashes.per_pair
    record.injections = sorted(lanes.injections, key=lambda injection: injection.began)
    provider = sum(n for name, n in provider_counts.items() if name.startswith(PROVIDER_FAULTS))
    record.provider_unknowns = sum(
        n for name, n in provider_counts.items() if name.startswith(SAY_NOTHING)
    )
    steady = {
        "F-01": (crashes.kills, crashes.wanted),
        "F-05": (record.duplicates, 0),
        "F-06": (record.reordered, 0),
        "F-07": (record.lost, 0),
        "F-15": (provider, 0),
    }
    record.kinds = [
        _sum(name, record, scene, lanes, steady, is_asked=name in asked) for name in sorted(NAMES)
    ]


def finish(record: RunRecord, scene: Environment, evaluations: int) -> None:
    """What is known only at the end: the commits whose reply was lost, and the checker's work."""
    for kind in record.kinds:
        kind.evaluations = evaluations
        kind.violations = len(record.broken) if kind.state == "fired" else 0


async def count_commits(record: RunRecord, scene: Environment) -> None:
    """How many replies to COMMIT the proxy has kept to itself."""
    figures = await scene.proxies.figures()
    record.commits_ambiguous = figures[DATABASE].get("swallow_commit_reply", 0)
    kind = next(kind for kind in record.kinds if kind.id == "F-10")
    kind.injected = record.commits_ambiguous
    kind.state = "fired" if record.commits_ambiguous else kind.state


async def count_dead_letters(record: RunRecord, scene: Environment) -> None:
    """How many events ended as dead letters; ``Q-09`` says whether they are the poison."""
    async with scene.database() as database:
        row = await (await database.execute(COUNT_DEAD_LETTERS)).fetchone()
    kind = next(kind for kind in record.kinds if kind.id == "F-19")
    kind.dead_letters, kind.dead_letters_expected = (row[0] if row else 0), len(scene.poison)


async def note_fsync(record: RunRecord, scene: Environment) -> None:
    """Whether a commit survives a crash of the machine too, as the server says it."""
    async with scene.database() as database:
        row = await (await database.execute(SHOW_FSYNC)).fetchone()
    record.fsync = str(row[0]) if row else ""


def _sum(
    name: str,
    record: RunRecord,
    scene: Environment,
    lanes: FaultSchedule,
    steady: Mapping[str, tuple[int, int]],
    *,
    is_asked: bool,
) -> KindSum:
    mine = [injection for injection in record.injections if injection.kind == name]
    injected, wanted = steady.get(name, (len(mine), scene.tier.doses.get(name, 0)))
    total = KindSum(id=name, what=NAMES[name], injected=injected, wanted=wanted)
    if not is_asked:
        total.state = "not asked"
        total.reason = "not in this tier" if name in AFTERWARDS else "not among --kinds"
    elif injected:
        total.state = "fired"
    else:
        total.reason = _why_not(name, lanes)
    if name == "F-01":
        total.windows_hit = scene.crashes.pairs_hit
    for injection in mine:
        _measure(injection, record)
    total.orders_in_flight = sum(injection.orders_in_flight for injection in mine)
    total.unknown_answers = sum(injection.unknown_answers for injection in mine)
    total.rest_seconds = [i.rest_seconds for i in mine if i.rest_seconds is not None]
    available = [i.availability for i in mine if i.availability is not None]
    total.availability = sum(available) / len(available) if available else None
    return total


def _why_not(name: str, lanes: FaultSchedule) -> str:
    if name in NOT_MADE:
        return NOT_MADE[name][1]
    if name in lanes.impossible:
        return lanes.impossible[name]
    if name in {kind.id for kind in KINDS}:
        return "its turn did not come"
    return "it did not fire"


def _measure(injection: Injection, record: RunRecord) -> None:
    """What the clients saw while the fault was on."""
    during = [s for s in record.samples if injection.began <= s.at <= injection.ended + 1.0]
    requests = sum(sample.requests for sample in during)
    injection.unknown_answers = sum(sample.unknown for sample in during)
    injection.orders_in_flight = max((sample.open_orders for sample in during), default=0)
    if requests:
        injection.availability = 1 - injection.unknown_answers / requests
