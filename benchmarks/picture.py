"""The figures as an SVG of bars, written by hand: a plotting library would be the benchmark's largest dependency."""

from collections.abc import Mapping
from html import escape

_PANELS = (
    ("cpu_us_per_call", "CPU per unary call, µs"),
    ("cpu_us_per_frame", "CPU per streamed frame, µs"),
    ("cpu_us_per_completion", "CPU per completion of 100 frames, µs"),
    ("added_p50_ms_1", "added latency p50, 1 connection, ms"),
    ("lag_p99_ms", "frame lag p99, ms"),
    ("memory_idle_mb", "memory idle, MB"),
)
_COLOURS = {"passthrough": "#0b7285", "Envoy": "#868e96", "bare relay": "#ced4da", "LiteLLM": "#c92a2a"}
_COLUMNS = 2
_WIDTH, _LABEL, _BAR, _LINE, _MARGIN = 460, 130, 240, 22, 16
_BROKEN = 10.0  # a bar this many times as long as the longest of the others is broken off


def picture(figures: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Draw a panel per figure, shorter is better; what is off the scale is drawn as a broken bar."""
    panel = _LINE * (len(figures) + 2)
    rows = -(-len(_PANELS) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH + _MARGIN, rows * panel + 3 * _LINE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_MARGIN}" y="{_LINE}" font-size="12" fill="#495057">{escape(title)}. Shorter is better.</text>',
    ]
    for number, (row, label) in enumerate(_PANELS):
        left = _MARGIN + number % _COLUMNS * _WIDTH
        top = 2 * _LINE + number // _COLUMNS * panel
        parts += _panel(label, {name: found[row] for name, found in figures.items() if row in found}, left, top)
    return "\n".join([*parts, "</svg>\n"])


def _panel(label: str, values: Mapping[str, float], left: int, top: int) -> list[str]:
    lines = [f'<text x="{left}" y="{top + 12}" font-size="13" font-weight="bold">{escape(label)}</text>']
    ordered = sorted(values.values())
    longest = ordered[-1]
    while len(ordered) > 1 and longest > _BROKEN * ordered[-2]:
        ordered.pop()
        longest = ordered[-1]
    for number, (name, value) in enumerate(values.items(), 1):
        y = top + number * _LINE
        off = value > longest
        bar = _BAR if off else max(1, round(_BAR * max(value, 0.0) / longest)) if longest > 0 else 1
        colour = _COLOURS[name.partition(",")[0]]
        shown = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + (" (off the scale)" if off else "")
        lines += [
            f'<text x="{left}" y="{y + 12}" font-size="12">{escape(name)}</text>',
            f'<rect x="{left + _LABEL}" y="{y}" width="{bar}" height="{_LINE - 6}" fill="{colour}"/>',
            f'<text x="{left + _LABEL + bar + 6}" y="{y + 12}" font-size="12">{shown}</text>',
        ]
    return lines
