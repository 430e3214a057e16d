"""Where the files of a dataset lie: a local folder or a Cloud Storage prefix, behind one small interface."""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol

from serving.platform.errors import StageError, one_line

GCS_SCHEME: Final = "gs://"
_PARALLEL_DOWNLOADS: Final = 32


class Store(Protocol):
    """Read access to a tree of files, by path relative to its root (with forward slashes)."""

    uri: str

    def paths(self) -> list[str]:
        """All files, sorted; hidden files and folders left out."""
        ...

    def read(self, paths: Sequence[str]) -> list[bytes]:
        """Contents in the order asked for."""
        ...

    def local(self, path: str) -> Path:
        """A file on the local disk with this content."""
        ...


class LocalStore:
    """A folder on this machine."""

    def __init__(self, root: Path) -> None:
        if not root.exists():
            raise StageError(f"{root}: no such folder; give the data folder, gs://BUCKET/PREFIX or hf://DATASET")
        if not root.is_dir():
            raise StageError(f"{root}: is a file; give the folder that holds the splits")
        self.root = root
        self.uri = str(root)

    def paths(self) -> list[str]:
        """All files, sorted; hidden files and folders left out."""
        found: list[str] = []
        for folder, folders, files in os.walk(self.root, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            relative = Path(folder).relative_to(self.root).as_posix()
            prefix = "" if relative == "." else f"{relative}/"
            found += [prefix + name for name in files if not name.startswith(".")]
        return sorted(found)

    def read(self, paths: Sequence[str]) -> list[bytes]:
        """Contents in the order asked for."""
        return [(self.root / path).read_bytes() for path in paths]

    def local(self, path: str) -> Path:
        """The file itself."""
        return self.root / path


class GcsStore:
    """A prefix in a Cloud Storage bucket; credentials and STORAGE_EMULATOR_HOST as google-cloud-storage reads them."""

    def __init__(self, uri: str) -> None:
        from google.cloud import storage

        bucket, _, prefix = uri.removeprefix(GCS_SCHEME).partition("/")
        if not bucket:
            raise StageError(f"{uri}: no bucket; write gs://BUCKET/PREFIX")
        self.uri = uri
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        self._scratch = tempfile.TemporaryDirectory(prefix="aidetect-gcs-")
        try:
            self._bucket: Any = storage.Client().bucket(bucket)
        except Exception as error:  # the client raises whatever its credential chain meets
            raise StageError(f"{uri}: no access to Cloud Storage ({one_line(error)})") from error

    def paths(self) -> list[str]:
        """All objects under the prefix, sorted; hidden ones and folder markers left out."""
        try:
            names = [blob.name.removeprefix(self._prefix) for blob in self._bucket.list_blobs(prefix=self._prefix)]
        except Exception as error:
            raise StageError(f"{self.uri}: cannot be listed ({one_line(error)})") from error
        return sorted(
            name for name in names if name and not name.endswith("/") and not any(p[:1] == "." for p in name.split("/"))
        )

    def read(self, paths: Sequence[str]) -> list[bytes]:
        """Contents in the order asked for, downloaded in parallel."""

        def download(path: str) -> bytes:
            try:
                return bytes(self._bucket.blob(self._prefix + path).download_as_bytes())
            except Exception as error:
                raise StageError(f"{self.uri}/{path}: cannot be downloaded ({one_line(error)})") from error

        with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
            return list(pool.map(download, paths))

    def local(self, path: str) -> Path:
        """The object as a file in a scratch folder that lives as long as this store."""
        target = Path(self._scratch.name) / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._bucket.blob(self._prefix + path).download_to_filename(str(target))
            except Exception as error:
                raise StageError(f"{self.uri}/{path}: cannot be downloaded ({one_line(error)})") from error
        return target
