"""The pictures the load tests send."""

from pathlib import Path

from tests.bundles import jpeg

SIZES = {"small": (224, 224), "large": (1024, 768)}
"""Name -> width and height in pixels."""


def write_pictures(folder: Path) -> dict[str, Path]:
    """A JPEG of each size in `folder`."""
    found = {}
    for name, size in SIZES.items():
        found[name] = folder / f"{name}.jpg"
        found[name].write_bytes(jpeg(160, size))
    return found
