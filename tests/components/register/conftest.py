"""An empty registry, made once."""

from pathlib import Path

import pytest

from components.artifacts.registry import Registry
from tests.releases import make_context


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry: MLflow's first use of a database costs seconds."""
    folder = tmp_path_factory.mktemp("registry")
    Registry(make_context(folder).tracking_uri, "m").summaries()
    return folder / "mlflow.db"
