"""What the engine does depends on the processor: the tests of its graphs and answers, as older processors run them.

Needs: a C compiler (apt-get install gcc libc6-dev)
"""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processor import instruction_sets, older_processor

ROOT = Path(__file__).resolve().parents[2]
SUITE = [
    "tests/components/train/test_blocked.py",
    *(f"tests/serving/detector/test_{name}.py" for name in ("bundle", "detector_judge", "framing", "gradcam")),
]

pytestmark = pytest.mark.system


@pytest.mark.skipif(platform.machine() != "x86_64", reason="CPUID is an instruction of x86")
@pytest.mark.parametrize(
    ("wanted", "beyond"), [pytest.param("avx512", "amx_tile", marks=pytest.mark.nightly), ("avx2", "avx512f")]
)
def test_the_engine_passes_its_tests_on_an_older_processor(tmp_path: Path, wanted: str, beyond: str) -> None:
    if beyond not in instruction_sets():
        pytest.skip(f"this processor has no {beyond}: every test runs on the older one")
    older = older_processor(wanted, tmp_path)
    if older is None:
        pytest.skip("this processor or kernel cannot hide what CPUID says")
    # pytest's own handler of faults would take the place of the one that answers CPUID
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:faulthandler", "-m", "not system", *SUITE]
    done = subprocess.run(command, cwd=ROOT, env=older, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
