"""A run as one page of HTML: no script, nothing from elsewhere, charts as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from scripts.faults.record import Injection, RunRecord, Sample
from scripts.faults.report import COLUMNS, as_text, cells, foot

BUCKETS_MAX = 600
WIDTH, HEIGHT, LEFT, BOTTOM = 960, 180, 60, 24
COLOURS = ("var(--one)", "var(--two)")
STYLE = """
:root { --ink: #1c2330; --paper: #fff; --faint: #d9dee7; --one: #2563eb; --two: #d97706;
  --band: #ef444422; --good: #15803d; --bad: #b91c1c }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e9f0; --paper: #14181f; --faint: #303847;
  --one: #7aa2ff; --two: #fbbf24; --band: #f8717133; --good: #4ade80; --bad: #f87171 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1040px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; font-size: 13px; width: 100% }
th, td { text-align: left; padding: 3px 8px; border-bottom: 1px solid var(--faint) }
svg { width: 100%; height: auto; display: block } svg text { fill: var(--ink); font-size: 11px }
.good { color: var(--good) } .bad { color: var(--bad) } .scroll { overflow-x: auto }
pre { font-size: 12px; overflow-x: auto }
"""


@dataclass(frozen=True)
class Line:
    """One curve of a chart."""

    name: str
    value: Callable[[Sample], float]


CHARTS = (
    ("Throughput, per second", False, (
        Line("requests", lambda s: s.requests), Line("orders", lambda s: s.orders))),
    ("Latency, ms", True, (Line("p50", lambda s: s.p50_ms), Line("p99", lambda s: s.p99_ms))),
    ("Backlog", True, (
        Line("due work", lambda s: s.due), Line("deliveries", lambda s: s.deliveries_pending))),
    ("Answers unknown to a client, per second", False, (Line("unknown", lambda s: s.unknown),)),
    ("Function processes", False, (Line("processes", lambda s: s.processes),)),
)  # fmt: skip


def as_page(record: RunRecord) -> str:
    """The page; everything that came from a run is escaped."""
    verdict = "everything holds" if record.is_clean else "something is broken"
    charts = "".join(
        f"<h2>{escape(title)}</h2>{_chart(record, lines, is_log=is_log)}"
        for title, is_log, lines in CHARTS
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Fault run {escape(record.tier)} {record.seed}</title><style>{STYLE}</style>"
        f"<h1>Fault run, tier {escape(record.tier)}, seed {record.seed}: "
        f'<span class="{"good" if record.is_clean else "bad"}">{verdict}</span></h1>'
        f"<p>{escape(record.began_at)}, commit {escape(record.commit)}</p>"
        f"{_checks(record)}<h2>Faults</h2>{_kinds(record)}{charts}"
        f"<h2>Time until the shop had recovered, s</h2>{_rests(record)}"
        f"<h2>Sums</h2>{''.join(f'<p>{escape(line)}</p>' for line in foot(record))}"
        f"<h2>As text</h2><pre>{escape(as_text(record))}</pre></html>\n"
    )


def _checks(record: RunRecord) -> str:
    rows = [
        f'<li class="{"good" if check.holds else "bad"}">{escape(check.what)}: '
        f"{escape(check.detail)}</li>"
        for check in record.checks
    ]
    rows += [
        f'<li class="bad">{escape(broken.id)} {escape(broken.what)}: '
        f"{escape('; '.join(broken.rows[:3]))}</li>"
        for broken in record.broken
    ]
    return f"<ul>{''.join(rows)}</ul>"


def _kinds(record: RunRecord) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
    rows = []
    for kind in record.kinds:
        row = list(cells(kind))
        if kind.state != "fired":
            row[2] = f"{kind.state}: {kind.reason}"
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _chart(record: RunRecord, lines: Sequence[Line], *, is_log: bool) -> str:
    samples = _bucketed(record.samples)
    if not samples:
        return "<p>no samples</p>"
    end = samples[-1][-1].at or 1.0
    curves = [[(b[-1].at, max(line.value(s) for s in b)) for b in samples] for line in lines]
    top = max(1.0, max(value for curve in curves for _, value in curve))
    parts = [_band(injection, end) for injection in record.injections]
    parts += [_axis(top, end, is_log=is_log)]
    for curve, colour in zip(curves, COLOURS, strict=False):
        points = " ".join(
            f"{_x(at, end):.1f},{_y(value, top, is_log=is_log):.1f}" for at, value in curve
        )
        parts.append(f'<polyline fill="none" stroke="{colour}" points="{points}"/>')
    for number, (line, colour) in enumerate(zip(lines, COLOURS, strict=False)):
        parts.append(
            f'<text x="{LEFT + 8 + 110 * number}" y="14" style="fill:{colour}">{line.name}</text>'
        )
    return _svg(parts)


def _rests(record: RunRecord) -> str:
    """One dot for each fault: when it ended, and how long it took until all was well."""
    ended = [(i, i.rest_seconds) for i in record.injections if i.rest_seconds is not None]
    if not ended:
        return "<p>nothing to show</p>"
    end = max(record.samples[-1].at if record.samples else 1.0, 1.0)
    top = max(1.0, max(rest for _, rest in ended))
    parts = [_axis(top, end, is_log=False)]
    for injection, rest in ended:
        x, y = _x(injection.ended, end), _y(rest, top, is_log=False)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{COLOURS[0]}">'
            f"<title>{escape(_named(injection))}: {rest:.1f} s</title></circle>"
        )
    return _svg(parts)


def _svg(parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _band(injection: Injection, end: float) -> str:
    x = _x(injection.began, end)
    width = max(1.0, _x(injection.ended, end) - x)
    return (
        f'<rect x="{x:.1f}" y="20" width="{width:.1f}" height="{HEIGHT - BOTTOM - 20}" '
        f'fill="var(--band)"><title>{escape(_named(injection))}</title></rect>'
    )


def _named(injection: Injection) -> str:
    return f"{injection.kind} {injection.what} at {injection.began:.0f} s"


def _axis(top: float, end: float, *, is_log: bool) -> str:
    parts = []
    for share in (0.0, 0.5, 1.0):
        value = top**share if is_log else top * share
        y = _y(value, top, is_log=is_log)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>')
        parts.append(f'<text x="4" y="{y + 4:.1f}">{value:,.0f}</text>')
        parts.append(
            f'<text x="{_x(end * share, end) - 14:.1f}" y="{HEIGHT - 6}">{end * share:.0f} s</text>'
        )
    return "".join(parts)


def _x(at: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - 20) * at / end


def _y(value: float, top: float, *, is_log: bool) -> float:
    share = math.log1p(value) / math.log1p(top) if is_log else value / top
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 24) * min(1.0, share)


def _bucketed(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    size = max(1, math.ceil(len(samples) / BUCKETS_MAX))
    return [samples[start : start + size] for start in range(0, len(samples), size)]
