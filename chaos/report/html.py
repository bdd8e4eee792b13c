"""A run as one HTML file without scripts or external resources; charts are inline SVG.

The report begins with the result and with what was not tested.  Every text of the run is escaped.
In a long run each point of a chart stands for several seconds: the mean of rates, the maximum of
latencies, backlogs and unknown outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from chaos.report.record import Injection, RunRecord, Sample
from chaos.report.text import (
    COLUMNS,
    as_text,
    cells,
    kill_table,
    pairs_without_kill,
    reason_of,
    reasons,
    state_of,
    totals,
    verdict,
)

BUCKETS_MAX = 600
ROWS_MAX = 10
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 190, 56, 16, 26, 24
ROW_HEIGHT = 15
COLOURS = ("var(--one)", "var(--two)")
STYLE = """
:root { --ink: #1c2330; --soft: #5d6778; --paper: #fff; --card: #f5f7fa; --faint: #d9dee7;
  --one: #2563eb; --two: #d97706; --band: #ef44441c; --bar: #ef4444; --good: #15803d;
  --bad: #b91c1c; color-scheme: light dark }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e9f0; --soft: #9aa5b8; --paper: #14181f;
  --card: #1c222c; --faint: #303847; --one: #7aa2ff; --two: #fbbf24; --band: #f8717126;
  --bar: #f87171; --good: #4ade80; --bad: #f87171 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1040px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem }
.soft { color: var(--soft); margin-top: 0 }
.verdict { background: var(--card); border-left: 5px solid; border-radius: 6px;
  padding: .7rem 1rem; margin: 1rem 0 }
.verdict strong { font-size: 1.15rem }
.verdict p, .verdict li { color: var(--ink); margin: .2rem 0 }
.totals { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0 }
.totals div { background: var(--card); border-radius: 6px; padding: .5rem .9rem; flex: 1 }
.totals b { display: block; font-size: 1.25rem } .totals span { color: var(--soft) }
table { border-collapse: collapse; font-size: 13px; width: 100% }
th, td { text-align: left; padding: 3px 8px; border-bottom: 1px solid var(--faint) }
th { color: var(--soft); font-weight: 600 } td { font-variant-numeric: tabular-nums }
svg { width: 100%; height: auto; display: block } svg text { fill: var(--soft); font-size: 11px }
.good { color: var(--good) } .bad { color: var(--bad) } .untested td { color: var(--soft) }
.scroll { overflow-x: auto } pre { font-size: 12px; overflow-x: auto }
"""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class Line:
    """One curve of a chart; ``merged`` makes one value of the seconds of a point."""

    name: str
    value: Callable[[Sample], float]
    merged: Callable[[Sequence[float]], float] = max


@dataclass(frozen=True)
class Scale:
    """Maps seconds and values to the coordinates of a chart."""

    end: float
    top: float
    is_log: bool = False

    def x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, at / self.end))

    def y(self, value: float) -> float:
        share = value / self.top
        if self.is_log:
            share = math.log1p(value) / math.log1p(self.top)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """Round values from 0 to the top."""
        if self.is_log:
            return [0.0, *(10.0**n for n in range(int(math.log10(self.top)) + 1))]
        step = _round_step(self.top)
        return [step * n for n in range(int(self.top / step) + 1)]


CHARTS = (
    ("Throughput, per second", False, (
        Line("requests", lambda s: s.requests / s.seconds, _mean),
        Line("orders", lambda s: s.orders / s.seconds, _mean))),
    ("Latency, ms (log)", True, (Line("p50", lambda s: s.p50_ms), Line("p99", lambda s: s.p99_ms))),
    ("Backlog (log)", True, (
        Line("due work", lambda s: s.due), Line("deliveries", lambda s: s.deliveries_pending))),
    ("Requests with unknown outcome, per second", False, (
        Line("unknown", lambda s: s.unknown / s.seconds),)),
    ("Function processes", False, (Line("processes", lambda s: s.processes),)),
)  # fmt: skip


def as_html(record: RunRecord) -> str:
    """The HTML document; it can be opened from a file, without a network."""
    charts = "".join(
        f"<h2>{escape(title)}</h2>{_chart(record, lines, is_log=is_log)}"
        for title, is_log, lines in CHARTS
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Fault run {escape(record.tier)} {record.seed}</title><style>{STYLE}</style>"
        f"<h1>Fault run, tier {escape(record.tier)}, seed {record.seed}</h1>"
        f'<p class="soft">{escape(record.began_at)}, commit {escape(record.commit)}, '
        f"{escape(record.machine)}</p>"
        f"{_verdict(record)}{_totals(record)}"
        f"<h2>Active faults over time</h2>{_timeline(record)}{charts}"
        f"<h2>Recovery time, s, by the end of the fault</h2>{_recoveries(record)}"
        f"<h2>Faults</h2>{_faults(record)}{_kills(record)}"
        f"<h2>Final checks</h2>{_checks(record)}"
        f"<h2>Totals</h2>{''.join(f'<p>{escape(line)}</p>' for line in totals(record))}"
        f"<details><summary>As text</summary><pre>{escape(as_text(record))}</pre></details>"
        "</html>\n"
    )


def _verdict(record: RunRecord) -> str:
    is_good = record.has_passed and bool(record.checks)
    violations = "".join(
        f"<li>{escape(each.id)} {escape(each.title)} at {each.at:.0f} s: "
        f"{escape('; '.join(each.rows[:ROWS_MAX]))}</li>"
        for each in record.violations
    )
    gaps = "".join(f"<p>{escape(line)}</p>" for line in reasons(record))
    return (
        f'<div class="verdict {"good" if is_good else "bad"}"><strong>{verdict(record)}</strong>'
        f"<ul>{violations}</ul>{gaps}</div>"
    )


def _totals(record: RunRecord) -> str:
    counts = [count for kills in record.kills.values() for count in kills.values()]
    injected = sum(state_of(fault) == "injected" for fault in record.faults)
    values = (
        ("orders", record.orders),
        ("kills", sum(counts)),
        (f"of {len(counts)} failpoint pairs killed", sum(count > 0 for count in counts)),
        (f"of {len(record.faults)} faults injected", injected),
        (f"evaluations of {record.invariants} invariants", record.evaluations),
        ("violations", len(record.violations)),
    )
    boxes = "".join(f"<div><b>{n:,}</b><span>{escape(name)}</span></div>" for name, n in values)
    return f'<div class="totals">{boxes}</div>'


def _checks(record: RunRecord) -> str:
    rows = [
        f'<li><span class="{"good" if check.has_passed else "bad"}">'
        f"{'passed' if check.has_passed else 'FAILED'}</span> "
        f"{escape(check.title)}: {escape(check.detail)}</li>"
        for check in record.checks
    ]
    return f"<ul>{''.join(rows)}</ul>"


def _faults(record: RunRecord) -> str:
    rows: list[str] = []
    for fault in record.faults:
        if state_of(fault) == "injected":
            rows.append(_row(cells(fault)))
            continue
        text = f"{state_of(fault)}: {reason_of(fault)}"
        rows.append(
            f'<tr class="untested"><td>{escape(fault.id)}</td><td>{escape(fault.title)}</td>'
            f'<td colspan="{len(COLUMNS) - 2}">{escape(text)}</td></tr>'
        )
    return _table(COLUMNS, rows)


def _kills(record: RunRecord) -> str:
    if not record.kills:
        return ""
    columns, rows = kill_table(record)
    return (
        f"<h2>Kills by failpoint, {record.kills_per_pair} planned each</h2>"
        f"<p>{escape(pairs_without_kill(record))}</p>{_table(columns, [_row(row) for row in rows])}"
    )


def _table(columns: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _row(row: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"


def _chart(record: RunRecord, lines: Sequence[Line], *, is_log: bool) -> str:
    buckets = _bucketed(record.samples)
    if not buckets:
        return "<p>no samples</p>"
    curves = [
        [(bucket[-1].at, line.merged([line.value(s) for s in bucket])) for bucket in buckets]
        for line in lines
    ]
    top = max(1.0, max(value for curve in curves for _, value in curve))
    scale = Scale(_end(record), top, is_log)
    parts = [*(_band(injection, scale) for injection in record.injections), _axis(scale)]
    for number, (line, curve, colour) in enumerate(zip(lines, curves, COLOURS, strict=False)):
        points = " ".join(f"{scale.x(at):.1f},{scale.y(value):.1f}" for at, value in curve)
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.4" points="{points}"/>'
            f'<text x="{LEFT + 8 + 100 * number}" y="14" style="fill:{colour}">{line.name}</text>'
        )
    return _svg(parts, HEIGHT)


def _timeline(record: RunRecord) -> str:
    """One row per fault; a bar is as long as an injection."""
    names = sorted({injection.fault_id for injection in record.injections})
    if not names:
        return "<p>nothing to show</p>"
    scale = Scale(_end(record), 1.0)
    height = ROW_HEIGHT * len(names) + BOTTOM
    parts: list[str] = []
    for number, name in enumerate(names):
        y = ROW_HEIGHT * number
        parts.append(
            f'<text x="4" y="{y + 11}">{escape(name)}</text><line x1="{LEFT}" '
            f'x2="{WIDTH - RIGHT}" y1="{y + 7}" y2="{y + 7}" stroke="var(--faint)"/>'
        )
        parts += [
            _bar(each, scale, y + 2, ROW_HEIGHT - 4, "var(--bar)")
            for each in record.injections
            if each.fault_id == name
        ]
    return _svg([*parts, _seconds(scale, height)], height)


def _recoveries(record: RunRecord) -> str:
    """One dot per injection: its end and the time until the shop had recovered."""
    if not record.injections:
        return "<p>nothing to show</p>"
    scale = Scale(_end(record), max([1.0, *(i.recovery_seconds or 0.0 for i in record.injections)]))
    parts = [_axis(scale)]
    for each in record.injections:
        x, seconds = scale.x(each.ended), each.recovery_seconds
        y, colour, text = scale.y(scale.top), "var(--bad)", "no recovery observed"
        if seconds is not None:
            y, colour, text = scale.y(seconds), COLOURS[0], f"{seconds:.1f} s"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">'
            f"<title>{escape(_description(each))}: {text}</title></circle>"
        )
    return _svg(parts, HEIGHT)


def _svg(parts: Sequence[str], height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def _band(injection: Injection, scale: Scale) -> str:
    return _bar(injection, scale, TOP, HEIGHT - BOTTOM - TOP, "var(--band)")


def _bar(injection: Injection, scale: Scale, y: int, height: int, fill: str) -> str:
    x = scale.x(injection.began)
    width = max(2.0, scale.x(injection.ended) - x)
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{fill}">'
        f"<title>{escape(_description(injection))}</title></rect>"
    )


def _description(injection: Injection) -> str:
    times = f"{injection.began:.0f} to {injection.ended:.0f} s"
    return f"{injection.fault_id} {injection.description}, {times}"


def _axis(scale: Scale) -> str:
    parts = [_seconds(scale, HEIGHT)]
    for value in scale.ticks():
        y = scale.y(value)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="var(--faint)"/><text x="{LEFT - 6}" y="{y + 4:.1f}" '
            f'text-anchor="end">{value:,g}</text>'
        )
    return "".join(parts)


def _seconds(scale: Scale, height: int) -> str:
    step = _round_step(scale.end)
    return "".join(
        f'<text x="{scale.x(step * n):.1f}" y="{height - 6}" text-anchor="middle">'
        f"{step * n:g} s</text>"
        for n in range(int(scale.end / step) + 1)
    )


def _round_step(top: float) -> float:
    """1, 2 or 5 times a power of ten, so that about three to eight steps reach the top."""
    power: float = 10.0 ** math.floor(math.log10(top))
    lead = top / power
    return power * (0.2 if lead < 2 else 0.5 if lead < 4 else 1.0 if lead < 8 else 2.0)


def _end(record: RunRecord) -> float:
    """The last second of the time axis."""
    return max([1.0, *(s.at for s in record.samples[-1:]), *(i.ended for i in record.injections)])


def _bucketed(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    size = max(1, math.ceil(len(samples) / BUCKETS_MAX))
    return [samples[start : start + size] for start in range(0, len(samples), size)]
