"""The registry's file read without MLflow: the same versions, aliases, tags and files that MLflow's client tells of."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from serving.registry_file import SCHEMA, RegisteredVersion, read_versions
from tests.bundles import jpeg
from tests.importers import importers
from tests.serving.processes import free_port


@pytest.fixture
def uri(migrated: Path, tmp_path: Path) -> str:
    """A registry with three versions, the second deleted, the third champion."""
    from mlflow.tracking import MlflowClient

    found = f"sqlite:///{shutil.copy(migrated, tmp_path / 'mlflow.db')}"
    client = MlflowClient(found, found)
    experiment = client.create_experiment("e", (tmp_path / "mlflow-artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    for name in ("shop", "other"):
        client.create_registered_model(name)
    for number in range(3):
        client.create_model_version("shop", f"runs:/{run}/bundle", run, tags={"digest": f"{number}", "metric.f1": ".9"})
    client.create_model_version("other", "/elsewhere")
    client.delete_model_version("shop", "2")
    client.set_registered_model_alias("shop", "champion", "3")
    client.set_registered_model_alias("shop", "a", "3")
    return found


def test_its_revision_is_that_of_the_installed_mlflow() -> None:
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    assert ScriptDirectory.from_config(_get_alembic_config("sqlite://")).get_current_head() == SCHEMA


def test_it_tells_what_mlflow_tells(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri, uri)

    def told(found: Any, aliases: list[str]) -> RegisteredVersion:
        run_id = found.source.removeprefix("runs:/").partition("/")[0] if found.source.startswith("runs:/") else ""
        return RegisteredVersion(
            found.name,
            str(found.version),
            found.source,
            client.get_run(run_id).info.artifact_uri if run_id else "",
            found.creation_timestamp,
            dict(found.tags),
            tuple(sorted(aliases)),
        )

    for name in ("shop", "other"):
        by_mlflow = sorted(client.search_model_versions(f"name='{name}'"), key=lambda v: -int(v.version))
        aliases = client.get_registered_model(name).aliases
        assert read_versions(uri, name) == [
            told(v, [a for a, n in aliases.items() if str(n) == str(v.version)]) for v in by_mlflow
        ]
    assert read_versions(uri, "nobody") == []


def test_it_reads_the_runs_of_the_model_s_versions_only(uri: str, tmp_path: Path) -> None:
    before = read_versions(uri, "shop")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute(
            "INSERT INTO runs (run_uuid, lifecycle_stage, artifact_uri, experiment_id)"
            " SELECT hex(randomblob(16)), 'active', CAST(x'ff' AS TEXT), experiment_id FROM runs"
        )
    # an address that nobody can read: it would end a reading of all runs
    assert before and read_versions(uri, "shop") == before


def test_what_it_does_not_know_is_left_to_mlflow(uri: str, tmp_path: Path) -> None:
    assert read_versions("http://127.0.0.1:9", "shop") is None
    assert read_versions(f"sqlite:///{tmp_path}/none.db", "shop") is None
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("no database")
    assert read_versions(f"sqlite:///{tmp_path}/text.db", "shop") is None
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'another'")
    assert read_versions(uri, "shop") is None


NOT_NEEDED = (
    "mlflow", "sqlalchemy", "alembic", "pandas", "scipy", "sklearn", "matplotlib", "torch", "captum", "timm", "kfp",
    "pyarrow", "google.cloud.storage", "google.cloud.aiplatform",
)  # fmt: skip
"""To answer from a registry on this disk."""
COMMAND = "from pipelines.cli import main; main()"
SERVER = "from serving.__main__ import _prepare, _settings; _prepare(_settings())"


def test_nothing_heavy_is_asked_for_between_a_typed_command_and_its_answer(
    uri: str, tmp_path: Path, toy_bundle: Path
) -> None:
    run = (read_versions(uri, "shop") or [])[0].artifact_uri
    shutil.copytree(toy_bundle, Path(run.removeprefix("file://")) / "bundle")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        digest = json.loads((toy_bundle / "manifest.json").read_text())["digest"]
        database.execute("UPDATE model_version_tags SET value = ? WHERE key = 'digest' AND version = 3", (digest,))
    (tmp_path / "photo.jpg").write_bytes(jpeg(200))
    here = ("--set", f"paths.workspace={tmp_path}", "--set", "tracking.model_name=shop")
    assert importers(COMMAND, NOT_NEEDED, ("models", *here)) == []
    assert importers(COMMAND, NOT_NEEDED, ("predict", str(tmp_path / "photo.jpg"), *here)) == []
    server = {"MODEL_URI": "models:/shop@champion", "MLFLOW_TRACKING_URI": uri, "PORT": str(free_port())}
    assert importers(SERVER, NOT_NEEDED, MODEL_CACHE_DIR=str(tmp_path / "cache"), **server) == []
    # what is never found may never be looked for
    assert importers("import colorsys", ("colorsys",)) == ["colorsys is imported by __main__"]
