"""A run as one page of HTML: no script, nothing from elsewhere, charts as inline SVG.

The page says first what was proven and what was not looked at.  Everything that came from a run is
escaped.  Of a long run a point is a bucket of seconds: rates are their mean, latencies, backlogs
and unknown answers their worst.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from chaos.report import (
    COLUMNS,
    as_text,
    cells,
    foot,
    never_hit,
    pair_table,
    reasons,
    state_of,
    verdict,
    why_not,
)
from chaos.run_record import Injection, RunRecord, Sample

BUCKETS_MAX = 600
ROWS_MAX = 10
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 190, 56, 16, 26, 24
LANE = 15
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
.figures { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0 }
.figures div { background: var(--card); border-radius: 6px; padding: .5rem .9rem; flex: 1 }
.figures b { display: block; font-size: 1.25rem } .figures span { color: var(--soft) }
table { border-collapse: collapse; font-size: 13px; width: 100% }
th, td { text-align: left; padding: 3px 8px; border-bottom: 1px solid var(--faint) }
th { color: var(--soft); font-weight: 600 } td { font-variant-numeric: tabular-nums }
svg { width: 100%; height: auto; display: block } svg text { fill: var(--soft); font-size: 11px }
.good { color: var(--good) } .bad { color: var(--bad) } .open td { color: var(--soft) }
.scroll { overflow-x: auto } pre { font-size: 12px; overflow-x: auto }
"""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class Line:
    """One curve of a chart, and how the seconds of a bucket become a point."""

    name: str
    value: Callable[[Sample], float]
    merged: Callable[[Sequence[float]], float] = max


@dataclass(frozen=True)
class Scale:
    """Where seconds and values lie in a chart."""

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
    ("Answers unknown to a client, per second", False, (
        Line("unknown", lambda s: s.unknown / s.seconds),)),
    ("Function processes", False, (Line("processes", lambda s: s.processes),)),
)  # fmt: skip


def as_page(record: RunRecord) -> str:
    """The page; it can be opened from a disk without a network."""
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
        f"{_verdict(record)}{_figures(record)}"
        f"<h2>When which fault was on</h2>{_timeline(record)}{charts}"
        f"<h2>Time until the shop had recovered, s, by the end of the fault</h2>{_rests(record)}"
        f"<h2>Faults</h2>{_kinds(record)}{_pairs(record)}"
        f"<h2>Looked at in the end</h2>{_checks(record)}"
        f"<h2>Sums</h2>{''.join(f'<p>{escape(line)}</p>' for line in foot(record))}"
        f"<details><summary>As text</summary><pre>{escape(as_text(record))}</pre></details>"
        "</html>\n"
    )


def _verdict(record: RunRecord) -> str:
    is_good = record.is_clean and bool(record.checks)
    broken = "".join(
        f"<li>{escape(each.id)} {escape(each.what)} at {each.at:.0f} s: "
        f"{escape('; '.join(each.rows[:ROWS_MAX]))}</li>"
        for each in record.broken
    )
    open_ends = "".join(f"<p>{escape(line)}</p>" for line in reasons(record))
    return (
        f'<div class="verdict {"good" if is_good else "bad"}"><strong>{verdict(record)}</strong>'
        f"<ul>{broken}</ul>{open_ends}</div>"
    )


def _figures(record: RunRecord) -> str:
    counts = [count for hits in record.pairs.values() for count in hits.values()]
    figures = (
        ("orders", record.orders),
        ("kills", sum(counts)),
        (f"of {len(counts)} pairs hit", sum(count > 0 for count in counts)),
        (f"of {len(record.kinds)} kinds fired", sum(state_of(k) == "fired" for k in record.kinds)),
        (f"looks at {record.invariants} invariants", record.evaluations),
        ("violations", len(record.broken)),
    )
    boxes = "".join(f"<div><b>{n:,}</b><span>{escape(name)}</span></div>" for name, n in figures)
    return f'<div class="figures">{boxes}</div>'


def _checks(record: RunRecord) -> str:
    rows = [
        f'<li><span class="{"good" if check.holds else "bad"}">'
        f"{'holds' if check.holds else 'FAILS'}</span> "
        f"{escape(check.what)}: {escape(check.detail)}</li>"
        for check in record.checks
    ]
    return f"<ul>{''.join(rows)}</ul>"


def _kinds(record: RunRecord) -> str:
    rows = []
    for kind in record.kinds:
        if state_of(kind) == "fired":
            rows.append(_row(cells(kind)))
            continue
        told = f"{state_of(kind)}: {why_not(kind)}"
        rows.append(
            f'<tr class="open"><td>{escape(kind.id)}</td><td>{escape(kind.what)}</td>'
            f'<td colspan="{len(COLUMNS) - 2}">{escape(told)}</td></tr>'
        )
    return _table(COLUMNS, rows)


def _pairs(record: RunRecord) -> str:
    if not record.pairs:
        return ""
    columns, rows = pair_table(record)
    return (
        f"<h2>Kills by crash window, {record.pairs_wanted} wanted each</h2>"
        f"<p>{escape(never_hit(record))}</p>{_table(columns, [_row(row) for row in rows])}"
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
    """One row for each kind; a bar lasts as long as its fault."""
    names = sorted({injection.kind for injection in record.injections})
    if not names:
        return "<p>nothing to show</p>"
    scale = Scale(_end(record), 1.0)
    height = LANE * len(names) + BOTTOM
    parts = []
    for number, name in enumerate(names):
        y = LANE * number
        parts.append(
            f'<text x="4" y="{y + 11}">{escape(name)}</text><line x1="{LEFT}" '
            f'x2="{WIDTH - RIGHT}" y1="{y + 7}" y2="{y + 7}" stroke="var(--faint)"/>'
        )
        parts += [
            _bar(each, scale, y + 2, LANE - 4, "var(--bar)")
            for each in record.injections
            if each.kind == name
        ]
    return _svg([*parts, _seconds(scale, height)], height)


def _rests(record: RunRecord) -> str:
    """One dot for each fault: when it ended, and how long it took until all was well."""
    if not record.injections:
        return "<p>nothing to show</p>"
    scale = Scale(_end(record), max([1.0, *(i.rest_seconds or 0.0 for i in record.injections)]))
    parts = [_axis(scale)]
    for each in record.injections:
        x, rest = scale.x(each.ended), each.rest_seconds
        y, colour = scale.y(scale.top if rest is None else rest), COLOURS[0]
        told = "not seen to recover" if rest is None else f"{rest:.1f} s"
        if rest is None:
            colour = "var(--bad)"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">'
            f"<title>{escape(_named(each))}: {told}</title></circle>"
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
        f"<title>{escape(_named(injection))}</title></rect>"
    )


def _named(injection: Injection) -> str:
    return f"{injection.kind} {injection.what}, {injection.began:.0f} to {injection.ended:.0f} s"


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
    """1, 2 or 5 times a power of ten, such that three to eight steps reach the top."""
    power: float = 10.0 ** math.floor(math.log10(top))
    lead = top / power
    return power * (0.2 if lead < 2 else 0.5 if lead < 4 else 1.0 if lead < 8 else 2.0)


def _end(record: RunRecord) -> float:
    """The last second that anything is shown of."""
    return max([1.0, *(s.at for s in record.samples[-1:]), *(i.ended for i in record.injections)])


def _bucketed(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    size = max(1, math.ceil(len(samples) / BUCKETS_MAX))
    return [samples[start : start + size] for start in range(0, len(samples), size)]
