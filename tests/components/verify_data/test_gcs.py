"""gs:// through the real google-cloud-storage client: against a small server here, against the emulator in `system`."""

import io
import json
import subprocess
import tempfile
import threading
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow.parquet as pq
import pytest

from components.verify_data.config import VerifyDataConfig
from components.verify_data.sources import open_source
from components.verify_data.stage import verify
from serving.platform.errors import StageError
from tests.components.verify_data.conftest import ROWS, write_folder
from tests.fakes.gcs import FakeGcs
from tests.fakes.loopback import LoopbackServer

BUCKET = "photos"


class _Objects(BaseHTTPRequestHandler):
    """List and media download of the Cloud Storage JSON API, pages of 50 objects, over `server.objects`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        objects: dict[str, bytes] = self.server.objects  # type: ignore[attr-defined]  # set by the fixture
        if url.path == f"/storage/v1/b/{BUCKET}/o":
            names = sorted(name for name in objects if name.startswith(query.get("prefix", "")))
            start = int(query.get("pageToken", 0))
            page = {
                "kind": "storage#objects",
                "items": [{"name": name, "bucket": BUCKET} for name in names[start : start + 50]],
            }
            if start + 50 < len(names):
                page["nextPageToken"] = str(start + 50)
            return self._answer(200, json.dumps(page).encode(), "application/json")
        name = unquote(url.path.partition(f"/b/{BUCKET}/o/")[2])
        if name in objects:
            return self._answer(200, objects[name], "application/octet-stream")
        return self._answer(404, b'{"error": {"code": 404, "message": "not found"}}', "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The bucket's content; the client finds the server through STORAGE_EMULATOR_HOST."""
    server = LoopbackServer(_Objects)
    content: dict[str, bytes] = {}
    server.objects = content  # type: ignore[attr-defined]  # read by the handler
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    yield content
    server.shutdown()
    server.server_close()
    thread.join(60)


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_in_a_bucket_is_the_folder_on_disk(folder: Path, objects: dict[str, bytes]) -> None:
    objects.update({f"shop/v1/{name}": data for name, data in _files(folder).items()})
    objects["shop/v1/"] = b""
    objects["shop/v1/.DS_Store"] = b"x"
    objects["elsewhere/photo.jpg"] = b"x"
    findings, summary = verify(f"gs://{BUCKET}/shop/v1/", VerifyDataConfig())
    assert findings.problems == []
    local = verify(str(folder), VerifyDataConfig())[1]
    assert summary.fingerprint == local.fingerprint
    assert findings.splits["train"].rows == 2 * ROWS["train"]


def test_shards_in_a_bucket_are_on_this_disk_one_at_a_time(
    sample_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pq.read_table(sample_dir / "val.parquet")
    bucket = FakeGcs()
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        for number in range(4):
            shard = io.BytesIO()
            pq.write_table(rows.slice(number * 160, 160), shard)
            bucket.put(f"gs://photos/sample/train-{number:05d}-of-00004.parquet", shard.getvalue())
        bucket.put("gs://photos/sample/test.parquet", (sample_dir / "test.parquet").read_bytes())
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        source = open_source("gs://photos/sample")
        # that much is known from the files' ends alone
        assert source.rows == 1840 and not list(tmp_path.iterdir())
        held = [len(list(tmp_path.glob("*/object"))) for _ in source.batches("train")]
        assert len(held) >= 4 and set(held) == {1} and not list(tmp_path.iterdir())
        _, summary = verify("gs://photos/sample", VerifyDataConfig())
        assert {name: split.rows for name, split in summary.splits.items()} == {"train": 576, "val": 64, "test": 1200}
        bucket.put("gs://photos/sample/train-00002-of-00004.parquet", b"PAR1 no more")
        with pytest.raises(StageError, match=r"train-00002-of-00004\.parquet: not a readable Parquet file"):
            open_source("gs://photos/sample")
    finally:
        bucket.close()


def test_a_damaged_object_is_named(folder: Path, objects: dict[str, bytes]) -> None:
    objects.update(_files(folder))
    objects["test/real/004.jpg"] = objects["test/real/004.jpg"][:300]
    findings, _ = verify(f"gs://{BUCKET}", VerifyDataConfig())
    assert [offender.name for offender in findings.offenders] == ["test/real/004.jpg"]


def test_an_empty_prefix_and_a_missing_bucket_are_one_line(objects: dict[str, bytes]) -> None:
    with pytest.raises(StageError, match=f"gs://{BUCKET}/nothing: no files there"):
        verify(f"gs://{BUCKET}/nothing", VerifyDataConfig())
    with pytest.raises(StageError, match=r"gs://other/x: cannot be listed \(404"):
        verify("gs://other/x", VerifyDataConfig())


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """gcp-storage-emulator in a virtual environment of its own: its pins do not agree with ours."""
    root = tmp_path_factory.mktemp("emulator")
    venv.create(root / "venv", with_pip=True)
    python = root / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "gcp-storage-emulator"], check=True, timeout=300)
    code = (
        "import sys, time; from gcp_storage_emulator.server import create_server\n"
        "s = create_server('127.0.0.1', 0, in_memory=True); s.start()\n"
        "print(s._api._httpd.server_port, flush=True)\n"
        "sys.stdin.read(); s.stop()\n"
    )
    with subprocess.Popen([python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.communicate("", timeout=20)


@pytest.mark.system
def test_the_emulator_agrees(emulator: str, sample_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.cloud import storage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    folder = write_folder(tmp_path / "data", sample_dir)
    bucket = storage.Client().create_bucket("emulated")
    for name, data in _files(folder).items():
        bucket.blob(f"in/{name}").upload_from_string(data)
    summary = verify("gs://emulated/in", VerifyDataConfig())[1]
    assert summary.fingerprint == verify(str(folder), VerifyDataConfig())[1].fingerprint
