"""What the engine does depends on the processor: the tests of its graphs and answers, as older processors run them.

Needs: a C compiler (apt-get install gcc libc6-dev)
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processor import instruction_sets

ROOT = Path(__file__).resolve().parents[2]
CANNOT = 77
"""The exit code of a program that cannot be made to believe in an older processor."""
SUITE = [
    "tests/components/train/test_blocked.py",
    *(f"tests/serving/detector/test_{name}.py" for name in ("bundle", "detector_judge", "framing", "gradcam")),
]

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that takes instruction sets out of what CPUID says."""
    library = tmp_path_factory.mktemp("older") / "older_processor.so"
    source = ROOT / "tests" / "infra" / "older_processor.c"
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return library


@pytest.mark.skipif(platform.machine() != "x86_64", reason="CPUID is an instruction of x86")
@pytest.mark.parametrize(
    ("wanted", "beyond"), [pytest.param("avx512", "amx_tile", marks=pytest.mark.nightly), ("avx2", "avx512f")]
)
def test_the_engine_passes_its_tests_on_an_older_processor(preloaded: Path, wanted: str, beyond: str) -> None:
    if beyond not in instruction_sets():
        pytest.skip(f"this processor has no {beyond}: every test runs on the older one")
    older = {**os.environ, "OLDER_PROCESSOR": wanted, "LD_PRELOAD": str(preloaded), "OMP_NUM_THREADS": "1"}
    if subprocess.run(["true"], env=older, check=False).returncode == CANNOT:
        pytest.skip("this processor or kernel cannot hide what CPUID says")
    # pytest's own handler of faults would take the place of the one that answers CPUID
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:faulthandler", "-m", "not system", *SUITE]
    done = subprocess.run(command, cwd=ROOT, env=older, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
