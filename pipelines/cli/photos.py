"""Photo files named on the command line, read under the server's limits."""

import stat
from pathlib import Path

from serving.detector.image import ImageLimits
from serving.platform.errors import ImageRefusedError


def read_photo(path: Path) -> bytes:
    """A file's bytes, one more than the limit at most; a pipe or device is not waited for.

    Raises:
        ImageRefusedError: larger than the server takes, or empty.
        OSError: missing, unreadable or no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        kind = "a folder" if path.is_dir() else "no regular file"
        raise OSError(0, f"is {kind}; name photo files")
    with path.open("rb") as file:
        data = file.read(ImageLimits.max_bytes + 1)
    ImageLimits().check_bytes(len(data))
    return data


def refusal_of(error: OSError | ImageRefusedError) -> dict[str, str]:
    """Why a file has no verdict, for programs and for people."""
    from serving.detector.image import REASONS

    if isinstance(error, ImageRefusedError):
        return {"reason": error.reason, "detail": str(error), "advice": REASONS[error.reason].seller}
    return {"reason": "unreadable", "detail": error.strerror or str(error)}
