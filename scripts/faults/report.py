"""A run as text and as JSON lines (design: correctness.md 4d).

What did not fire is reported as not tested, never as passed.  With no violation in N independent
trials the 95 % upper bound of the rate is 3/N (Hanley and Lippman-Hand, JAMA 1983).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.faults.record import Broken, Check, Injection, KindSum, RunRecord, Sample

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
    """The whole report, plain and aligned."""
    parts = [
        headline(record),
        *_table(COLUMNS, [cells(kind) for kind in record.kinds]),
        "",
        *_untested(record),
        *_pairs(record),
        "",
        *[f"{'holds' if c.holds else 'FAILS':6} {c.what}: {c.detail}" for c in record.checks],
        "",
        *_broken(record),
        *foot(record),
    ]
    return "\n".join(line.rstrip() for line in parts) + "\n"


def headline(record: RunRecord) -> str:
    """What the run came to, in one line."""
    verdict = "everything holds" if record.is_clean else "SOMETHING IS BROKEN"
    return f"shop faults, tier {record.tier}, seed {record.seed}, {record.began_at}: {verdict}\n"


def cells(kind: KindSum) -> tuple[str, ...]:
    """One kind's row."""
    if kind.state != "fired":
        return (kind.id, kind.what, kind.state, *([""] * (len(COLUMNS) - 3)))
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
    kills = sum(count for windows in record.pairs.values() for count in windows.values())
    counts = [count for windows in record.pairs.values() for count in windows.values()]
    seconds = max(1.0, record.samples[-1].at if record.samples else record.seconds)
    loaded = sum(1 for sample in record.samples if sample.requests) or 1
    return [
        f"orders {record.orders}, operations {record.operations}, events {record.events} "
        f"(of these {record.duplicates} duplicates, {record.reordered} reordered, "
        f"{record.lost} lost), kills {kills} over {len(counts)} pairs "
        f"(min per pair {min(counts, default=0)}), COMMIT-ambiguous {record.commits_ambiguous}, "
        f"provider unknowns {record.provider_unknowns}, replays {record.replays}, "
        f"seed {record.seed}, checker runs {record.evaluations} x {record.invariants} invariants, "
        f"broken {len(record.broken)}",
        *_bounds(record, kills),
        f"throughput {record.orders / loaded:.1f} orders/s, "
        f"{record.operations / loaded:.1f} operations/s over {loaded} s of load, "
        f"{seconds:.0f} s in all",
        f"machine {record.machine}; PostgreSQL fsync on; commit {record.commit}",
        "versions " + ", ".join(f"{name} {text}" for name, text in record.versions.items()),
        "knobs " + ", ".join(f"{name}={text}" for name, text in record.knobs.items()),
    ]


def write_lines(record: RunRecord, path: Path) -> None:
    """One JSON document a line: ``run`` first, then each kind, fault, sample, check and break."""
    whole = asdict(record)
    lists = {name: whole.pop(name) for name, _ in LISTS.values()}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"run": whole}, ensure_ascii=False) + "\n")
        for label, (name, _) in LISTS.items():
            for item in lists[name]:
                file.write(json.dumps({label: item}, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> RunRecord:
    """The record that ``write_lines`` has written."""
    record: RunRecord | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        ((label, item),) = json.loads(line).items()
        if label == "run":
            record = RunRecord(**item)
            continue
        name, kind = LISTS[label]
        assert record is not None, "the run comes first"
        getattr(record, name).append(_made(kind, item))
    assert record is not None, f"{path} holds no run"
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
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _untested(record: RunRecord) -> list[str]:
    untested = [kind for kind in record.kinds if kind.state == "not tested"]
    return [f"not tested: {kind.id} {kind.what}: {kind.reason}" for kind in untested] + [""]


def _pairs(record: RunRecord) -> list[str]:
    windows = sorted(
        {window for hits in record.pairs.values() for window in hits}, key=lambda w: int(w[1:])
    )
    if not windows:
        return []
    rows = [
        (function, *(str(hits.get(window, "")) for window in windows))
        for function, hits in sorted(record.pairs.items())
    ]
    never = [
        f"{function} {window}"
        for function, hits in sorted(record.pairs.items())
        for window, count in hits.items()
        if not count
    ]
    note = f"never hit: {', '.join(never)}" if never else "every pair was hit"
    return [
        f"kills by crash window, {record.pairs_wanted} wanted each; {note}",
        *_table(("function", *windows), rows),
    ]


def _broken(record: RunRecord) -> list[str]:
    lines = []
    for broken in record.broken:
        lines.append(f"BROKEN at {broken.at:.0f} s: {broken.id} {broken.what}")
        lines += [f"    {row}" for row in broken.rows[:10]]
    return [*lines, ""] if lines else []


def _bounds(record: RunRecord, kills: int) -> list[str]:
    if not record.is_clean:
        return []
    bounds = [
        f"{name} {count}: the rate of violations is below {3 / count:.1e} per {each} (95 %, 3/N)"
        for name, count, each in (("orders", record.orders, "order"), ("kills", kills, "kill"))
        if count
    ]
    return ["; ".join(bounds)]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    lines = [tuple(columns), *(tuple(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
