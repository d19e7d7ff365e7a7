"""The benches' pictures, as SVG: stages of an answer as stacked bars, and latency against the number of calls."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

__all__ = ["draw_load", "draw_stages"]

_COLOURS: Final = ("#9ecae1", "#4292c6", "#08519c", "#fdae6b", "#f16913", "#a63603", "#74c476", "#969696")
_WIDTH: Final = 860
_LEFT: Final = 190
_ROW: Final = 56


def draw_stages(path: Path, title: str, rows: Mapping[str, Mapping[str, float]], ends: Mapping[str, tuple[float, float]]) -> None:
    """A bar for each setting, of its stages in ms; `ends` has the median and 95th percentile of what the client measured, marked on it."""
    names = list(dict.fromkeys(name for stages in rows.values() for name in stages))
    most = max([1.0, *(end for _, end in ends.values()), *(sum(stages.values()) for stages in rows.values())])
    scale = (_WIDTH - _LEFT - 90) / most
    parts = [_text(20, 26, title, size=16)]
    for number, (setting, stages) in enumerate(rows.items()):
        top, x = 46 + number * _ROW, float(_LEFT)
        parts.append(_text(_LEFT - 10, top + 19, setting, anchor="end"))
        for index, name in enumerate(names):
            width = stages.get(name, 0.0) * scale
            parts.append(f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="26" fill="{_COLOURS[index % len(_COLOURS)]}"/>')
            x += width
        middle, high = ends[setting]
        for value, words in ((middle, f"p50 {middle:.0f}"), (high, f"p95 {high:.0f} ms")):
            at = _LEFT + value * scale
            parts.append(f'<path d="M{at:.1f} {top - 3}v32" stroke="#222" stroke-width="2"/>' + _text(at + 4, top + 40, words, size=11))
    bottom = 46 + len(rows) * _ROW + 22
    for index, name in enumerate(names):
        x, y = _LEFT + index % 4 * 160, bottom + index // 4 * 20
        parts.append(f'<rect x="{x}" y="{y - 11}" width="12" height="12" fill="{_COLOURS[index % len(_COLOURS)]}"/>')
        parts.append(_text(x + 17, y, name.replace("_", " "), size=12))
    _write(path, bottom + 20 * (1 + len(names) // 4), parts)


def draw_load(path: Path, title: str, levels: Sequence[tuple[int, float, float]], limit: float) -> None:
    """Latency in ms against calls at once: (calls, median, 95th percentile) of each level, and the `limit` a call may have."""
    height, left, right, bottom = 380, 70, _WIDTH - 40, 330
    most = 1.15 * max(limit, *(high for _, _, high in levels))
    last = max(2, *(calls for calls, _, _ in levels))

    def place(calls: float, value: float) -> str:
        return f"{left + (calls - 1) / (last - 1) * (right - left):.1f},{bottom - value / most * (bottom - 50):.1f}"

    parts = [_text(left, 26, title, size=16), f'<path d="M{left} 50V{bottom}H{right}" fill="none" stroke="#555"/>']
    for calls, _, _ in levels:
        x = float(place(calls, 0).split(",")[0])
        parts.append(_text(x, bottom + 18, str(calls), anchor="middle", size=12))
    parts.append(_text((left + right) / 2, bottom + 38, "calls at once", anchor="middle", size=12))
    step = next(step for step in (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000) if most < 8 * step or step == 50_000)
    for value in range(0, int(most) + 1, step):
        y = float(place(1, value).split(",")[1])
        parts.append(_text(left - 8, y + 4, str(value), anchor="end", size=11))
    first, end = place(1, limit), place(last, limit)
    parts.append(f'<path d="M{first}L{end}" stroke="#c00" stroke-dasharray="6 4"/>' + _text(right - 4, float(end.split(",")[1]) - 6,
                 f"limit {limit:.0f} ms", anchor="end", size=11))  # fmt: skip
    for index, (words, column) in enumerate((("p50", 1), ("p95", 2))):
        colour = _COLOURS[1 if column == 1 else 4]
        points = " ".join(place(level[0], level[column]) for level in levels)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="4" fill="{colour}"/>' for p in points.split()]
        parts.append(_text(left + 20 + index * 60, 66, words, size=13, fill=colour))
    _write(path, height, parts)


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 13, fill: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>'


def _write(path: Path, height: int, parts: Sequence[str]) -> None:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="system-ui, sans-serif">'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + '<rect width="100%" height="100%" fill="white"/>' + "".join(parts) + "</svg>\n", encoding="utf-8")
