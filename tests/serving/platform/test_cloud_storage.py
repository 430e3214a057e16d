"""The one client of Cloud Storage: what it refuses to write, and how much it reads."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.platform import cloud_storage
from serving.platform.errors import StageError
from tests.fakes.gcs import FakeGcs


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    fake = FakeGcs()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    yield fake
    fake.close()


@pytest.mark.parametrize("name", ["../outside.txt", "deep/../../outside.txt", "/tmp/aidetect-outside.txt"])
def test_no_object_is_written_outside_of_its_folder(bucket: FakeGcs, tmp_path: Path, name: str) -> None:
    bucket.put(f"gs://shop/bundle/{name}", b"x")
    folder = tmp_path / "inside"
    with pytest.raises(StageError, match="outside of its folder"):
        cloud_storage.fetch(cloud_storage.objects("gs://shop/bundle"), "gs://shop/bundle", folder)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not Path("/tmp/aidetect-outside.txt").exists()


def test_of_an_object_no_more_is_read_than_was_asked_for(bucket: FakeGcs) -> None:
    bucket.put("gs://shop/large", bytes(range(256)) * 100)
    bucket.put("gs://shop/empty", b"")
    read = {
        name: cloud_storage.read(cloud_storage.blob(f"gs://shop/{name}"), 300) for name in ("large", "empty", "none")
    }
    assert read == {"large": (bytes(range(256)) * 2)[:300], "empty": b"", "none": None}


def test_what_is_read_whole_is_checked(bucket: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("gs://shop/torn", b"what was sent")
    monkeypatch.setattr("tests.fakes.gcs._crc32c", lambda _: "AAAAAA==")
    with pytest.raises(StageError, match="gs://shop/torn: crc32c does not match"):
        cloud_storage.read(cloud_storage.blob("gs://shop/torn"), 300)


def test_each_address_has_its_own_client_and_it_is_kept(bucket: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cloud_storage.client()
    assert cloud_storage.client() is first
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    assert cloud_storage.client() is not first
