"""kill -9 at every step of register: nothing half is served, and the next register leaves one clean version."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.context import RunContext
from components.artifacts.model_version import ModelVersion, read_model_version
from components.platform.registry import Registry, list_models
from serving.detector.bundle import RELEASE, read_manifest, verify
from serving.platform.errors import BundleError, ModelNotFoundError
from serving.registry import resolve
from tests.bundles import make_bundle
from tests.components.register.test_mlflow_server import server  # noqa: F401 - a fixture
from tests.components.register.test_vertex import MODEL, Google, google  # noqa: F401 - a fixture
from tests.killing import disconnect, killed_at
from tests.releases import make_context, registered


def effects(*, vertex: bool) -> list[tuple[Any, str]]:
    """Everything that register changes in the world; `copyfile` brings one file of the bundle into the registry."""
    from google.cloud import aiplatform_v1, storage
    from mlflow.tracking import MlflowClient

    of_mlflow = ("log_artifacts", "create_registered_model", "create_model_version", "set_terminated")
    found: list[tuple[Any, str]] = [(MlflowClient, name) for name in of_mlflow]
    found += [(MlflowClient, "delete_model_version_tag"), (Registry, "point"), (Registry, "tag"), (Path, "replace")]
    if vertex:
        found += [(aiplatform_v1.ModelServiceClient, name) for name in ("upload_model", "import_model_evaluation")]
        return [*found, (storage.Blob, "upload_from_filename")]
    return [*found, (shutil, "copyfile")]


@dataclass
class Place:
    """A registry with nothing in it, and how a bundle gets into it."""

    context: RunContext
    folder: Path
    register: Callable[[str, Path], ModelVersion]
    google: Google | None = None

    @property
    def named(self) -> str:
        return f"models:/{self.context.model_name}"

    def resolved(self, version: str) -> str:
        """Digest of what a server would serve of a version; verified."""
        found = resolve(f"{self.named}/{version}", self.folder / "cache", self.context.tracking_uri)
        assert verify(found.folder).digest == found.digest
        assert (found.folder / RELEASE).is_dir()
        return found.digest


def nothing_half_is_served(place: Place, digest: str) -> bool:
    """After the kill: no version, one that is refused in a line, or a whole one. Whether it was a half one."""
    versions = list_models(place.context.tracking_uri, place.context.model_name)
    assert len(versions) <= 1
    if not versions:
        with pytest.raises(ModelNotFoundError):
            place.resolved("1")
        return False
    (version,) = versions
    if not version.unfinished:
        assert place.resolved(version.version) == digest
        return False
    assert version.aliases == ()
    with pytest.raises(BundleError, match=r"version 1 is half registered: .* register the same bundle again") as caught:
        place.resolved(version.version)
    assert "\n" not in str(caught.value)
    return True


def one_clean_version(place: Place, bundle: Path, version: ModelVersion) -> None:
    """What the next register leaves, wherever the one before died."""
    context, digest = place.context, read_manifest(bundle).digest
    (row,) = list_models(context.tracking_uri, context.model_name)
    assert (row.version, row.aliases, row.digest, row.unfinished) == ("1", ("challenger",), digest, False)
    assert place.resolved("1") == version.bundle_digest == digest
    registry = Registry(context.tracking_uri, context.model_name)
    assert registry.client.get_run(registry.get("1").run_id or "").info.status == "FINISHED"
    if place.google is not None:
        vertex = place.google.vertex
        assert (version.vertex_resource, version.bundle_uri.rpartition("/")[2]) == (f"{MODEL}@1", digest)
        assert vertex.aliases(MODEL) == {"default": "1", "challenger": "1"}
        assert f"{MODEL}@1" in vertex.evaluations
        names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
        sent = {key.partition(f"/{digest}/")[2] for key in place.google.gcs.objects}
        assert names < sent and "release/release.json" in sent


def killed_at_every_step(
    fresh: Callable[[], Place], bundle: Path, caplog: pytest.LogCaptureFixture, repeats: int, stride: int = 1
) -> int:
    """Kill register at each step, look, register again, look. Returns how many steps there were."""
    digest, step, halves = read_manifest(bundle).digest, stride - 1, 0
    while True:
        for _ in range(repeats):
            place = fresh()
            watched = effects(vertex=place.google is not None)
            if not killed_at(step, partial(place.register, "killed", bundle), watched, most=2):
                assert halves, "no kill met a version that was half registered"
                return step // stride
            half = nothing_half_is_served(place, digest)
            halves += half
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                version = place.register("next", bundle)
            assert ("left half registered" in caplog.text) == half
            one_clean_version(place, bundle, version)
            assert read_model_version(place.folder / "next" / "model_version") == version
            shutil.rmtree(place.folder)
        print(f"register killed at step {step}, {repeats} times: one clean version")
        step += stride


def empty(folder: Path, migrated: Path) -> None:
    """A registry with nothing in it in place of the one that was there."""
    disconnect()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")


@pytest.fixture
def on_disk(migrated: Path, tmp_path: Path) -> Callable[[], Place]:
    """Makes registries in a file, always the same one: what MLflow knows of a file's tables is learnt once."""
    folder = tmp_path / "registry"

    def fresh() -> Place:
        empty(folder, migrated)
        context = make_context(folder)
        return Place(context, folder, lambda name, bundle: registered(folder / name, bundle, context))

    return fresh


