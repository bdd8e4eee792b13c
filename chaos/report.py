"""A run as text and as JSON lines (design: correctness.md 4d).

What did not fire is reported as not tested, never as passed.  With no violation in N independent
trials the 95 % upper bound of the rate is 3/N (Hanley and Lippman-Hand, JAMA 1983).
"""

from __future__ import annotations

import json
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chaos.run_record import Broken, Check, Injection, KindSum, RunRecord, Sample

WIDTH_MAX = 140
WIDE_MIN = 16
ROWS_MAX = 10
COLUMNS = (
    "kind",
    "what",
    "injected",
    "windows",
    "in flight",
    "unknown",
    "dead letters",
    "to rest p50/p99/max s",
    "available",
    "checks",
    "broken",
)
LISTS = {
    "kind": ("kinds", KindSum),
    "fault": ("injections", Injection),
    "sample": ("samples", Sample),
    "check": ("checks", Check),
    "broken": ("broken", Broken),
}


def as_text(record: RunRecord) -> str:
    """The whole report, plain, aligned, and no line longer than ``WIDTH_MAX``."""
    lines = [
        *_wrapped(headline(record)),
        "",
        *_table(COLUMNS, [cells(kind) for kind in record.kinds], wide=1),
        "",
        *_untested(record),
        *_pairs(record),
        *_checks(record),
        *_broken(record),
        *(part for line in foot(record) for part in _wrapped(line)),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def headline(record: RunRecord) -> str:
    """What the run came to, in one line."""
    told = verdict(record) if record.is_clean else verdict(record).upper()
    begin = f"shop faults, tier {record.tier}, seed {record.seed}, {record.began_at}: {told}"
    return "; ".join([begin, *gaps(record)])


def verdict(record: RunRecord) -> str:
    """The run in three words; of what was not looked at it says nothing."""
    if not record.is_clean:
        return "something is broken"
    return "everything tested holds" if record.checks else "nothing was checked"


def gaps(record: RunRecord) -> list[str]:
    """What the verdict does not cover: the kinds that did not fire, by state."""
    found = []
    for state in ("not tested", "not asked"):
        if names := [kind.id for kind in record.kinds if state_of(kind) == state]:
            found.append(f"{state}: {', '.join(names)}")
    return found


def state_of(kind: KindSum) -> str:
    """The kind's state; one that was to fire and did so 0 times is not tested."""
    return "not tested" if kind.state == "fired" and not kind.injected else kind.state


def why_not(kind: KindSum) -> str:
    """Why a kind did not fire."""
    return kind.reason or "it fired 0 times"


def cells(kind: KindSum) -> tuple[str, ...]:
    """One kind's row."""
    if state_of(kind) != "fired":
        return (kind.id, kind.what, state_of(kind), *([""] * (len(COLUMNS) - 3)))
    available = "" if kind.availability is None else f"{kind.availability:.1%}"
    letters = ""
    if kind.dead_letters or kind.dead_letters_expected:
        letters = f"{kind.dead_letters} ({kind.dead_letters_expected})"
    return (
        kind.id,
        kind.what,
        f"{kind.injected}/{kind.wanted}" if kind.wanted else str(kind.injected),
        str(kind.windows_hit or ""),
        str(kind.orders_in_flight or ""),
        str(kind.unknown_answers or ""),
        letters,
        _rest(kind.rest_seconds),
        available,
        str(kind.evaluations),
        str(kind.violations),
    )


def foot(record: RunRecord) -> list[str]:
    """The sums, the bound they allow, and what the run was made on."""
    counts = [count for windows in record.pairs.values() for count in windows.values()]
    kills = sum(counts)
    seconds = max(1.0, record.samples[-1].at if record.samples else record.seconds)
    loaded = max(1.0, record.load_seconds)
    return [
        f"orders {record.orders}, operations {record.operations}, events {record.events} "
        f"(of these {record.duplicates} duplicates, {record.reordered} reordered, "
        f"{record.lost} lost), kills {kills} over {len(counts)} pairs "
        f"(min per pair {min(counts, default=0)}), COMMIT-ambiguous {record.commits_ambiguous}, "
        f"provider unknowns {record.provider_unknowns}, replays {record.replays}, "
        f"seed {record.seed}, checker runs {record.evaluations} x {record.invariants} invariants, "
        f"violations {len(record.broken)}",
        *_bounds(record, kills),
        f"throughput {record.orders / loaded:.1f} orders/s, "
        f"{record.operations / loaded:.1f} operations/s over {loaded:.0f} s of load, "
        f"{seconds:.0f} s in all",
        f"machine {record.machine}; PostgreSQL fsync {record.fsync or 'not noted'}; "
        f"commit {record.commit}",
        "versions " + ", ".join(f"{name} {text}" for name, text in record.versions.items()),
        "knobs " + ", ".join(f"{name}={text}" for name, text in record.knobs.items()),
    ]


def write_lines(record: RunRecord, path: Path) -> None:
    """One JSON object a line, each with one name; the fields are those of the record's classes.

    ``{"run": …}`` comes first, with all that is no list; then one line for each kind
    (``KindSum``), fault (``Injection``), sample (``Sample``), check (``Check``) and broken
    (``Broken``).  The file is ASCII: a separator of Unicode in a row ends no line.
    """
    whole = asdict(record)
    lists = {name: whole.pop(name) for name, _ in LISTS.values()}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"run": whole}) + "\n")
        for label, (name, _) in LISTS.items():
            for item in lists[name]:
                file.write(json.dumps({label: item}) + "\n")


