"""Small line charts as SVG text, so that ``docs/`` can show what a run measured without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 180, 44, 48
COLOURS = ("#0b6e4f", "#b4501e", "#3056a0", "#7a3b8f", "#6b6b6b")
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A named line."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction: its label, and whether it is logarithmic. The range begins at 0, or at the first power of ten."""

    label: str
    log: bool = False

    def range_of(self, values: Sequence[float]) -> tuple[float, float]:
        high = max(values, default=1.0) or 1.0
        if self.log:
            return 10.0 ** math.floor(math.log10(min(values))), 10.0 ** math.ceil(math.log10(high))
        return 0.0, _ceiling(high)

    def ticks(self, low: float, high: float) -> list[float]:
        if self.log:
            return [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
        step = high / 5
        return [low + step * number for number in range(6)]

    def share(self, value: float, low: float, high: float) -> float:
        if self.log:
            return (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return (value - low) / (high - low)


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """The SVG text of a chart with a legend on its right."""
    xs = [point[0] for line in series for point in line.points]
    ys = [point[1] for line in series for point in line.points]
    x_range, y_range = x.range_of(xs), y.range_of(ys)
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(point: Point) -> tuple[float, float]:
        across, up = x.share(point[0], *x_range), y.share(point[1], *y_range)
        return LEFT + across * plot_width, TOP + (1 - up) * plot_height

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><title>{escape(title)}</title><rect width="100%" height="100%" fill="white"/>',
        _text(LEFT, 24, title, size=15),
        _text(LEFT + plot_width / 2, HEIGHT - 10, x.label, anchor="middle"),
        _text(14, TOP - 14, y.label),
    ]
    for tick in y.ticks(*y_range):
        _, at = place((x_range[0], tick))
        parts.append(f'<path d="M{LEFT} {at:.1f}H{LEFT + plot_width}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 6, at + 4, _number(tick), anchor="end"))
    for tick in x.ticks(*x_range):
        at, _ = place((tick, y_range[0]))
        parts.append(f'<path d="M{at:.1f} {TOP + plot_height}v4" stroke="#888888"/>')
        parts.append(_text(at, TOP + plot_height + 18, _number(tick), anchor="middle"))
    for number, line in enumerate(series):
        parts += _line(line, number, [place(point) for point in line.points], LEFT + plot_width + 14)
    return "\n".join([*parts, "</svg>\n"])


def _line(line: Series, number: int, places: Sequence[Point], legend_x: float) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    path = " ".join(f"{'L' if index else 'M'}{across:.1f} {down:.1f}" for index, (across, down) in enumerate(places))
    dots = "" if len(places) > 20 else "".join(f'<circle cx="{a:.1f}" cy="{d:.1f}" r="3"/>' for a, d in places)
    legend_y = TOP + 12 + 20 * number
    return [
        f'<g fill="{colour}"><path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}</g>',
        f'<path d="M{legend_x:.0f} {legend_y - 4}h16" stroke="{colour}" stroke-width="3"/>',
        _text(legend_x + 22, legend_y, line.name),
    ]


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222222">{escape(text)}</text>'
    )


def _ceiling(value: float) -> float:
    """The next 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
