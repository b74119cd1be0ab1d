"""A flowchart of Mermaid's as SVG, so that the site needs no script for it: boxes with texts and arrows
between them, inside of one frame."""

from __future__ import annotations

import re
from html import escape

_FRAME = re.compile(r'subgraph \w+\["([^"]*)"\]')
_BOX = re.compile(r'([\w.]+)\["([^"]*)"\]')
_ARROW = re.compile(r'([\w.]+)(?:\["[^"]*"\])? --> ([\w.]+)')
_LETTER, _HEIGHT, _GAP, _RISE, _EDGE = 7.0, 34, 18, 38, 20


def flowchart(source: str) -> str:
    """The drawing; each row holds the boxes whose longest way from the top is as long."""
    frame = _FRAME.search(source)
    texts = dict(_BOX.findall(_FRAME.sub("", source)))
    arrows = _ARROW.findall(source)
    if frame is None or not arrows or {end for arrow in arrows for end in arrow} != set(texts):
        raise ValueError(f"not a flowchart of one frame whose boxes all have texts and arrows: {source}")

    def row(box: str) -> int:
        return max((row(start) + 1 for start, end in arrows if end == box), default=0)

    rows: dict[int, list[str]] = {}
    for box in texts:
        rows.setdefault(row(box), []).append(box)
    widths = {box: len(text) * _LETTER + 24 for box, text in texts.items()}
    length = {key: sum(widths[box] + _GAP for box in boxes) - _GAP for key, boxes in rows.items()}
    width = max(length.values()) + 2 * _EDGE
    places = {}
    for key, boxes in rows.items():
        left = (width - length[key]) / 2
        for box in boxes:
            places[box] = (left, 2 * _EDGE + key * (_HEIGHT + _RISE))
            left += widths[box] + _GAP
    height = 3 * _EDGE + len(rows) * (_HEIGHT + _RISE) - _RISE
    parts = [
        f'<svg class="flowchart" role="img" aria-label="{escape(frame[1])}" '
        f'viewBox="0 0 {width:.0f} {height}" style="max-width: {width:.0f}px">',
        f'<rect class="frame" width="{width:.0f}" height="{height}" rx="8"/>',
        f'<text class="title" x="{width / 2:.0f}" y="24">{escape(frame[1])}</text>',
    ]
    for start, end in arrows:
        (x1, y1), (x2, y2) = places[start], places[end]
        x1, x2, y1 = x1 + widths[start] / 2, x2 + widths[end] / 2, y1 + _HEIGHT
        middle = (y1 + y2) / 2
        parts.append(
            f'<path class="arrow" d="M{x1:.0f} {y1}C{x1:.0f} {middle:.0f} '
            f'{x2:.0f} {middle:.0f} {x2:.0f} {y2 - 7}"/>'
            f'<path class="head" d="M{x2 - 4:.0f} {y2 - 8}h8l-4 8z"/>'
        )
    for box, text in texts.items():
        x, y = places[box]
        parts.append(
            f'<rect class="box" x="{x:.0f}" y="{y}" width="{widths[box]:.0f}" height="{_HEIGHT}" rx="5"/>'
            f'<text x="{x + widths[box] / 2:.0f}" y="{y + 22}">{escape(text)}</text>'
        )
    return "".join(parts) + "</svg>\n"
