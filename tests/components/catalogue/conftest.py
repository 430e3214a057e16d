"""What the tests of catalogues share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.catalogue.jobs import make_shop
from tests.fakes.gcs import FakeGcs


@pytest.fixture(scope="package")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop's folder: 40 photos in three folders, and what else lies in such folders."""
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    fake = FakeGcs()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    yield fake
    fake.close()
