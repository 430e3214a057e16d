"""What a process makes once is kept from the cyclic collector; all that comes later is collected as ever."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.detector.collector import lasting

EXPLAINS_ONCE = """
import gc, sys, weakref
from pathlib import Path
from serving.detector.detector import Detector

detector = Detector.load(Path(sys.argv[1]))
assert "torch" not in sys.modules
unchanged = gc.get_freeze_count()  # some hundreds from Python 3.12 on
image = (detector.folder / detector.manifest.golden[0].file).read_bytes()
detector.explain(image)
kept = gc.get_freeze_count() - unchanged
detector.explain(image)
assert gc.get_freeze_count() - unchanged == kept, "only the first explanation imports"

class Node: pass
node = Node(); node.itself = node; seen = weakref.ref(node); del node
gc.collect()
print(kept, gc.isenabled(), seen() is None)
"""


def test_the_first_explanation_keeps_torch_from_the_collector(toy_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXPLAINS_ONCE, str(toy_bundle)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    kept, enabled, later_garbage_is_collected = done.stdout.split()
    # torch alone makes some hundred thousand objects that the collector would walk
    assert int(kept) > 100_000
    assert (enabled, later_garbage_is_collected) == ("True", "True")


LOADS_A_SERVER = """
import gc, sys
from serving import __main__ as server

server._run = lambda *_: print(gc.get_freeze_count(), gc.isenabled()) or 0
sys.exit(server.main())
"""


def test_a_server_s_start_is_kept_from_the_collector(toy_bundle: Path) -> None:
    environment = {**os.environ, "MODEL_URI": str(toy_bundle), "PORT": "0", "HOST": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", LOADS_A_SERVER], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    kept, enabled = done.stdout.split()
    assert int(kept) > 50_000
    assert enabled == "True"


def test_the_collector_runs_again_after_a_failure() -> None:
    with pytest.raises(ValueError, match="no import"), lasting():
        assert not gc.isenabled()
        raise ValueError("no import")
    assert gc.isenabled()


def test_where_it_was_off_it_stays_off() -> None:
    gc.disable()
    try:
        with lasting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
