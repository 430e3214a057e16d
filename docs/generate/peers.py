"""The peers' processor time as a picture, from the figures that `make bench BENCH='--only peers'` wrote and we kept."""

import json
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

KEPT: Final = Path(__file__).with_name("peers.json")
"""`workspace/bench/peers.json` of the run that the page tells of."""
WIDTH: Final = 450
"""Pixels at which the picture is shown where there is room: on a telephone of 390 px its least text still has 11."""
TEXT_PX: Final = 14
PAD: Final = 14
BAR: Final = (17, 13)
"""From one bar down to the next, and a bar's own height, in pixels."""
VALUE_PX: Final = 44
"""Room for the figure behind the longest bar."""
KINDS: Final = {"small": "a photo of 224 px", "large": "a photo of 1024 px", "busy": "224 px, eight clients at once"}
STYLE: Final = """
text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2937; }
.ground { fill: #f8fafc; }
.small { fill: #1d4ed8; } .large { fill: #0891b2; } .busy { fill: #b45309; }
@media (prefers-color-scheme: dark) {
  text { fill: #e5e7eb; }
  .ground { fill: #111827; }
  .small { fill: #60a5fa; } .large { fill: #22d3ee; } .busy { fill: #f59e0b; }
}
"""


def draw() -> str:
    """`peers.svg`; the same text for the same figures."""
    found: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    sources = {"small": found["sizes"]["224"], "large": found["sizes"]["1024"], "busy": found["load"]["8"]}
    most = max(figures["cpu_ms"] for source in sources.values() for figures in source.values())
    scale = (WIDTH - 2 * PAD - VALUE_PX) / most
    parts = [_text(PAD, 28, "Processor milliseconds a photo", size=17, weight=700)]
    y = 46
    for kind, says in KINDS.items():
        parts += [_bar(kind, PAD, y, 16), _text(PAD + 24, y + BAR[1] - 1, says)]
        y += 20
    y += 4
    for server in found["memory_mib"]:
        parts.append(_text(PAD, y + 17, server, weight=600))
        y += 24
        for kind, source in sources.items():
            cpu_ms = source[server]["cpu_ms"]
            width = round(cpu_ms * scale, 1)
            parts += [_bar(kind, PAD, y, width), _text(PAD + width + 6, y + BAR[1] - 1, f"{cpu_ms:.1f}")]
            y += BAR[0]
        y += 6
    machine = found["machine"]
    parts.append(_text(PAD, y + 18, f"{machine['date']}, two cores; shorter is better"))
    return _document(y + 18 + PAD, parts)


def _bar(kind: str, x: float, y: float, width: float) -> str:
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{BAR[1]}" rx="2"/>'


def _text(x: float, y: float, words: str, *, size: int = TEXT_PX, weight: int = 400) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}">{escape(words)}</text>'


def _document(height: float, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="Processor time a photo, server by server">\n'
        f"<!-- Drawn from docs/generate/peers.json by `make docs`; do not edit. -->\n<style>{STYLE}</style>\n"
        f'<rect class="ground" width="{WIDTH}" height="{height:g}" rx="10"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"
