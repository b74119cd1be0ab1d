"""``python docs/site/drawings.py``: the drawings of docs/concepts.md, into docs/images."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[1] / "images"
INK, PALE, LINE = "#1f2933", "#eef2f6", "#9aa5b1"
COMPUTED, READ, KEPT = "#3b82f6", "#a7d3a6", "#f5b85b"
HEADS, KEYS = 4, 12
CHOSEN = ((0, 2, 3, 7, 9, 10), (1, 2, 4, 5, 8, 11), (0, 1, 6, 7, 10, 11), (2, 3, 5, 6, 8, 9))
"""Which keys each head of the drawing keeps."""
OWNERS = (
    ("weights", 15293, COMPUTED),
    ("KV pool", 5224, READ),
    ("activations", 480, KEPT),
    ("logits", 93, "#e06666"),
    ("other", 1024, "#b4a7d6"),
    ("not used", 2458, PALE),
)
"""MiB of LLaDA-8B on 24 GiB: docs/capacity.md."""


def box(x: float, y: float, width: float, height: float, fill: str, *, radius: int = 2) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" fill="{fill}" '
        f'stroke="{LINE}"/>'
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", weight: int = 400) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{INK}" fill="none" marker-end="url(#head)"/>'


def picture(width: int, height: int, about: str, parts: Iterable[str]) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="system-ui, sans-serif" font-size="13" fill="{INK}">',
        f"<title>{escape(about)}</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>',
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" fill="#fff" stroke="{LINE}"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def legend(y: float, entries: Iterable[tuple[str, str]], x: float = 20) -> Iterable[str]:
    for fill, words in entries:
        yield box(x, y - 11, 14, 14, fill)
        yield text(x + 20, y, words)
        x += 44 + 7 * len(words)


def phases() -> str:
    """A canvas of a prompt of 8, a block that is done, the block of now and two to come, four cells each."""
    now, kept = range(12, 16), {0, 2, 3, 6, 8, 11, 18}
    rows = (
        ("REFRESH", "bidirectional", set(range(24)), set()),
        ("REUSE", "bidirectional", set(now), kept),
        ("PREFILL", "block-causal", set(range(8)), set()),
        ("DENOISE", "block-causal", set(now), set(range(12))),
    )
    parts = [
        text(x, 28, name, anchor="middle", weight=600)
        for name, x in (("prompt", 218), ("done", 350), ("block", 438), ("masks", 570))
    ]
    for row, (name, kind, computed, read) in enumerate(rows):
        y = 42 + 56 * row
        parts += [text(20, y + 12, name, weight=600), text(20, y + 28, kind)]
        for cell in range(24):
            fill = COMPUTED if cell in computed else READ if cell in read else PALE
            if kind == "bidirectional" or cell < 16:
                parts.append(box(130 + 22 * cell, y, 20, 28, fill))
    legends = legend(
        280, ((COMPUTED, "computed in this step"), (READ, "K/V read from pages"), (PALE, "not looked at"))
    )
    return picture(680, 300, "What each phase computes and reads of a canvas", [*parts, *legends])


def attention() -> str:
    parts = []
    for left, name, size in ((30, "bidirectional", 12), (300, "block-causal: blocks of 3", 3)):
        parts.append(text(left + 108, 28, name, anchor="middle", weight=600))
        for query in range(12):
            for key in range(12):
                fill = COMPUTED if key // size <= query // size else PALE
                parts.append(box(left + 18 * key, 42 + 18 * query, 16, 16, fill))
    parts += [text(270, 282, "a row: a position; blue: the positions that it sees", anchor="middle")]
    return picture(546, 300, "Which positions see which", parts)


def packing() -> str:
    parts = [
        text(150, 28, "context K/V, a row a head", weight=600),
        text(520, 28, "pages: half the slots", weight=600),
    ]
    for head, chosen in enumerate(CHOSEN):
        y = 42 + 34 * head
        parts.append(text(20, y + 17, f"KV head {head}"))
        for key in range(KEYS):
            parts.append(box(100 + 26 * key, y, 24, 24, KEPT if key in chosen else PALE))
            parts.append(text(112 + 26 * key, y + 17, str(key), anchor="middle"))
        parts.append(arrow(420, y + 12, 500, y + 12))
        for slot, key in enumerate(chosen):
            x = 510 + 26 * slot + 10 * (slot // 3)
            parts += [box(x, y, 24, 24, READ), text(x + 12, y + 17, str(key), anchor="middle")]
    legends = legend(
        204, ((KEPT, "kept: best scores of this head"), (PALE, "left out until the next refresh"))
    )
    return picture(700, 222, "Each head keeps its own keys, packed without holes", [*parts, *legends])


def budget() -> str:
    whole, x, parts = sum(size for _, size, _ in OWNERS), 20.0, []
    for _, size, fill in OWNERS:
        width = 640 * size / whole
        parts.append(box(x, 44, width, 46, fill, radius=0))
        x += width
    parts.append(text(20, 28, "24 GiB, LLaDA-8B in bfloat16", weight=600))
    for place, (name, size, fill) in enumerate(OWNERS):
        x, y = 20 + 215 * (place % 3), 120 + 26 * (place // 3)
        parts += [box(x, y - 11, 14, 14, fill), text(x + 20, y, f"{name}: {size:,} MiB")]
    return picture(680, 166, "A device's memory by owner", parts)


def tuning_loop() -> str:
    places = {
        "engines": (20, 20, "engines", "windows of peaks and step times"),
        "look": (400, 20, "look", "the worst pod's bytes, mean rates"),
        "decide": (400, 130, "decide", "at most one change, or none"),
        "tell": (20, 130, "tell", "tuning file; restart for pages"),
    }
    parts = []
    for x, y, name, words in places.values():
        parts += [
            box(x, y, 250, 56, PALE, radius=6),
            text(x + 125, y + 24, name, anchor="middle", weight=600),
        ]
        parts.append(text(x + 125, y + 43, words, anchor="middle"))
    parts += [
        arrow(270, 48, 398, 48),
        arrow(525, 76, 525, 128),
        arrow(400, 158, 272, 158),
        arrow(145, 130, 145, 78),
    ]
    parts += [text(334, 40, "/metrics", anchor="middle"), text(536, 108, "model of memory and speed")]
    parts += [text(334, 150, "generation", anchor="middle"), text(156, 108, "taken over between two steps")]
    return picture(740, 206, "The tuning loop", parts)


DRAWINGS = {
    "attention": attention,
    "budget": budget,
    "packing": packing,
    "phases": phases,
    "tuning-loop": tuning_loop,
}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (IMAGES / f"{name}.svg").write_text(draw())
