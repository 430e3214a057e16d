"""Archives that tests bring along, unpacked."""

import tarfile
from pathlib import Path


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive into a folder."""
    with tarfile.open(archive) as opened:
        # an argument only from Python 3.11.4 on, and asked for from 3.12 on
        opened.extraction_filter = getattr(tarfile, "data_filter", None)
        opened.extractall(folder)
