"""A command recorded in a pseudo-terminal and drawn, frame by frame."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.system

SCRIPT = (
    "import sys, time; print('first <line>', flush=True); time.sleep(2.5); print('\\33[1;32mdone\\33[0m'); sys.exit(3)"
)


def test_a_recording_shows_what_ran_with_its_times(tmp_path: Path) -> None:
    output = tmp_path / "recording.svg"
    command = [sys.executable, "-m", "docs.generate.recording", "-o", str(output), "--", sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stderr
    root = ElementTree.fromstring(output.read_text())
    svg = "{http://www.w3.org/2000/svg}"
    groups = [["".join(text.itertext()).strip() for text in group.iter(f"{svg}text")] for group in root.iter(f"{svg}g")]
    assert groups[0][:1] == ["first <line>"]
    assert groups[-1][:2] == ["first <line>", "done"]
    assert "done" not in groups[0]
    assert int(groups[-1][-1].split(":")[1]) - int(groups[0][-1].split(":")[1]) >= 2
    assert re.search(r'<tspan fill="#86efac" font-weight="700">done', output.read_text())
    assert [group.get("opacity") for group in root.iter(f"{svg}g")][-1] is None, "without animation the end is seen"


def test_waiting_is_left_out_and_what_is_new_stands() -> None:
    from docs.generate.recording import LAST_FRAME_S, Frame, draw  # needs the extra `docs`

    bar = [Frame(2.0 * i, ((("text", "#fff", False),), ((f"{i} %", "#fff", False),), ())) for i in range(50)]
    new = Frame(100.0, (bar[-1].lines[0], (("done", "#fff", False),), (("verdict", "#fff", False),)))
    shown = draw([*bar, new], "x")
    (total,) = set(re.findall(r"animation:f\d+ ([\d.]+)s", shown))
    assert LAST_FRAME_S < float(total) < LAST_FRAME_S + 3
