"""Photo files named on the command line, by themselves or by their folder, read under the server's limits."""

import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.detector.image import ImageLimits
from serving.platform.errors import ImageRefusedError, SourceError, system_error

if TYPE_CHECKING:
    from serving.detector.conclusion import Policy
    from serving.detector.detector import Detector, Judgement

MOST_IN_FOLDER: Final = 2000
"""Files of one folder whose verdicts are told on the screen; more are a catalogue."""


@dataclass(frozen=True)
class NamedPhoto:
    """A file to judge, and what the user knows it by."""

    name: str
    path: Path


def photos_in(paths: Sequence[Path]) -> Iterator[NamedPhoto]:
    """The files that are named, and every file below the folders that are, as `aidetect score` finds them.

    Raises:
        SourceError: a folder holds nothing, cannot be listed, or is a catalogue.
    """
    for path in paths:
        if path.is_dir():
            yield from _in_folder(path)
        else:
            yield NamedPhoto(writable_name(str(path)), path)


def _in_folder(folder: Path) -> Iterator[NamedPhoto]:
    from components.catalogue.folders import files_below

    shown, instead = (
        writable_name(str(folder)),
        f"score it with: aidetect score {writable_name(str(folder))} -o results",
    )
    found = list(islice(files_below(folder, None), MOST_IN_FOLDER + 1))
    if not found:
        raise SourceError(f"{shown}: no files there; name photos, or a folder of photos")
    if all(path.suffix.lower() == ".parquet" for path, _ in found):
        raise SourceError(f"{shown}: holds Parquet files, not photos; {instead}")
    if len(found) > MOST_IN_FOLDER:
        raise SourceError(f"{shown}: holds more than {MOST_IN_FOLDER:,} files; {instead}")
    for path, name in found:
        yield NamedPhoto(f"{shown.rstrip('/')}/{writable_name(name)}", path)


def judge_all(
    detector: "Detector", policy: "Policy", photos: Sequence[NamedPhoto], workers: int
) -> Iterator[tuple[NamedPhoto, "Judgement | ImageRefusedError | OSError"]]:
    """Each photo with its judgement or why it has none, in order, as soon as it is there; several at once.

    Args:
        detector: one for all; its engine may be asked by many threads.
        policy: how to decide.
        photos: what to judge.
        workers: threads; decoding and the engine let go of the interpreter.
    """

    def judge(photo: NamedPhoto) -> "Judgement | ImageRefusedError | OSError":
        try:
            return detector.judge(read_photo(photo.path), policy=policy)
        except (OSError, ImageRefusedError) as error:
            return error

    pool = ThreadPoolExecutor(max(1, min(workers, len(photos))))
    try:
        yield from zip(photos, pool.map(judge, photos), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def writable_name(name: str) -> str:
    """A name as text; one that is not UTF-8 with escapes, so that it can be printed."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_photo(path: Path, max_bytes: int = ImageLimits.max_bytes) -> bytes:
    """A file's bytes, one more than the limit at most; a pipe or device is not waited for.

    Raises:
        ImageRefusedError: larger than the limit (the server's, if none is given), or empty.
        OSError: missing, unreadable or no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        kind = "a folder" if path.is_dir() else "no regular file"
        raise OSError(0, f"is {kind}; name photo files")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    ImageLimits(max_bytes=max_bytes).check_bytes(len(data))
    return data


def refusal_of(error: OSError | ImageRefusedError) -> dict[str, str]:
    """Why a file has no verdict, for programs and for people."""
    from serving.detector.image import REASONS

    if isinstance(error, ImageRefusedError):
        return {"reason": error.reason, "detail": str(error), "advice": REASONS[error.reason].seller}
    return {"reason": "unreadable", "detail": system_error(error)}
