"""Draws stacks as SVG: who calls whom, each as wide as its share of the samples."""

from html import escape

WIDTH, ROW = 1000, 17
LEAST = 3  # pixels, below which nothing is drawn
FITS = 6.2  # pixels that a letter takes
COLOURS = ["#e8a13a", "#e0823d", "#d8683f", "#e3b448", "#cf5a41"]
STYLE = "text { font: 11px monospace; fill: #111 } .title { font: bold 13px sans-serif; fill: #333 }" \
    " @media (prefers-color-scheme: dark) { .title { fill: #ddd } }"


class Frame:
    """A function, with those that it calls."""

    def __init__(self, name: str):
        self.name, self.samples, self.inner = name, 0, {}

    def add(self, stack: list[str], samples: int) -> None:
        self.samples += samples
        if stack:
            self.inner.setdefault(stack[0], Frame(stack[0])).add(stack[1:], samples)

    def depth(self) -> int:
        return 1 + max((frame.depth() for frame in self.inner.values()), default=0)


def boxes(frame: Frame, x: float, level: int, scale: float) -> list[str]:
    """The frame's box with its inner ones above it; `level` counts from the bottom."""
    width = frame.samples * scale
    if width < LEAST:
        return []
    colour = COLOURS[sum(map(ord, frame.name)) % len(COLOURS)]
    letters = int((width - 4) / FITS)
    label = frame.name if len(frame.name) <= letters else frame.name[: max(letters - 1, 0)] + "…"
    y, title = f"{{y{level}}}", f"{frame.name}: {frame.samples * scale / WIDTH:.1%}"
    text = f'<text x="{x + 2:.1f}" y="{y}" dy="12">{escape(label)}</text>' if letters > 2 else ""
    box = f'<rect x="{x:.1f}" y="{y}" width="{width - 0.5:.1f}" height="{ROW - 1}" fill="{colour}"/>'
    drawn = [(level, f"<g><title>{escape(title)}</title>{box}{text}</g>")]
    for inner in sorted(frame.inner.values(), key=lambda one: one.name):
        drawn += boxes(inner, x, level + 1, scale)
        x += inner.samples * scale
    return drawn


def svg(drawn: dict) -> str:
    """`drawn`: a title, and stacks, outermost first and separated by semicolons, with their samples."""
    root = Frame("all")
    for stack, samples in drawn["stacks"].items():
        root.add(stack.split(";"), samples)
    height = ROW * root.depth() + 30
    shapes = boxes(root, 0, 0, WIDTH / root.samples)
    placed = [shape.replace(f"{{y{level}}}", str(height - ROW * (level + 1))) for level, shape in shapes]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    title = f'<text class="title" x="4" y="16">{escape(drawn["title"])}</text>'
    return "\n".join([head, f"<style>{STYLE}</style>", title, *placed, "</svg>", ""])
