"""Where models come from: a folder, Cloud Storage, MLflow; downloads whole or not at all."""

import base64
import json
import shutil
import threading
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import google_crc32c
import pytest

from serving.detector.bundle import read_manifest, verify
from serving.platform import cloud_storage
from serving.platform.errors import BundleError, ModelNotFoundError
from serving.registry import resolve

NAME = "ai-product-photo-detector"


class Bucket(ThreadingHTTPServer):
    """Cloud Storage's JSON API on loopback, as far as reading a folder goes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _BucketHandler)
        self.objects: dict[str, bytes] = {}
        self.downloads: list[str] = []
        self.cut = False


class _BucketHandler(BaseHTTPRequestHandler):
    server: Bucket

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path.endswith("/o"):
            found = [self._describe(n) for n in sorted(self.server.objects) if n.startswith(query.get("prefix", ""))]
            self._send(json.dumps({"kind": "storage#objects", "items": found}).encode())
            return
        if "/o/" not in url.path:
            self._send(b'{"kind": "storage#bucket", "name": "b"}')
            return
        name = urllib.parse.unquote(url.path.rpartition("/o/")[2])
        self.server.downloads.append(name)
        data = self.server.objects[name]
        described = self._describe(name)
        self._send(data[: len(data) // 2] if self.server.cut else data, crc32c=described["crc32c"])

    def _describe(self, name: str) -> dict[str, str]:
        data = self.server.objects[name]
        crc = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
        generation = str(int.from_bytes(google_crc32c.Checksum(data).digest(), "big") + 1)
        return {"name": name, "bucket": "b", "generation": generation, "crc32c": crc, "size": str(len(data))}

    def _send(self, body: bytes, crc32c: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if crc32c:
            self.send_header("X-Goog-Hash", f"crc32c={crc32c}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bucket(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    server = Bucket()
    for path in toy_bundle.rglob("*"):
        if path.is_file():
            server.objects[f"models/7/{path.relative_to(toy_bundle).as_posix()}"] = path.read_bytes()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def leftovers(cache: Path) -> list[Path]:
    return list(cache.rglob(".partial-*"))


def test_a_folder_goes_by_its_digest(toy_bundle: Path, tmp_path: Path) -> None:
    found = resolve(str(toy_bundle), tmp_path)
    assert found.version == read_manifest(toy_bundle).digest[:12]
    assert resolve(f"file://{toy_bundle}", tmp_path).folder == found.folder


def test_cloud_storage_is_downloaded_once_and_verified(bucket: Bucket, toy_bundle: Path, tmp_path: Path) -> None:
    first = resolve("gs://b/models/7", tmp_path)
    count = len(bucket.downloads)
    assert verify(first.folder).digest == read_manifest(toy_bundle).digest
    assert resolve("gs://b/models/7/", tmp_path).folder.parent == first.folder.parent
    assert resolve("gs://b/models/7", tmp_path) == first
    assert count == len(bucket.objects)
    assert not leftovers(tmp_path)


def test_a_damaged_cache_is_replaced(bucket: Bucket, tmp_path: Path) -> None:
    first = resolve("gs://b/models/7", tmp_path)
    (first.folder / "model.onnx").write_bytes(b"rot")
    verify(resolve("gs://b/models/7", tmp_path).folder)


def test_a_download_that_ends_early_leaves_nothing(bucket: Bucket, tmp_path: Path) -> None:
    bucket.cut = True
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        resolve("gs://b/models/7", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    bucket.cut = False
    verify(resolve("gs://b/models/7", tmp_path).folder)


def test_a_tampered_object_is_no_model(bucket: Bucket, tmp_path: Path) -> None:
    bucket.objects["models/7/model.onnx"] += b"!"
    with pytest.raises(BundleError, match=r"model\.onnx"):
        resolve("gs://b/models/7", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_racing_processes_share_one_whole_copy(bucket: Bucket, tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: resolve("gs://b/models/7", tmp_path), range(6)))
    assert len({model.folder for model in found}) == 1
    verify(found[0].folder)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(("files", "size"), [(3, 10**6), (10**6, 10**3)])
def test_a_folder_that_is_no_model_is_not_downloaded(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, size: int
) -> None:
    monkeypatch.setattr(cloud_storage, "MOST_FILES", files)
    monkeypatch.setattr(cloud_storage, "MOST_BYTES", size)
    with pytest.raises(ModelNotFoundError, match=r"more than a model does .* name the folder of one bundle") as caught:
        resolve("gs://b/models/7", tmp_path)
    assert "\n" not in str(caught.value)
    assert bucket.downloads == []


def test_an_empty_folder_is_named(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="gs://b/models/8"):
        resolve("gs://b/models/8", tmp_path)


def register(tracking_uri: str, bundle: Path, artifacts: str | None, alias: str) -> str:
    """Register a bundle as the register stage lays it out; returns the version."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri, tracking_uri)
    experiment = client.get_experiment_by_name("e")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("e", artifacts)
    run = client.create_run(experiment_id)
    client.log_artifacts(run.info.run_id, str(bundle), "bundle")
    if not client.search_registered_models(f"name='{NAME}'"):
        client.create_registered_model(NAME)
    made = client.create_model_version(
        NAME, f"runs:/{run.info.run_id}/bundle", run.info.run_id, {"digest": read_manifest(bundle).digest}
    )
    client.set_registered_model_alias(NAME, alias, made.version)
    return str(made.version)


def test_mlflow_on_sqlite(toy_bundle: Path, inverted_bundle: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    cache = tmp_path / "cache"
    first = register(uri, toy_bundle, (tmp_path / "artifacts").as_uri(), "champion")
    assert resolve(f"models:/{NAME}@champion", cache, uri).version == first == "1"
    second = register(uri, inverted_bundle, None, "champion")
    found = resolve(f"models:/{NAME}@champion", cache, uri)
    assert found.version == second == "2"
    assert verify(found.folder).digest == read_manifest(inverted_bundle).digest
    older = resolve(f"models:/{NAME}/1", cache, uri)
    assert verify(older.folder).digest == read_manifest(toy_bundle).digest
    for missing in (f"models:/{NAME}@nobody", f"models:/{NAME}/9", "models:/other@champion", f"models:/{NAME}"):
        with pytest.raises(ModelNotFoundError, match="models:/"):
            resolve(missing, cache, uri)
    # the same name and number in another registry is another model
    shutil.rmtree(tmp_path / "artifacts")
    elsewhere = f"sqlite:///{tmp_path}/other.db"
    register(elsewhere, inverted_bundle, (tmp_path / "more").as_uri(), "champion")
    other = resolve(f"models:/{NAME}/1", cache, elsewhere)
    assert read_manifest(other.folder).digest == read_manifest(inverted_bundle).digest


def test_a_registry_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such file"):
        resolve(f"models:/{NAME}@champion", tmp_path, f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
