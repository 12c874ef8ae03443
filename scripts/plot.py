"""Draws a plot as SVG: lines over places, readable on light and on dark pages."""

from html import escape
from math import floor, log10

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 34, 30
COLOURS = ["#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#a855f7", "#8b8b8b"]
STYLE = """
    text { font: 12px sans-serif; fill: #333 }
    .rule { stroke: #8884; stroke-width: 1 }
    .line { fill: none; stroke-width: 2 }
    @media (prefers-color-scheme: dark) { text { fill: #ddd } }
"""


def step(most: float) -> float:
    """The distance of about five rules: 1, 2 or 5 times a power of ten."""
    rough = most / 5
    power = 10 ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def spoken(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


class Axes:
    """Where values stand."""

    def __init__(self, drawn: dict):
        values = [value for series in drawn["series"] for value in series["values"] if value is not None]
        self.step = step(max(values, default=1) or 1)
        self.most = self.step * (floor(max(values, default=1) / self.step) + 1)
        self.places = len(drawn["places"])

    def x(self, place: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (place + 0.5) / self.places

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.most

    def rules(self) -> list[str]:
        values = [self.step * count for count in range(round(self.most / self.step) + 1)]
        rule = '<path class="rule" d="M{left} {y:.1f}H{right}"/><text x="{x}" y="{t:.1f}" text-anchor="end">{value}</text>'
        at = lambda value: {"y": self.y(value), "t": self.y(value) + 4, "value": spoken(value)}
        return [rule.format(left=LEFT, right=WIDTH - RIGHT, x=LEFT - 6, **at(value)) for value in values]


def line(axes: Axes, number: int, series: dict) -> list[str]:
    """One series with its name."""
    colour = COLOURS[number % len(COLOURS)]
    known = [(axes.x(at), axes.y(value)) for at, value in enumerate(series["values"]) if value is not None]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in known)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in known]
    x, y = WIDTH - RIGHT + 12, TOP + 10 + 18 * number
    name = f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/><text x="{x + 16}" y="{y}">{escape(series["name"])}</text>'
    return [f'<path class="line" stroke="{colour}" d="M{path}"/>' if known else "", *dots, name]


def svg(drawn: dict) -> str:
    """The plot `drawn`: a title, a unit, places, and series with a value or null for each place."""
    axes = Axes(drawn)
    places = enumerate(drawn["places"])
    foot = HEIGHT - BOTTOM + 18
    below = [f'<text x="{axes.x(at):.1f}" y="{foot}" text-anchor="middle">{escape(place)}</text>' for at, place in places]
    title = f'<text x="8" y="18" font-weight="bold">{escape(drawn["title"])} ({escape(drawn["unit"])})</text>'
    lines = [part for number, series in enumerate(drawn["series"]) for part in line(axes, number, series)]
    parts = [f"<style>{STYLE}</style>", title, *axes.rules(), *below, *lines]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return "\n".join([head, *(part for part in parts if part), "</svg>", ""])
