"""`python -m docs.generate.recording -o FILE.svg -- COMMAND...`: a real run of a command as an animated SVG.

The command runs in a pseudo-terminal. What it writes is kept with its times, drawn by a terminal emulator and shown
again without the waiting: what is new stands long enough to be seen, and each frame says how much time had passed.
"""

import argparse
import itertools
import os
import pty
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import pyte

COLUMNS: Final = 118
"""On a page 840 px wide, letters are then 11 px large."""
ROWS: Final = 44
LONGEST_PAUSE_S: Final = 1.0
LAST_FRAME_S: Final = 12.0
SPEED: Final = 8.0
SEEN_S: Final = 0.7
"""For which a frame with something new is shown at least."""
WAITING_S: Final = 0.03
"""For which a frame is shown where one only waits."""
FRAME_S: Final = 2.0
"""Output closer together than this makes one frame."""
LINE: Final = 18
CHARACTER: Final = 8.4
COLOURS: Final = {
    "default": "#e5e7eb",
    "green": "#86efac",
    "red": "#fca5a5",
    "yellow": "#fde68a",
    "brown": "#fde68a",
    "blue": "#93c5fd",
    "cyan": "#a5f3fc",
    "magenta": "#f0abfc",
}


@dataclass(frozen=True)
class Frame:
    """What the terminal showed, `seconds` after the start."""

    seconds: float
    lines: tuple[tuple[tuple[str, str, bool], ...], ...]
    """Rows of (text, colour, bold)."""


def record(command: list[str]) -> tuple[list[tuple[float, bytes]], int]:
    """Run a command in a pseudo-terminal; its output in pieces with the seconds they came at, and its exit status."""
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}  # noqa: TID251 - handed on
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, close_fds=True
    )
    os.close(terminal)
    pieces = []
    while True:
        try:
            data = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        pieces.append((time.monotonic() - started, data))
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    return pieces, process.wait()


def frames(pieces: list[tuple[float, bytes]]) -> list[Frame]:
    """What was to be seen after each burst of output; frames that look alike are one."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    found: list[Frame] = []
    for index, (seconds, data) in enumerate(pieces):
        stream.feed(data)
        last = index + 1 == len(pieces)
        if not last and pieces[index + 1][0] - (found[-1].seconds if found else 0.0) < FRAME_S:
            continue
        shown = tuple(_runs(screen.buffer[row]) for row in range(ROWS))
        if not found or found[-1].lines != shown:
            found.append(Frame(seconds, shown))
    return found


def _runs(row: Any) -> tuple[tuple[str, str, bool], ...]:
    runs: list[tuple[str, str, bool]] = []
    for column in range(COLUMNS):
        cell = row[column]
        style = (COLOURS.get(cell.fg, COLOURS["default"]), bool(cell.bold))
        if runs and runs[-1][1:] == style:
            runs[-1] = (runs[-1][0] + cell.data, *style)
        else:
            runs.append((cell.data, *style))
    while runs and not runs[-1][0].strip():
        runs.pop()
    return tuple(runs)


def draw(shown: list[Frame], title: str) -> str:
    """The frames as one SVG that plays by itself, in a loop."""
    pauses = [_stands(a, b) for a, b in itertools.pairwise(shown)]
    times = [*pauses, LAST_FRAME_S]
    total = sum(times)
    rows = max((row for frame in shown for row, line in enumerate(frame.lines) if line), default=0) + 1
    height = rows * LINE + 56
    width = COLUMNS * CHARACTER + 32
    styles, groups, begun = [], [], 0.0
    for number, (frame, lasts) in enumerate(zip(shown, times, strict=True)):
        a, b = 100 * begun / total, 100 * (begun + lasts) / total
        begun += lasts
        shows = f"0%{{opacity:0}}{a:.3f}%{{opacity:1}}{b:.3f}%{{opacity:0}}100%{{opacity:0}}"
        if number + 1 == len(shown):
            shows = f"0%{{opacity:0}}{a:.3f}%{{opacity:1}}100%{{opacity:1}}"
        styles.append(
            f"@keyframes f{number}{{{shows}}}.f{number}{{animation:f{number} {total:.2f}s step-end infinite}}"
        )
        # without animation (a printed page) the last frame stays
        hidden = "" if number + 1 == len(shown) else ' opacity="0"'
        groups.append(f'<g class="f{number}"{hidden}>{"".join(_lines(frame))}{_clock(frame.seconds, width)}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" role="img" '
        f'aria-label="Terminal recording of {escape(title)}">\n<style>{"".join(styles)}'
        "text{font:14px ui-monospace,Menlo,Consolas,monospace;white-space:pre}</style>\n"
        f'<rect width="{width:g}" height="{height}" rx="8" fill="#111827"/>\n'
        f'<text x="16" y="26" fill="#9ca3af">$ {escape(title)}</text>\n' + "\n".join(groups) + "\n</svg>\n"
    )


def _stands(frame: Frame, after: Frame) -> float:
    """Seconds that a frame stands: hardly any where the next one only moves a bar or a clock on."""
    changed = sum(a != b for a, b in zip(frame.lines, after.lines, strict=True))
    if changed <= 1 and sum(map(bool, frame.lines)) == sum(map(bool, after.lines)):
        return WAITING_S
    return min(max((after.seconds - frame.seconds) / SPEED, SEEN_S), LONGEST_PAUSE_S)


def _lines(frame: Frame) -> list[str]:
    parts = []
    for row, line in enumerate(frame.lines):
        if not line:
            continue
        spans = "".join(
            f'<tspan fill="{colour}" font-weight="{700 if bold else 400}">{escape(text)}</tspan>'
            for text, colour, bold in line
        )
        parts.append(f'<text x="16" y="{52 + row * LINE}" xml:space="preserve">{spans}</text>')
    return parts


def _clock(seconds: float, width: float) -> str:
    said = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
    return f'<text x="{width - 16:g}" y="26" fill="#9ca3af" text-anchor="end">{said}</text>'


def main() -> int:
    """Record, draw, write; returns the command's exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate.recording", description=__doc__)
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    pieces, code = record(options.command)
    options.output.write_text(draw(frames(pieces), " ".join(options.command)), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
