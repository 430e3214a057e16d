"""Is this the sample shipped with the project? Its figures must never be taken for those of a product."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

CAVEAT: Final = (
    "These figures come from the small sample shipped with the project. They prove that the machinery works; "
    "this model is not a detector for shop photos."
)

_FOLDERS: Final = (("data", "sample"), ("sample_cifake32",))
_GENERATORS: Final = frozenset({"vae_f4_recon", "ldm_uncond", "ldm_img2img", "ldm_vae_recon"})
"""Small models trained for it, and for the 64 px sample of before, made these, so no other data set names them."""


def caveat(source_uri: str, generators: Iterable[str]) -> str:
    """What a reader has to be told beside the figures; empty when the images are not those of the sample.

    Args:
        source_uri: where verify_data read the images.
        generators: values of the generator column; they stay with the images when the sample is copied.
    """
    parts = PurePosixPath(source_uri.rstrip("/")).parts
    by_place = any(parts[-len(folder) :] == folder for folder in _FOLDERS)
    return CAVEAT if by_place or not _GENERATORS.isdisjoint(generators) else ""
