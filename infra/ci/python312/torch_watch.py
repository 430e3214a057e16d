"""Notes when code of this project asks for a library that this environment does without.

Copied into that environment and started by a line of its own in every interpreter there, because much of what needs
torch runs in processes that a test starts: what they print may end anywhere, and a test then sees only an exit code.
The note goes to the nearest process above that listens. The variables of a process would not lead there: servers under
test start with few.
"""

import os
import sys
from pathlib import Path
from types import FrameType

# mlflow, scipy and others look whether torch is there and go on without it: that is no need of ours
_LIBRARIES = (sys.prefix, str(Path(os.__file__).parent))

folder = Path()
"""A file for each process that listens, named by its number."""


class _Watch:
    """The last finder: asked only for what no other one has."""

    def __init__(self, names: list[str]) -> None:
        self.names = frozenset(names)

    def find_spec(self, name: str, *_: object) -> None:
        """Find nothing; note who asked."""
        if name.partition(".")[0] in self.names and _asked_by_us(sys._getframe(1)):
            _note(name)


def _asked_by_us(frame: FrameType | None) -> bool:
    while frame and ("importlib" in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    return frame is not None and not frame.f_code.co_filename.startswith(_LIBRARIES)


def _note(name: str) -> None:
    process = os.getpid()
    while process:
        log = folder / str(process)
        if log.exists():
            with log.open("a") as file:
                file.write(f"{name}\n")
            return
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def start(names: str, listeners: str) -> None:
    """Watch for these modules, divided by spaces; `listeners` is the folder."""
    global folder
    folder = Path(listeners)
    sys.meta_path.append(_Watch(names.split()))
