"""Charts as SVG, without any library: compare.py draws ratios, scaling.py lines."""

from __future__ import annotations

import math
from html import escape
from typing import Dict, Iterable, Iterator, List, Sequence, Tuple

OWN, PEER, FAINT, TEXT = "#d9480f", "#868e96", "#dee2e6", "#212529"
FONT = 'font-family="system-ui, sans-serif" font-size="13"'
WIDTH, ROW = 900, 26


def svg(width: int, height: int, body: Iterator[str]) -> str:
    """A whole drawing on white, so that it can be read on any page."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'{FONT} fill="{TEXT}">\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n")


def text(x: float, y: float, content: str, anchor: str = "start", color: str = TEXT) -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(content)}</text>'


def room_for(names: Iterable[str]) -> int:
    """How wide the longest of these is, at most, in the font of the charts."""
    return 7 * max(map(len, names))


def line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    """A thin line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def draw(works: Sequence[Tuple[str, float, List[Tuple[str, float]]]]) -> str:
    """A bar for each work: dupfind's time over that of the fastest peer, which is 1; a dot for each other peer."""
    labels, right = 20 + room_for(title for title, _, _ in works), WIDTH - 60

    def place(ratio: float) -> float:  # logarithmic: half and double are as far from 1
        low, high = math.log(0.1), math.log(20)
        return labels + (math.log(min(max(ratio, 0.1), 20)) - low) / (high - low) * (right - labels)

    def body() -> Iterator[str]:
        height = 60 + ROW * len(works)
        for ratio in (0.1, 0.25, 0.5, 1, 2, 5, 10, 20):
            yield line(place(ratio), 40, place(ratio), height - 20, TEXT if ratio == 1 else FAINT)
            yield text(place(ratio), 34, f"{ratio:g}×", "middle")
        yield text(10, 18, "Time against the fastest peer (1×): dupfind as a bar, other peers as dots. Left is faster.")
        for at, (title, seconds, peers) in enumerate(works):
            y = 58 + ROW * at
            fastest = peers[0][1]
            ratio = seconds / fastest
            yield text(labels - 10, y + 4, title, "end")
            yield (f'<rect x="{place(0.1):.1f}" y="{y - 8}" width="{place(ratio) - place(0.1):.1f}" height="16" '
                   f'fill="{OWN}"/>')
            for name, time in peers:
                yield (f'<circle cx="{place(time / fastest):.1f}" cy="{y}" r="4" fill="{PEER}">'
                       f'<title>{escape(name)} {time:.2f} s</title></circle>')
            yield text(right + 8, y + 4, f"{ratio:.2f}×", color=OWN)
    return svg(WIDTH, 60 + ROW * len(works), body())


def ticks(most: float, is_log: bool) -> List[float]:
    """Values that are easy to read, up to the largest; on a logarithmic axis from a tenth."""
    if is_log:
        return [value for value in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if value <= most]
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if most / step <= 6)
    return [step * number for number in range(int(most / step) + 1)]


def draw_lines(title: str, unit: str, lines: Dict[str, List[Tuple[float, float]]], is_log: bool = False) -> str:
    """Lines over the number of files, which is on a logarithmic axis; values begin at 0, or are on one, too."""
    left, right, top, bottom, legend = 60, 550, 40, 360, 16
    colors = [OWN, "#1971c2", "#2f9e44", "#9c36b5", "#e8590c", "#0c8599", "#5f3dc4", "#a61e4d", PEER]
    lines = {name: series for name, series in lines.items() if all(y > 0 for _, y in series)}
    points = [point for series in lines.values() for point in series]
    low, high = math.log(min(x for x, _ in points)), math.log(max(x for x, _ in points))
    most = max(y for _, y in points) * 1.1
    least = ticks(most, is_log)[0]

    def x_of(x: float) -> float:
        return left + (math.log(x) - low) / ((high - low) or 1) * (right - left)

    def y_of(y: float) -> float:
        share = math.log(max(y, least) / least) / math.log(most / least) if is_log else y / most
        return bottom - share * (bottom - top)

    def body() -> Iterator[str]:
        yield text(10, 20, f"{title} ({unit})")
        for value in ticks(most, is_log):
            yield line(left, y_of(value), right, y_of(value), FAINT)
            yield text(left - 8, y_of(value) + 4, f"{value:g}", "end")
        for x in sorted({x for x, _ in points}):
            yield text(x_of(x), bottom + 18, f"{int(x):,}", "middle")
        free = top  # names stand in the order of their lines' ends, and never on each other
        ends = sorted(zip(range(len(lines)), lines.items()), key=lambda end: y_of(end[1][1][-1][1]))
        for at, (number, (name, series)) in enumerate(ends):
            color = colors[number % len(colors)]
            dashes = ' stroke-dasharray="5 3"' if number >= len(colors) else ""
            path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in series)
            yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dashes}/>'
            end = y_of(series[-1][1])
            free = min(max(free, end), bottom - legend * (len(ends) - 1 - at))
            yield line(x_of(series[-1][0]) + 2, end, right + 24, free, FAINT)
            yield text(right + 28, free + 4, name, color=color)
            free += legend
    return svg(max(WIDTH, right + 38 + room_for(lines)), 390, body())
