"""The free Debian packages the photographs come from, by name and version, and how they get here."""

import csv
import io
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from rcc import entries

HERE: Final = Path(__file__).parent
PACKAGES: Final = {
    "gcompris-qt-data": "3.1-2",
    "lomiri-wallpapers-16.04": "20.04.0-2",
    "mate-backgrounds": "1.26.0-1",
    "palapeli-data": "4:22.12.3-1",
    "plasma-workspace-wallpapers": "4:5.27.5-2",
    "tuxpaint-stamps-default": "2022.06.04-1",
}
LONGEST_PX: Final = 1024
"""Photographs are brought down to this side at once: no tile needs more."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Photograph:
    """One line of photographs.csv: who made it available, under which licence, and what it shows."""

    source_id: str
    package: str
    file: str
    license: str
    kind: str
    """`photo`: a rectangle; `cutout`: an object with a transparent surround."""
    product: bool
    """Something that a shop would sell, on its own."""


def photographs() -> list[Photograph]:
    """The photographs chosen by eye from the packages, in the order of their ids."""
    with (HERE / "photographs.csv").open(encoding="utf-8", newline="") as lines:
        return [Photograph(**{**row, "product": row["product"] == "1"}) for row in csv.DictReader(lines)]


def fetch(folder: Path) -> None:
    """Download and unpack what is not there yet; needs apt-get and dpkg-deb, no rights beyond the folder's.

    Raises:
        subprocess.CalledProcessError: when the archive no longer has a package in the version named here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in PACKAGES.items():
        if (folder / name).is_dir():
            continue
        subprocess.run(["apt-get", "download", f"{name}={version}"], cwd=folder, check=True)
        (archive,) = folder.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, folder / name], check=True)


def pictures(folder: Path, wanted: list[Photograph]) -> Iterator[tuple[Photograph, Pixels]]:
    """Each photograph with its pixels, (h, w, 4) with opacity last, at most LONGEST_PX long; archive by archive."""
    opened: dict[str, dict[str, bytes]] = {}
    for photo in sorted(wanted, key=lambda one: (one.package, one.file)):
        archive, _, inside = photo.file.partition("!")
        path = folder / photo.package / archive
        if inside:
            if str(path) not in opened:
                opened = {str(path): dict(entries(path))}
            body = opened[str(path)][inside]
        else:
            body = path.read_bytes()
        image = Image.open(io.BytesIO(body))
        if image.format == "JPEG":
            image.draft("RGB", (LONGEST_PX, LONGEST_PX))
        image = image.convert("RGBA").convert("RGBa") if photo.kind == "cutout" else image.convert("RGB")
        image.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
        yield photo, np.asarray(image.convert("RGBA"))
