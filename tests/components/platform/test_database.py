"""A sqlite registry: made whole by one process, and at home wherever its workspace is moved or copied."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.artifacts.context import RunContext
from components.platform.database import ready
from components.platform.registry import Registry, list_models
from serving.detector.bundle import read_manifest, verify
from serving.platform.errors import AidetectError, StageError
from serving.registry import resolve
from tests.bundles import make_bundle
from tests.releases import make_context, registered

OPEN = "import sys; from components.platform.registry import list_models; print(list_models(sys.argv[1], 'm'))"

REGISTER = """
import sys
from pathlib import Path
from components.artifacts.context import RunContext
from tests.releases import registered
folder, bundle, context = sys.argv[1:]
print(registered(Path(folder), Path(bundle), RunContext.model_validate_json(context)).version)
"""


def context_of(workspace: Path) -> RunContext:
    return make_context(workspace, artifact_root=(workspace / "mlflow-artifacts").as_uri())


@pytest.fixture
def workspace(migrated: Path, toy_bundle: Path, tmp_path: Path) -> Path:
    """A workspace with one registered version."""
    folder = tmp_path / "original"
    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")
    registered(tmp_path / "release", toy_bundle, context_of(folder))
    return folder


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.system  # MLflow's tables made twice, and MLflow imported in three processes
def test_two_first_uses_and_one_killed_leave_one_whole_database(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    killed = subprocess.Popen([sys.executable, "-c", OPEN, uri])
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("new/.mlflow.db.partial")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "new" / "mlflow.db").exists()
    both = [
        subprocess.Popen([sys.executable, "-c", OPEN, uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        said, error = process.communicate(timeout=240)
        assert (process.returncode, said) == (0, "[]\n"), error


def test_registering_in_a_copy_leaves_the_original_alone(workspace: Path, toy_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(workspace, tmp_path / "copy"))
    before = content(workspace)
    second = make_bundle(tmp_path / "second", seed=9)
    # as in life another process: MLflow remembers where it wrote the files of a run
    done = subprocess.run(
        [sys.executable, "-c", REGISTER, str(tmp_path / "again"), str(second), context_of(copy).model_dump_json()],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert content(workspace) == before
    # both versions of the copy are its own, also without the original
    shutil.rmtree(workspace)
    name, uri = context_of(copy).model_name, context_of(copy).tracking_uri
    for number, bundle in (("1", toy_bundle), ("2", second)):
        found = resolve(f"models:/{name}/{number}", tmp_path / "cache", uri)
        assert verify(found.folder).digest == read_manifest(bundle).digest


def test_a_moved_workspace_is_served_before_anything_writes_to_it(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    moved = workspace.rename(tmp_path / "a b" / "moved")
    uri = context_of(moved).tracking_uri
    (database,) = moved.glob("*.db")
    untouched = database.read_bytes()
    found = resolve(f"models:/{context_of(moved).model_name}@challenger", tmp_path / "cache", uri)
    assert found.version == "1"
    assert database.read_bytes() == untouched
    # and MLflow's own reading is right once one of our commands has looked
    registry = Registry(uri, context_of(moved).model_name)
    run = registry.client.get_run(str(registry.get("1").run_id))
    assert run.info.artifact_uri.startswith((moved / "mlflow-artifacts").as_uri())


def test_a_database_copied_without_its_files_names_both_places(workspace: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(workspace / "mlflow.db", alone)
    with pytest.raises(StageError) as caught:
        list_models(context_of(alone).tracking_uri, "m")
    for place in (alone / "mlflow.db", workspace / "mlflow.db", alone / "mlflow-artifacts"):
        assert str(place) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_at_a_place_of_ones_own_stay_there(workspace: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "databases"
    elsewhere.mkdir()
    shutil.move(workspace / "mlflow.db", elsewhere)
    ready(f"sqlite:///{elsewhere / 'mlflow.db'}")
    found = resolve("models:/ai-product-photo-detector/1", tmp_path / "cache", f"sqlite:///{elsewhere / 'mlflow.db'}")
    assert found.version == "1"


def test_another_file_in_the_databases_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database")
    for use in (
        lambda: list_models(f"sqlite:///{tmp_path / 'mlflow.db'}", "m"),
        lambda: resolve("models:/m/1", tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}"),
    ):
        with pytest.raises(AidetectError) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_name_that_no_database_can_have_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine?").mkdir()
    with pytest.raises(StageError, match=r"mine\?/mlflow\.db: .*cannot have a \? in it; rename the folder"):
        ready(f"sqlite:///{tmp_path}/mine?/mlflow.db")


def test_an_environment_whose_migrations_cannot_be_found_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "100%").symlink_to(sys.prefix)
    code = "import sys; from components.platform.database import ready; ready(sys.argv[1])"
    words = [str(tmp_path / "100%/bin/python"), "-c", code, f"sqlite:///{tmp_path}/mlflow.db"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "a folder's name there has a % in it; rename that folder" in done.stderr
    assert not (tmp_path / "mlflow.db").exists()
