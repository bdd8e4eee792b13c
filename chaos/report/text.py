"""A run as plain text, and the texts that the HTML report shares.

A fault that was not injected is reported as not tested, never as passed.  Without a violation in N
independent trials the 95 % upper bound of the rate is 3/N (Hanley and Lippman-Hand, JAMA 1983).
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

from chaos.report.record import FaultState, FaultSummary, RunRecord

WIDTH_MAX = 140
WIDE_MIN = 16
ROWS_MAX = 10
COLUMNS = (
    "fault",
    "title",
    "injections",
    "failpoints",
    "in flight",
    "unknown",
    "dead letters",
    "recovery p50/p99/max s",
    "available",
    "evaluations",
    "violations",
)


def as_text(record: RunRecord) -> str:
    """The whole report, aligned, with no line longer than ``WIDTH_MAX``."""
    lines = [
        *_wrapped(headline(record)),
        "",
        *_table(COLUMNS, [cells(fault) for fault in record.faults], wide=1),
        "",
        *_untested(record),
        *_kills(record),
        *_checks(record),
        *_violations(record),
        *(part for line in totals(record) for part in _wrapped(line)),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def headline(record: RunRecord) -> str:
    """The result of the run in one line."""
    result = verdict(record) if record.has_passed else verdict(record).upper()
    begin = f"shop faults, tier {record.tier}, seed {record.seed}, {record.began_at}: {result}"
    return "; ".join([begin, *gaps(record)])


def verdict(record: RunRecord) -> str:
    """The result in a few words; it covers only what was tested."""
    if not record.has_passed:
        return "violations found"
    return "all checks passed" if record.checks else "nothing was checked"


def gaps(record: RunRecord) -> list[str]:
    """The faults that the verdict does not cover, by state."""
    states: tuple[FaultState, ...] = ("not tested", "not selected")
    by_state = {
        state: [fault.id for fault in record.faults if state_of(fault) == state] for state in states
    }
    return [f"{state}: {', '.join(ids)}" for state, ids in by_state.items() if ids]


def state_of(fault: FaultSummary) -> FaultState:
    """The fault's state; without an injection it is not tested."""
    return "not tested" if fault.state == "injected" and not fault.injections else fault.state


def reason_of(fault: FaultSummary) -> str:
    """Why the fault was not injected."""
    return fault.reason or "0 injections"


def cells(fault: FaultSummary) -> tuple[str, ...]:
    """The row of one fault."""
    if state_of(fault) != "injected":
        return (fault.id, fault.title, state_of(fault), *([""] * (len(COLUMNS) - 3)))
    letters = ""
    if fault.dead_letters or fault.dead_letters_expected:
        letters = f"{fault.dead_letters} ({fault.dead_letters_expected})"
    return (
        fault.id,
        fault.title,
        f"{fault.injections}/{fault.planned}" if fault.planned else str(fault.injections),
        str(fault.pairs_completed or ""),
        str(fault.orders_in_flight or ""),
        str(fault.unknown or ""),
        letters,
        _quantiles(fault.recovery_seconds),
        "" if fault.availability is None else f"{fault.availability:.1%}",
        str(fault.evaluations),
        str(fault.violations),
    )


def totals(record: RunRecord) -> list[str]:
    """The totals, the bounds that follow from them, and the environment of the run."""
    counts = [count for kills in record.kills.values() for count in kills.values()]
    kills = sum(counts)
    return [
        f"orders {record.orders}, operations {record.operations}, events {record.events} "
        f"(of these {record.events_duplicated} duplicates, {record.events_reordered} reordered, "
        f"{record.events_lost} lost), kills {kills} at {len(counts)} pairs "
        f"(min per pair {min(counts, default=0)}), ambiguous commits {record.ambiguous_commits}, "
        f"unknown provider outcomes {record.provider_unknown}, replays {record.replays}, "
        f"seed {record.seed}, evaluations {record.evaluations} x {record.invariants} invariants, "
        f"violations {len(record.violations)}",
        *_bounds(record, kills),
        _throughput(record),
        f"machine {record.machine}; PostgreSQL fsync {record.fsync or 'not recorded'}; "
        f"commit {record.commit}",
        "versions " + ", ".join(f"{name} {text}" for name, text in record.versions.items()),
        "settings " + ", ".join(f"{name}={text}" for name, text in record.settings.items()),
    ]


def _throughput(record: RunRecord) -> str:
    """The rates of the workload, whose results are not known when a violation has stopped it."""
    seconds = max(1.0, record.samples[-1].at if record.samples else record.seconds)
    loaded = record.load_seconds
    if not loaded:
        return f"stopped after {seconds:.0f} s: orders and operations were not counted"
    return (
        f"throughput {record.orders / loaded:.1f} orders/s, "
        f"{record.operations / loaded:.1f} operations/s over {loaded:.0f} s of workload, "
        f"{seconds:.0f} s in all"
    )


