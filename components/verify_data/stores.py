"""Where the files of a dataset lie: a local folder or a Cloud Storage prefix, behind one small interface."""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from components.verify_data.names import Names, sorted_names
from components.verify_data.skipped import UNREADABLE, SkipList, shown
from serving.detector.image import ImageLimits
from serving.platform.cloud_storage import client, read, split
from serving.platform.errors import StageError, one_line, system_error

_OF_A_SYSTEM: Final = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"})
"""Folders that archives of macOS, network disks and Windows leave beside photos: thumbnails and deleted files."""
_PARALLEL_DOWNLOADS: Final = 32
_FOOTER_BYTES: Final = 2**18
"""Read of an object at a time where only its end is wanted; what Google's client takes is a multiple of this."""


class Store(Protocol):
    """Read access to a tree of files, by path relative to its root (with forward slashes)."""

    uri: str
    skipped: SkipList
    """What `paths` and `read` left out."""

    def paths(self) -> Names:
        """All files, sorted; hidden files and folders left out."""
        ...

    def read(self, paths: Sequence[str], most_bytes: int = ImageLimits.max_bytes + 1) -> list[bytes | None]:
        """Contents in the order asked for, cut at `most_bytes`; None for what cannot be read (it is in `skipped`)."""
        ...

    def parquet_rows(self, paths: Sequence[str]) -> list[int]:
        """Rows of Parquet files, in the order asked for; only their ends are read.

        Raises:
            StageError: one is not a Parquet file, or cannot be read.
        """
        ...

    def on_disk(self, path: str) -> AbstractContextManager[Path]:
        """A file on the local disk with this content, while it is used."""
        ...


class LocalStore:
    """A folder on this machine."""

    def __init__(self, root: Path) -> None:
        if not root.exists():
            raise StageError(f"{root}: no such folder; give the data folder, gs://BUCKET/PREFIX or hf://DATASET")
        if not root.is_dir():
            raise StageError(f"{root}: is a file; give the folder that holds the splits")
        self.root = root
        self.uri = shown(str(root))
        self.skipped = SkipList()

    def paths(self) -> Names:
        """All regular files, sorted; a folder that links lead to twice is read once."""
        return sorted_names(self._files())

    def _files(self) -> Iterator[str]:
        """Files of all folders, one folder after the other; what is left out is noted."""
        seen, ahead = {_identity(self.root)}, [""]
        while ahead:
            prefix, folders = ahead.pop(), list[str]()
            try:
                with os.scandir(self.root / prefix) as entries:
                    for entry in entries:
                        if _is_folder(entry):
                            folders.append(entry.name)
                        elif kind := "hidden file" if entry.name.startswith(".") else _special(Path(entry.path)):
                            self.skipped.add(prefix + entry.name, kind)
                        else:
                            yield prefix + entry.name
            except OSError as error:
                self._unreadable(error)
            ahead += reversed([f"{prefix}{name}/" for name in sorted(folders) if self._is_new(prefix, name, seen)])

    def _is_new(self, prefix: str, name: str, seen: set[tuple[int, int]]) -> bool:
        """Whether a folder is to be read; else it is noted."""
        if name.startswith("."):
            self.skipped.add(prefix + name, "hidden folder")
        elif name.lower() in _OF_A_SYSTEM:
            self.skipped.add(prefix + name, "system's folder")
        elif (identity := _identity(self.root / prefix / name)) in seen:
            self.skipped.add(prefix + name, "link to a folder that is read already")
        else:
            seen.add(identity)
            return True
        return False

    def _unreadable(self, error: OSError) -> None:
        name = os.path.relpath(str(error.filename), self.root)
        if name == ".":
            raise StageError(f"{self.uri}: {system_error(error)}") from error
        self.skipped.add(name, f"folder {UNREADABLE} ({error.strerror})")

    def read(self, paths: Sequence[str], most_bytes: int = ImageLimits.max_bytes + 1) -> list[bytes | None]:
        """Contents in the order asked for, cut at `most_bytes`; None for what cannot be read."""
        return [self._read(path, most_bytes) for path in paths]

    def _read(self, path: str, most_bytes: int) -> bytes | None:
        try:
            with (self.root / path).open("rb") as file:
                return file.read(most_bytes)
        except OSError as error:
            self.skipped.add(path, f"file {UNREADABLE} ({error.strerror})")
            return None

    def parquet_rows(self, paths: Sequence[str]) -> list[int]:
        """Rows of Parquet files, by their footers."""
        return [_rows_of(self.root / path, f"{self.uri}/{path}") for path in paths]

    def on_disk(self, path: str) -> AbstractContextManager[Path]:
        """The file itself."""
        return nullcontext(self.root / path)


