"""Shared fixtures. Thread counts are set before any numerical library loads: the cores are shared."""

import gc
import os
import shutil
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from pathlib import Path

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG, create_ssl_context
from httpx._transports import default as transports
from hypothesis import settings

from components.platform import database
from components.platform.database import _make as make_tables
from serving.platform.cores import usable_cores
from tests.bundles import make_bundle
from tests.interrupted import interrupted_start as interrupted_start
from tests.processor import instruction_sets
from tests.shared import made_once, once
from tests.untraced import untraced

ROOT = Path(__file__).resolve().parent.parent

# a neighbour on the core is no fault of what is tested
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# httpx gives up after five seconds unless told otherwise: a loaded machine needs longer, and only a hang a minute
for _phase in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _phase, 60.0)

# each of httpx's clients reads all certificates, for 40 ms, also where it speaks HTTP to loopback
vars(transports)["create_ssl_context"] = made_once(create_ssl_context, ("SSL_CERT_FILE", "SSL_CERT_DIR"))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Half as many processes again as there are cores, for many tests wait: for servers, for limits, for time-outs."""
    return max(1, usable_cores() * 3 // 2)


# what is imported stays: to walk it again and again is a fifth of the time that the imports take
gc.disable()


def pytest_collection_finish() -> None:
    """From here on garbage is collected as ever, but not looked for among what all tests have."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    """What the engine's choices depend on, beside the results."""
    return f"processor: {' '.join(instruction_sets()) or 'no instruction sets told'}"


@pytest.fixture(autouse=True)
def _no_cover_holds_for_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is marked `no_cover` repeats lines that other tests count: its processes are not traced either."""
    if request.node.get_closest_marker("no_cover"):
        for name in os.environ.keys() - untraced().keys():
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def sample_dir() -> Path:
    """Photographs of 64 px, for every test that needs some and cares little which: quickly decoded, quickly learnt."""
    return ROOT / "tests" / "sample64"


@pytest.fixture(scope="session")
def shipped_dir() -> Path:
    """The shipped sample, for what is to be proven of it."""
    return ROOT / "data" / "sample"


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed bundle of a tiny network: bright pictures are called ai_generated. Read only; copy before changing."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bright")


@pytest.fixture(scope="session")
def inverted_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The opposite of `toy_bundle`: dark pictures are called ai_generated."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "dark", sign=-1.0)


def _tables(factory: pytest.TempPathFactory) -> Path:
    return once(factory, "registry", lambda folder: make_tables(folder / "mlflow.db")) / "mlflow.db"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty registry, to copy: MLflow's first use of a database costs seconds."""
    return _tables(tmp_path_factory)


@pytest.fixture(scope="session", autouse=True)
def _tables_are_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The first use of a database in a test's own process is a copy; a process that a test starts makes its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_make", lambda path: shutil.copy(_tables(tmp_path_factory), path))
        yield