def read_lines(path: Path) -> RunRecord:
    """The record that ``write_lines`` has written; ValueError where the file holds none."""
    record: RunRecord | None = None
    with path.open(encoding="utf-8") as file:
        for line in file:
            ((label, item),) = json.loads(line).items()
            if label == "run":
                record = RunRecord(**item)
                continue
            if record is None or label not in LISTS:
                raise ValueError(f"{path}: {label!r} is not expected here")
            name, kind = LISTS[label]
            getattr(record, name).append(_made(kind, item))
    if record is None:
        raise ValueError(f"{path} holds no run")
    return record


def _made(kind: Any, item: dict[str, Any]) -> Any:
    if kind is Sample:
        item = {**item, "faults": tuple(item["faults"])}
    return kind(**item)


def _rest(seconds: list[float]) -> str:
    if not seconds:
        return ""
    ordered = sorted(seconds)
    return "/".join(f"{_quantile(ordered, share):.1f}" for share in (0.5, 0.99, 1.0))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that at least ``share`` of all do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def reasons(record: RunRecord) -> list[str]:
    """Every kind that did not fire with its reason; those not asked for, by reason."""
    lines = [
        f"not tested: {kind.id} {kind.what}: {why_not(kind)}"
        for kind in record.kinds
        if state_of(kind) == "not tested"
    ]
    unasked: dict[str, list[str]] = {}
    for kind in record.kinds:
        if state_of(kind) == "not asked":
            unasked.setdefault(kind.reason, []).append(kind.id)
    lines += [f"not asked: {', '.join(ids)}: {reason}" for reason, ids in unasked.items()]
    return lines + [
        f"not seen to recover: {name}, {count} times" for name, count in unrested(record).items()
    ]


def _untested(record: RunRecord) -> list[str]:
    lines = [part for line in reasons(record) for part in _wrapped(line)]
    return [*lines, ""] if lines else []


def unrested(record: RunRecord) -> Counter[str]:
    """Faults after which no second without a failed answer was seen, by kind.

    They are in no quantile of the time to rest, so they are told beside it.
    """
    return Counter(each.kind for each in record.injections if each.rest_seconds is None)


def pair_table(record: RunRecord) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of kills by function and window, the least of each row at its end."""
    windows = sorted({w for hits in record.pairs.values() for w in hits}, key=_window_number)
    rows = [
        [
            function,
            *(str(hits.get(window, "")) for window in windows),
            str(min(hits.values(), default=0)),
        ]
        for function, hits in sorted(record.pairs.items())
    ]
    return ["function", *windows, "min"], rows


def never_hit(record: RunRecord) -> str:
    """Which pairs no kill has met, by name."""
    never = [
        " ".join([function, *(window for window, count in hits.items() if not count)])
        for function, hits in sorted(record.pairs.items())
        if not all(hits.values())
    ]
    return f"never hit: {', '.join(never)}" if never else "every pair was hit"


def _window_number(window: str) -> int:
    return int(window.removeprefix("W"))


def _pairs(record: RunRecord) -> list[str]:
    if not record.pairs:
        return []
    wanted = f"kills by crash window, {record.pairs_wanted} wanted each"
    columns, rows = pair_table(record)
    return [*_wrapped(f"{wanted}; {never_hit(record)}"), *_table(columns, rows), ""]


def _checks(record: RunRecord) -> list[str]:
    lines = [
        part
        for check in record.checks
        for part in _wrapped(
            f"{'holds' if check.holds else 'FAILS':6} {check.what}: {check.detail}", indent=7
        )
    ]
    return [*lines, ""] if lines else []


def _broken(record: RunRecord) -> list[str]:
    lines = []
    for broken in record.broken:
        lines += _wrapped(f"BROKEN at {broken.at:.0f} s: {broken.id} {broken.what}")
        for row in broken.rows[:ROWS_MAX]:
            lines += _wrapped(f"    {row}", indent=6)
        if len(broken.rows) > ROWS_MAX:
            lines.append(f"    and {len(broken.rows) - ROWS_MAX} more")
    return [*lines, ""] if lines else []


def _bounds(record: RunRecord, kills: int) -> list[str]:
    if not record.is_clean or not record.invariants:
        return []
    return [
        f"{name} {count}: the rate of violations is below {3 / count:.1e} per {each} (95 %, 3/N)"
        for name, count, each in (("orders", record.orders, "order"), ("kills", kills, "kill"))
        if count
    ]


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, wide: int = 0
) -> Iterable[str]:
    """Aligned columns; the one at ``wide`` goes on below itself where the line would be long."""
    lines = [[_flat(cell) for cell in line] for line in (columns, *rows)]
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
        _flat(line), WIDTH_MAX, subsequent_indent=" " * indent, break_on_hyphens=False
    )


def _flat(text: str) -> str:
    """On one line and without control characters: a row of a report cannot draw another."""
    return "".join(char if char.isprintable() else " " for char in text)
