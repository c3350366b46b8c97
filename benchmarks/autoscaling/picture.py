"""Workers over load as an SVG: one panel a rule, load in slots as an area, workers' slots as a line."""

from __future__ import annotations

from html import escape

from benchmarks.autoscaling.simulation import Result

WIDTH, PANEL, LEFT, GAP = 960, 130, 60, 34
COLUMN_SECONDS = 180
LOAD, SLOTS = "#9ecae1", "#d94801"


def picture(results: dict[str, Result], slots: int, title: str) -> str:
    """The SVG document; the time axis is in hours."""
    end = max(moment for result in results.values() for moment, _, _ in result.timeline)
    top = max(
        max(load, workers * slots) for result in results.values() for _, load, workers in result.timeline
    )
    height = GAP + len(results) * (PANEL + GAP)
    panels = "".join(
        _panel(name, result, slots, GAP + number * (PANEL + GAP), end=end, top=top)
        for number, (name, result) in enumerate(results.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}: tasks queued and running (area), '
        f"slots of billed workers (line)</text>{panels}</svg>\n"
    )


def _panel(name: str, result: Result, slots: int, y: float, *, end: float, top: int) -> str:
    def x(moment: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * moment / end

    def level(value: float) -> float:
        return y + PANEL - PANEL * value / top

    # The highest of every few minutes: finer than that, nothing can be seen.
    loads: dict[int, int] = {}
    for moment, load, _ in result.timeline:
        column = int(moment // COLUMN_SECONDS)
        loads[column] = max(load, loads.get(column, 0))
    area = " ".join(f"{x(column * COLUMN_SECONDS):.0f},{level(load):.0f}" for column, load in loads.items())
    line, before = [f"{x(0):.0f},{level(0):.0f}"], 0
    for moment, _, workers in result.timeline:
        if workers != before:
            at = f"{x(moment):.1f}"
            line += [f"{at},{level(before * slots):.0f}", f"{at},{level(workers * slots):.0f}"]
            before = workers
    line.append(f"{x(result.timeline[-1][0]):.0f},{level(before * slots):.0f}")
    ticks = "".join(
        f'<text x="{x(hour * 3600):.0f}" y="{y + PANEL + 14:.0f}" fill="#555" text-anchor="middle">{hour}</text>'
        for hour in range(0, int(end // 3600) + 1, 3)
    )
    return (
        f'<text x="{LEFT - 8}" y="{y + 12:.0f}" text-anchor="end" font-weight="bold">{escape(name)}</text>'
        f'<text x="{LEFT - 8}" y="{y + 28:.0f}" text-anchor="end" fill="#555">{top}</text>'
        f'<polygon points="{x(0):.1f},{y + PANEL} {area} {x(end):.1f},{y + PANEL}" fill="{LOAD}"/>'
        f'<polyline points="{" ".join(line)}" fill="none" stroke="{SLOTS}" stroke-width="1.2"/>'
        f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y + PANEL}" y2="{y + PANEL}" stroke="#999"/>{ticks}'
    )