@pytest.fixture
def on_google(google: Google, migrated: Path) -> Callable[[], Place]:  # noqa: F811 - a fixture
    """Empties Google's registry and bucket, and the file beside them."""
    folder = google.folder / "registry"

    def fresh() -> Place:
        empty(folder, migrated)
        google.context = make_context(folder)
        google.gcs.objects.clear()
        google.vertex.requests.clear()
        google.vertex.models.clear()
        google.vertex.evaluations.clear()
        return Place(
            google.context, folder, lambda name, bundle: google.register(f"{folder.name}/{name}", bundle), google
        )

    return fresh


def test_a_register_killed_at_any_step_is_finished_by_the_next(
    on_disk: Callable[[], Place], toy_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # a file, all files, the release's, the model's name, the version, the run's end, the mark, the alias, the output
    assert killed_at_every_step(on_disk, toy_bundle, caplog, repeats=1, stride=4) >= 5


def test_a_half_registered_version_stays_unserved_while_others_come(
    on_disk: Callable[[], Place], toy_bundle: Path, tmp_path: Path
) -> None:
    place = on_disk()
    from mlflow.tracking import MlflowClient

    after_the_version = 1
    assert killed_at(
        after_the_version, partial(place.register, "killed", toy_bundle), [(MlflowClient, "create_model_version")]
    )
    other = make_bundle(tmp_path / "other", seed=5)
    assert place.register("other", other).version == "2"
    newest, oldest = list_models(place.context.tracking_uri, place.context.model_name)
    assert (newest.aliases, newest.unfinished, oldest.aliases, oldest.unfinished) == (("challenger",), False, (), True)
    with pytest.raises(BundleError, match="version 1 is half registered"):
        place.resolved("1")
    assert place.resolved("2") == read_manifest(other).digest


def test_two_uploads_of_one_bundle_end_as_one_version(google: Google, toy_bundle: Path) -> None:  # noqa: F811 - a fixture
    """As when an upload ends only after the register that began it was killed and another was run."""
    google.register("1", toy_bundle)
    (first,) = google.vertex.models[MODEL].values()
    late = type(first)(first)
    late.version_id, late.version_aliases = "2", ["challenger"]
    first.version_aliases = ["default"]
    google.vertex.models[MODEL]["2"] = late
    assert google.register("2", toy_bundle).vertex_resource == f"{MODEL}@1"
    assert google.vertex.aliases(MODEL) == {"default": "1", "challenger": "1"}


@pytest.mark.system
@pytest.mark.nightly
def test_twenty_kills_at_every_step_on_disk(
    on_disk: Callable[[], Place], toy_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert killed_at_every_step(on_disk, toy_bundle, caplog, repeats=20) >= 18


@pytest.mark.system
@pytest.mark.nightly
def test_twenty_kills_at_every_step_on_google(
    on_google: Callable[[], Place], toy_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert killed_at_every_step(on_google, toy_bundle, caplog, repeats=20) >= 18


@pytest.mark.system
@pytest.mark.nightly
def test_twenty_kills_at_every_step_over_http(
    server: str,  # noqa: F811 - a fixture
    toy_bundle: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = 0

    def fresh() -> Place:
        nonlocal made
        made += 1
        folder = tmp_path / f"place-{made}"
        folder.mkdir()
        name = f"detector-{made}"
        context = make_context(folder, tracking_uri=server, artifact_root="", model_name=name, run_id=f"run-{made}")
        return Place(context, folder, lambda name, bundle: registered(folder / name, bundle, context))

    assert killed_at_every_step(fresh, toy_bundle, caplog, repeats=20) >= 8
