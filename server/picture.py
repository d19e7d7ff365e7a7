"""Pictures, as SVG: stages of an answer as stacked bars, on average and turn by turn, and latency against the number of calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

__all__ = ["WaterfallTurn", "draw_load", "draw_stages", "draw_waterfall"]

_COLOURS: Final = ("#9ecae1", "#4292c6", "#08519c", "#fdae6b", "#f16913", "#a63603", "#74c476", "#969696")
_WIDTH: Final = 860
_LEFT: Final = 190
_ROW: Final = 56
_STEPS: Final = (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000)
"""Round distances of an axis's ticks, in ms."""
_DARK: Final = ("#08519c", "#a63603")
"""Colours on which words are white."""


@dataclass(frozen=True, slots=True)
class WaterfallTurn:
    """One turn of `draw_waterfall`: when it was answered (`at`, as text), what was said and answered, its stages in order, and when it was
    heard after the caller's last word, both in ms: None if that is not known. `remark` stands beside the whole."""

    at: str
    words: str
    answer: str
    stages: Mapping[str, float]
    heard: float | None = None
    remark: str = ""


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


def draw_waterfall(path: Path, title: str, subtitle: str, turns: Sequence[WaterfallTurn]) -> None:
    """A row for each turn, all on one scale: what was said, and below it where the time went between the last word and the first sound."""
    left, right, top, row = 24, _WIDTH - 190, 96, 62
    names = list(dict.fromkeys(name for turn in turns for name in turn.stages))
    most = 1.02 * max(1.0, *(turn.heard or sum(turn.stages.values()) for turn in turns))
    scale = (right - left) / most
    bottom = top + len(turns) * row
    parts = [_text(left, 30, title, size=17), _text(left, 49, subtitle, size=11, fill="#777")]
    parts += _legend(left, 72, names)
    step = next(step for step in _STEPS if most < 10 * step or step == _STEPS[-1])
    for value in range(0, int(most) + 1, step):
        x = left + value * scale
        parts.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="#e4e4e4"/>' + _text(x, bottom + 16, str(value), anchor="middle", size=11))
    parts.append(_text(left, bottom + 34, "ms from the caller's last speech sample received", size=11, fill="#777"))
    for number, turn in enumerate(turns):
        parts += _waterfall_row(turn, names, left, top + number * row, scale)
    _write(path, bottom + 48, parts)


def _waterfall_row(turn: WaterfallTurn, names: Sequence[str], left: int, top: int, scale: float) -> list[str]:
    said = f'<tspan fill="#777">{escape(turn.at)}</tspan>  {escape(_short(turn.words, 62))}'
    if turn.answer:
        said += f'<tspan fill="#777">  \u2192  {escape(_short(turn.answer, 112 - min(62, len(turn.words))))}</tspan>'
    parts = [f'<text x="{left}" y="{top + 20}" font-size="12.5" fill="#222" xml:space="preserve">{said}</text>']
    x = float(left)
    for name, length in turn.stages.items():
        width, colour = length * scale, _COLOURS[names.index(name) % len(_COLOURS)]
        parts.append(f'<rect x="{x:.1f}" y="{top + 28}" width="{width:.1f}" height="22" fill="{colour}"/>')
        if width >= 26:
            fill = "#fff" if colour in _DARK else "#222"
            parts.append(_text(x + width / 2, top + 43, f"{length:.0f}", anchor="middle", size=11, fill=fill))
        x += width
    end = f"{sum(turn.stages.values()):.0f} ms" + (f", {turn.remark}" if turn.remark else "")
    if turn.heard is not None:
        until = left + turn.heard * scale
        parts.append(f'<path d="M{x:.1f} {top + 39}H{until:.1f}M{until:.1f} {top + 32}v14" stroke="#777" stroke-width="1.5" fill="none"/>')
        end += f", heard {turn.heard:.0f}"
        x = until
    return [*parts, _text(x + 7, top + 43, end, size=12)]


def _short(words: str, most: int) -> str:
    """What a picture can show of them: no control characters, and no half of a surrogate pair."""
    words = "".join(letter for letter in " ".join(words.split()) if letter.isprintable())
    return words if len(words) <= most else words[: most - 1].rstrip() + "\u2026"


def _legend(left: int, y: int, names: Sequence[str]) -> list[str]:
    """A square and a name for each stage, in one line."""
    parts, x = [], float(left)
    for index, name in enumerate(names):
        parts.append(f'<rect x="{x:.0f}" y="{y - 10}" width="11" height="11" fill="{_COLOURS[index % len(_COLOURS)]}"/>')
        parts.append(_text(x + 16, y, name.replace("_", " "), size=12))
        x += 30 + 7.2 * len(name)
    return parts


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
    step = next(step for step in _STEPS if most < 8 * step or step == _STEPS[-1])
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
