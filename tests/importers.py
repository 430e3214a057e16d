"""Which of the libraries that a program should not need it imports, and who asked for each."""

import os
import subprocess
import sys
from collections.abc import Sequence

from tests.serving.processes import environment

_WATCH = """
import sys
WATCHED = {watched!r}
ASKED = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in WATCHED:
            frame = sys._getframe(1)
            while frame is not None and "importlib" in frame.f_code.co_filename:
                frame = frame.f_back
            who = frame.f_globals.get("__name__") if frame is not None else "nobody"
            ASKED.append(f"{{name}} is imported by {{who}}")
        return None
sys.meta_path.insert(0, Watch())
try:
    exec({code!r})
except SystemExit as stop:
    assert not stop.code, stop.code
print("ASKED", *ASKED, sep="\\n", file=sys.stderr)
"""


def importers(code: str, watched: Sequence[str], words: Sequence[str] = (), **env: str) -> list[str]:
    """Run Python code in a process of its own; a line for each watched module that it looked for, with the importer.

    Args:
        code: statements; a call of `sys.exit` ends them.
        watched: full names of modules.
        words: `sys.argv[1:]`.
        env: beside the environment of servers under test.
    """
    done = subprocess.run(
        [sys.executable, "-c", _WATCH.format(watched=tuple(watched), code=code), *words],
        env=environment(**env),
        cwd=os.getcwd(),  # noqa: PTH109 - the configuration is looked for from here
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.rpartition("ASKED\n")[2].splitlines()