class GcsStore:
    """A prefix in a Cloud Storage bucket; credentials and STORAGE_EMULATOR_HOST as google-cloud-storage reads them."""

    def __init__(self, uri: str) -> None:
        bucket, prefix = split(uri)
        self.uri = uri
        self.skipped = SkipList()
        self._prefix = f"{prefix}/" if prefix else ""
        try:
            self._bucket: Any = client().bucket(bucket)
        except Exception as error:  # the client raises whatever its credential chain meets
            raise StageError(f"{uri}: no access to Cloud Storage ({one_line(error)})") from error

    def paths(self) -> Names:
        """All objects under the prefix, sorted; hidden ones and folder markers left out."""
        try:
            found = self._bucket.list_blobs(prefix=self._prefix)
            names = (blob.name.removeprefix(self._prefix) for blob in found)
            return sorted_names(
                name
                for name in names
                if name and not name.endswith("/") and not any(part[:1] == "." for part in name.split("/"))
            )
        except Exception as error:
            raise StageError(f"{self.uri}: cannot be listed ({one_line(error)})") from error

    def read(self, paths: Sequence[str], most_bytes: int = ImageLimits.max_bytes + 1) -> list[bytes | None]:
        """Contents in the order asked for, cut at `most_bytes`, downloaded in parallel."""

        def download(path: str) -> bytes:
            try:
                content = read(self._bucket.blob(self._prefix + path), most_bytes)
            except Exception as error:
                raise StageError(f"{self.uri}/{path}: cannot be downloaded ({one_line(error)})") from error
            if content is None:
                raise StageError(f"{self.uri}/{path}: was listed and is gone")
            return content

        with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
            return list(pool.map(download, paths))

    def parquet_rows(self, paths: Sequence[str]) -> list[int]:
        """Rows of Parquet files, by their footers; several are asked at once."""

        def ask(path: str) -> int:
            try:
                with self._bucket.blob(self._prefix + path).open("rb", chunk_size=_FOOTER_BYTES) as file:
                    return _rows_of(file, f"{self.uri}/{path}")
            except StageError:
                raise
            except Exception as error:
                raise StageError(f"{self.uri}/{path}: cannot be read ({one_line(error)})") from error

        with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
            return list(pool.map(ask, paths))

    @contextmanager
    def on_disk(self, path: str) -> Iterator[Path]:
        """The object as a scratch file: one at a time, so that no disk has to hold a copy of all."""
        with tempfile.TemporaryDirectory(prefix="aidetect-gcs-") as scratch:
            target = Path(scratch) / "object"
            try:
                self._bucket.blob(self._prefix + path).download_to_filename(str(target))
            except Exception as error:
                raise StageError(f"{self.uri}/{path}: cannot be downloaded ({one_line(error)})") from error
            yield target


def _rows_of(file: Any, name: str) -> int:
    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise StageError(f"{name}: not a readable Parquet file ({str(error).splitlines()[0]})") from error


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _special(path: Path) -> str:
    """What a file is that cannot simply be read; empty for a regular one."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "link that leads nowhere"
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFBLK: "device", stat.S_IFCHR: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")