def reasons(record: RunRecord) -> list[str]:
    """Why faults were not injected, and after which ones no recovery was observed."""
    lines = [
        f"not tested: {fault.id} {fault.title}: {reason_of(fault)}"
        for fault in record.faults
        if state_of(fault) == "not tested"
    ]
    not_selected: dict[str, list[str]] = {}
    for fault in record.faults:
        if state_of(fault) == "not selected":
            not_selected.setdefault(fault.reason, []).append(fault.id)
    lines += [f"not selected: {', '.join(ids)}: {reason}" for reason, ids in not_selected.items()]
    # these injections are not in the quantiles of the recovery time
    unrecovered = Counter(i.fault_id for i in record.injections if i.recovery_seconds is None)
    return lines + [
        f"no recovery observed: {fault_id}, {count} times"
        for fault_id, count in unrecovered.items()
    ]


def kill_table(record: RunRecord) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the kills by function and failpoint, with the minimum of each row."""
    failpoints = sorted({f for kills in record.kills.values() for f in kills}, key=_number)
    rows = [
        [
            function,
            *(str(kills.get(failpoint, "")) for failpoint in failpoints),
            str(min(kills.values(), default=0)),
        ]
        for function, kills in sorted(record.kills.items())
    ]
    return ["function", *failpoints, "min"], rows


def pairs_without_kill(record: RunRecord) -> str:
    """The pairs of function and failpoint without a kill."""
    without = [
        " ".join([function, *(failpoint for failpoint, count in kills.items() if not count)])
        for function, kills in sorted(record.kills.items())
        if not all(kills.values())
    ]
    return f"without a kill: {', '.join(without)}" if without else "every pair has a kill"


def _number(failpoint: str) -> int:
    return int(failpoint.removeprefix("W"))


def _quantiles(seconds: list[float]) -> str:
    if not seconds:
        return ""
    ordered = sorted(seconds)
    return "/".join(f"{_quantile(ordered, share):.1f}" for share in (0.5, 0.99, 1.0))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that at least ``share`` of all do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _untested(record: RunRecord) -> list[str]:
    lines = [part for line in reasons(record) for part in _wrapped(line)]
    return [*lines, ""] if lines else []


def _kills(record: RunRecord) -> list[str]:
    if not record.kills:
        return []
    title = f"kills by failpoint, {record.kills_per_pair} planned each"
    columns, rows = kill_table(record)
    return [*_wrapped(f"{title}; {pairs_without_kill(record)}"), *_table(columns, rows), ""]


def _checks(record: RunRecord) -> list[str]:
    lines = [
        part
        for check in record.checks
        for part in _wrapped(
            f"{'passed' if check.has_passed else 'FAILED'} {check.title}: {check.detail}", indent=7
        )
    ]
    return [*lines, ""] if lines else []


def _violations(record: RunRecord) -> list[str]:
    lines: list[str] = []
    for violation in record.violations:
        lines += _wrapped(f"VIOLATION at {violation.at:.0f} s: {violation.id} {violation.title}")
        for row in violation.rows[:ROWS_MAX]:
            lines += _wrapped(f"    {row}", indent=6)
        if len(violation.rows) > ROWS_MAX:
            lines.append(f"    and {len(violation.rows) - ROWS_MAX} more")
    return [*lines, ""] if lines else []


def _bounds(record: RunRecord, kills: int) -> list[str]:
    if not record.has_passed or not record.invariants:
        return []
    return [
        f"{name} {count}: the rate of violations is below {3 / count:.1e} per {each} (95 %, 3/N)"
        for name, count, each in (("orders", record.orders, "order"), ("kills", kills, "kill"))
        if count
    ]


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, wide: int = 0
) -> Iterable[str]:
    """Aligned columns; the column ``wide`` is wrapped where the line would be too long."""
    lines = [[_printable(cell) for cell in line] for line in (columns, *rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    others = sum(widths) - widths[wide] + 2 * (len(widths) - 1)
    widths[wide] = min(widths[wide], max(WIDE_MIN, WIDTH_MAX - others))
    for line in lines:
        first, *more = textwrap.wrap(line[wide], widths[wide]) or [""]
        line[wide] = first
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        indent = " " * sum(width + 2 for width in widths[:wide])
        yield from (indent + part for part in more)


def _wrapped(line: str, *, indent: int = 2) -> list[str]:
    return textwrap.wrap(
        _printable(line), WIDTH_MAX, subsequent_indent=" " * indent, break_on_hyphens=False
    )


def _printable(text: str) -> str:
    """One line without control characters: a text cannot forge another row of the report."""
    return "".join(char if char.isprintable() else " " for char in text)
