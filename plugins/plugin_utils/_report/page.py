# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The report's pages, made from evidence by a template. Everything that comes from a database is text to be shown, never markup."""

from __future__ import annotations

import datetime
import typing as t

import jinja2

from . import charts, costs, figures, verdict

# Rows of a table in the page; whoever wants all of them reads the evidence.
MOST_ROWS = 200
_SIZES = ("bytes", "kB", "MB", "GB", "TB")


def render(
    template: str,
    migration: str,
    evidence: verdict.Evidence,
    hosts: t.Mapping[str, t.Sequence[str]],
    *,
    html: bool,
    compared: t.Sequence[t.Mapping[str, t.Any]] = (),
    rto_seconds: t.Any = costs.RTO_SECONDS,
) -> str:
    """A page.

    :param template: its text
    :param hosts: names of hosts by what they are: ``source``, ``poolers``, ``proxies``, ``members``, ``store``, ``mover``
    :param html: whether it is HTML; else Markdown
    :param compared: targets beside which the cost of this one is shown
    :param rto_seconds: how long clients may be without service, for the recommendation among them
    :raises jinja2.UndefinedError: the template wants what the evidence does not have
    :raises UsageError: what is compared is not understood
    """
    environment = jinja2.Environment(autoescape=html, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=html, keep_trailing_newline=True)
    environment.filters.update(
        duration=duration,
        size=size,
        number=number,
        cell=cell,
        milliseconds=milliseconds,
        clock=clock,
        after=after,
        listed=listed,
        code=backquoted_html if html else lambda text: text,
    )
    known = {
        **evidence,
        "migration": migration,
        "hosts": hosts,
        "verdict": verdict.judge(evidence),
        "next_step": verdict.next_step(evidence),
        "phases": verdict.phases(evidence),
        "path": path(verdict.phases(evidence)),
        "moved": verdict.has_moved(evidence),
        "client": evidence["cutover"].get("client") or {},
        "mismatches": verdict.count(evidence["parity"].get("mismatches")),
        "scenarios": figures.scenarios(evidence["failover"].get("scenarios", [])),
        "cutover_charts": cutover_charts(evidence["cutover"]),
        "copy_charts": copy_charts(evidence["replication"]),
        "scenario_chart": scenario_chart,
        "shares": figures.shares,
        "costs": costs.compared(evidence, compared, rto_seconds),
        "most_rows": MOST_ROWS,
    }
    return environment.from_string(template).render(known)


def seconds_of(moment: str) -> float:
    """Seconds since 1970 of a moment of the evidence."""
    return datetime.datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def path(phases: t.Sequence[verdict.Phase]) -> list[dict[str, t.Any]]:
    """When each phase ran: ``seconds``, and ``left`` and ``width`` in percent of the time from the first to the last one. None while it has not ended.

    ``seconds`` are None where the evidence has one moment for both ends: it says when, and not how long.
    """
    spans = {
        phase.name: (seconds_of(phase.document["started_at"]), seconds_of(phase.document["finished_at"]))
        for phase in phases
        if phase.document.get("finished_at")
    }
    begin = min((span[0] for span in spans.values()), default=0.0)
    whole = max((span[1] for span in spans.values()), default=0.0) - begin or 1.0
    rows = []
    for phase in phases:
        span = spans.get(phase.name)
        place = None
        if span is not None:
            lasted = span[1] - span[0]
            place = {"left": (span[0] - begin) / whole * 100, "width": lasted / whole * 100, "seconds": lasted or None}
        rows.append({"phase": phase, "place": place})
    return rows


def cutover_charts(cutover: verdict.Document) -> dict[str, charts.Chart]:
    """Acknowledged writes and the longest latency of each tenth of a second around the first PAUSE; {} where nobody watched it."""
    timeline = (cutover.get("client") or {}).get("timeline")
    if not timeline or cutover.get("paused_at") is None:
        return {}
    paused = cutover["paused_at"]
    moments = [seconds_of(row["at"]) - paused for row in timeline]
    span = (moments[0], moments[-1] + 0.1)
    held = cutover.get("critical_section_ms")
    return _both(timeline, moments, span, None if held is None else (0.0, held / 1000), "tenth of a second", "PAUSE")


def scenario_chart(row: t.Mapping[str, t.Any]) -> dict[str, charts.Chart]:
    """The same for each second of a failover scenario, where the band is the service's own time; {} where there is no timeline."""
    timeline = row["timeline"]
    if not timeline:
        return {}
    begin = seconds_of(timeline[0]["at"])
    moments = [seconds_of(part["at"]) - begin for part in timeline]
    end = moments[-1] + 1
    return _both(timeline, moments, (0.0, end), _service_band(row["service"], begin, end), "second", "the first write")


