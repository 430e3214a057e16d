"""Images in files of their own: class folders with or without splits."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Final

from components.artifacts.dataset import TRAIN
from components.verify_data.findings import Skipped
from components.verify_data.layout import BATCH_ROWS, FOLDER, Reading, how_to_cut, split_of
from components.verify_data.names import Names
from components.verify_data.rows import UNKNOWN_GENERATOR, Batch
from components.verify_data.skipped import shown
from components.verify_data.stores import Store
from serving.detector.image import HEAD_BYTES, kind_of
from serving.platform.errors import StageError

BATCH_BYTES: Final = 16 * 2**20

_IMAGE_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jfif .png .webp .gif .bmp .tif .tiff .avif .heic .heif".split()  # noqa: SIM905 - reads better so
)
"""What is an image by its name alone: told of as refused where its bytes are none. Other names are judged by bytes."""


class FileSource(ABC):
    """Images in files of their own, by split; what a path stands for is the subclass's to say."""

    def __init__(self, store: Store) -> None:
        self.uri = store.uri
        self._store = store
        self._images: dict[str, Names] = {}

    @abstractmethod
    def _meaning(self, path: str) -> tuple[int, str, str]:
        """Class id, generator and source of an image."""

    def _skips(self, path: str, data: bytes | None = None) -> bool:
        """Whether a file is no picture, neither by its name nor by its bytes; then it is told of as skipped."""
        if PurePosixPath(path).suffix.lower() in _IMAGE_SUFFIXES:
            return False
        if data is None:
            (data,) = self._store.read([path], HEAD_BYTES)
        kind = kind_of(data) if data is not None else None
        if kind is not None and kind.picture:
            return False
        if kind is not None:
            self._store.skipped.add(path, kind.name)
        return True

    @property
    def skipped(self) -> list[Skipped]:
        """What is no image, as far as it was read."""
        return self._store.skipped.found()

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the source brings."""
        return tuple(self._images)

    @property
    def rows(self) -> int | None:
        """Number of images."""
        return sum(map(len, self._images.values()))

    def batches(self, split: str) -> Iterator[Batch]:
        """Images of a split by path."""
        images, size = iter(self._images[split]), 16
        while paths := list(islice(images, size)):
            read = zip(paths, self._store.read(paths), strict=True)
            kept = [(path, data) for path, data in read if data is not None and not self._skips(path, data)]
            if not kept:
                continue
            meanings = [self._meaning(path) for path, _ in kept]
            yield Batch(
                split=split,
                names=[shown(path) for path, _ in kept],
                data=[data for _, data in kept],
                labels=[label for label, _, _ in meanings],
                generators=[shown(generator) for _, generator, _ in meanings],
                sources=[shown(source) for _, _, source in meanings],
            )
            size = rows_within_budget(sum(len(data) for _, data in kept) / len(kept))


class FolderSource(FileSource):
    """`{split}/{class}/**/image` with any known class name; of what will be cut also `**/{class}/**/image`."""

    def __init__(self, store: Store, paths: Iterable[str], reading: Reading) -> None:
        super().__init__(store)
        self._classes = reading.classes
        self._by_folder = reading.source == FOLDER
        if reading.column and not self._by_folder:
            raise StageError(f"{self.uri}: a folder has no column {reading.source!r}; write --source {FOLDER}")
        self._heap = not any(split_of(path.split("/")[0]) and path.count("/") > 1 for path in paths)
        unknown: dict[str, str] = {}
        for path in paths:
            folders = path.split("/")[:-1]
            split = TRAIN if self._heap else split_of(folders[0]) if len(folders) > 1 else None
            known = self._class_folder(folders) is not None
            if (split is None or not known) and self._skips(path):
                continue
            if split is None or (self._heap and len(folders) > 1 and split_of(folders[1])):
                raise StageError(
                    f"{self.uri}/{shown(path)}: images belong in {{train,val,test}}/{{real,ai_generated}}/"
                    + _nested_hint(self.uri, folders)
                )
            if not known:
                unknown.setdefault("/".join(folders[: 1 if self._heap else 2]), path)
            self._images.setdefault(split, Names()).add(path)
        self._refuse(unknown, reading)

    def _refuse(self, unknown: dict[str, str], reading: Reading) -> None:
        """Say what keeps the folder from being a dataset, if anything; `unknown`: no class folder -> an image in it."""
        if not self._images:
            raise StageError(f"{self.uri}: no images there; expected {{train,val,test}}/{{real,ai_generated}}/*.jpg")
        names = list(dict.fromkeys(shown(place.rsplit("/", 1)[-1]) for place in unknown if place))
        if self._heap and reading.cut.test is None:
            raise StageError(f"{self.uri}: brings no splits; cut them: {how_to_cut(self.uri, names)}")
        if "" in unknown:
            above, name = self.uri.rstrip("/").rpartition("/")[::2]
            hint = f"; did you mean {above}?" if above and self._classes.knows(name) else ""
            raise StageError(
                f"{self.uri}/{shown(unknown[''])}: lies in no class folder; put each image into a folder that is named "
                f"for its class{hint}"
            )
        if unknown:
            raise StageError(f"{self.uri}/{shown(next(iter(unknown)))}: {self._classes.unknown(names)}")

    def _class_folder(self, folders: Sequence[str]) -> int | None:
        """Which of an image's folders names its class; None when none does.

        Raises:
            StageError: two of them name different classes.
        """
        places = range(len(folders)) if self._heap else range(1, min(2, len(folders)))
        named = [place for place in places if self._classes.knows(folders[place])]
        if len({self._classes.id(folders[place]) for place in named}) > 1:
            raise StageError(
                f"{self.uri}/{shown('/'.join(folders))}: is named for both classes; rename one of the folders"
            )
        return named[0] if named else None

    def _meaning(self, path: str) -> tuple[int, str, str]:
        folders = path.split("/")[:-1]
        place = self._class_folder(folders) or 0
        # a folder below the class folder names the generator (or camera): `train/ai_generated/sdxl/1.jpg`
        generator = folders[place + 1] if len(folders) > place + 1 else UNKNOWN_GENERATOR
        return self._classes.id(folders[place]), generator, "/".join(folders) if self._by_folder else ""


def rows_within_budget(row_bytes: float) -> int:
    """How many rows a batch holds, so that big photographs do not make big batches."""
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max(1.0, row_bytes))))


def _nested_hint(uri: str, folders: Sequence[str]) -> str:
    if len(folders) > 1 and split_of(folders[1]) is not None:
        return f"; did you mean {uri.rstrip('/')}/{shown(folders[0])}?"
    return ""