def _service_band(service: verdict.Document | None, begin: float, end: float) -> tuple[float, float] | None:
    """From when to when the service says that it failed over, as far as the chart reaches: its clock is not ours."""
    told = () if service is None else (service["started_at"], service["completed_at"])
    if not told or None in told:
        return None
    left, right = (min(max(seconds_of(moment) - begin, 0.0), end) for moment in told)
    return (left, right) if left < right else None


def _both(
    timeline: t.Sequence[t.Mapping[str, t.Any]], moments: t.Sequence[float], span: tuple[float, float], band: tuple[float, float] | None, part: str, zero: str
) -> dict[str, charts.Chart]:
    worst = max(row["latency_max_ms"] for row in timeline)
    divisor, unit = (1000, " s") if worst >= 1000 else (1, " ms")
    titles = [
        f"{moment:+.1f} s: {row['acknowledged']} writes, {row['errors']} errors, longest {row['latency_max_ms']:.0f} ms"
        for moment, row in zip(moments, timeline, strict=True)
    ]
    options: dict[str, t.Any] = {"span": span, "unit_x": " s", "titles": titles, "band": band}
    return {
        "acknowledged": charts.columns(
            [row["acknowledged"] for row in timeline], "writes", label=f"Acknowledged writes in each {part}, seconds from {zero}", **options
        ),
        "latency": charts.columns(
            [row["latency_max_ms"] / divisor for row in timeline],
            "latency",
            label=f"Longest latency in each {part}, seconds from {zero}",
            unit_y=unit,
            **options,
        ),
    }


def copy_charts(replication: verdict.Document) -> dict[str, charts.Chart]:
    """Pace of the copy, and the lag afterwards; only what was measured."""
    found = {}
    length, pace = figures.pace(replication.get("by_table", []))
    if pace:
        found["pace"] = charts.columns(pace, "writes", span=(0.0, length * len(pace)), unit_x=" s", unit_y="B/s", label="Bytes per second of the copy")
    lag = [(row["seconds"], row["bytes"]) for row in replication.get("lag", [])]
    if len(lag) > 1:
        found["lag"] = charts.line(lag, "latency", unit_x=" s", unit_y="B", label="Bytes that the target had not confirmed while it caught up")
    return found


def duration(seconds: float | None) -> str:
    """``12.3 s``, ``4 min 10 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds is None:
        return "not measured"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for large, small, names in ((86400, 3600, "d h"), (3600, 60, "h min"), (60, 1, "min s")):
        if whole >= large:
            first, second = names.split()
            return f"{whole // large} {first} {whole % large // small} {second}"
    raise AssertionError(whole)


def milliseconds(value: float | None) -> str:
    """``42 ms``, from ten seconds on ``12.3 s``."""
    if value is None:
        return "not measured"
    return f"{value:.0f} ms" if value < 10000 else f"{value / 1000:.1f} s"


def size(value: float | None) -> str:
    """Bytes with a unit of thousands."""
    if value is None:
        return "not measured"
    amount = float(value)
    for unit in _SIZES:
        if amount < 1000 or unit == _SIZES[-1]:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.3g} {unit}"
        amount /= 1000
    raise AssertionError(value)


def number(value: t.Any) -> str:
    """With thin spaces between thousands; a list is counted."""
    counted = value if isinstance(value, float) else verdict.count(value)
    return "not measured" if counted is None else f"{counted:,}".replace(",", "\u202f")


def clock(moment: str | None) -> str:
    """``2027-01-01 00:00:05`` (UTC) of a moment of the evidence."""
    return "no end recorded" if moment is None else datetime.datetime.fromtimestamp(seconds_of(moment), tz=datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def after(moment: str, begin: str) -> str:
    """``+12.3 s``: a moment of the evidence by its distance to another one."""
    return f"{seconds_of(moment) - seconds_of(begin):+.1f} s"


def cell(value: t.Any) -> str:
    """Text for one cell of a Markdown table, on one line and in it."""
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\r", " ").replace("\n", " ")


def listed(names: t.Iterable[str]) -> str:
    """Names in backquotes, ``none`` without one."""
    return ", ".join(f"`{name}`" for name in names) or "none"


def backquoted_html(text: str) -> charts.Markup:
    """A sentence with what stands in backquotes set as code."""
    parts = str(text).split("`")
    pieces = [charts.Markup("<code>{}</code>").format(part) if number % 2 else charts.escape(part) for number, part in enumerate(parts)]
    return charts.Markup("").join(pieces)
