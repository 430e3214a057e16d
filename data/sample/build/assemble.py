"""From scenes and what the generators made of them to the Parquet files of the sample, and what an audit says."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matching import Shots, match
from packages import PACKAGES, Pixels
from plan import UNSEEN, Scene
from sharpness import equalised

SCHEMA: Final = pa.schema(
    [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())]
    + [(name, pa.string()) for name in ("generator", "source", "pair_id", "package", "file", "license")]
)
"""`source` is the id of the source photograph, by the name that the product knows that column."""


def assemble(planned: list[Scene], scenes: Pixels, made: dict[str, Pixels], out: Path) -> None:
    """Make generated as sharp as photographs, send both through the camera, match them, write a file a split."""
    for split in dict.fromkeys(one.split for one in planned):
        rows = [row for row, one in enumerate(planned) if one.split == split]
        generated = np.stack([equalised(made[planned[row].pair_id], scenes[row]) for row in rows])
        mine = [planned[row] for row in rows]
        real, fake = Shots(np.asarray(scenes[rows]), 1), Shots(generated, 2)
        of_real, of_fake = match(real, fake, 3)
        found = [_row(one, fake.bodies[at][of_fake[at]], real=False) for at, one in enumerate(mine)]
        if split != UNSEEN:
            found += [_row(one, real.bodies[at][of_real[at]], real=True) for at, one in enumerate(mine)]
        order = np.random.default_rng(4).permutation(len(found))
        table = pa.Table.from_pylist([found[at] for at in order], SCHEMA)
        about = {"image": {"_type": "Image"}, "label": {"names": ["real", "ai_generated"], "_type": "ClassLabel"}}
        about |= {name: {"dtype": "string", "_type": "Value"} for name in SCHEMA.names[2:]}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": about}})})
        pq.write_table(table, out / f"{split}.parquet", compression="zstd")


def _row(one: Scene, body: bytes, *, real: bool) -> dict[str, Any]:
    photo = one.photo
    return {
        "image": {"bytes": body, "path": hashlib.sha256(body).hexdigest()[:16] + ".jpg"},
        "label": 0 if real else 1,
        "generator": "camera" if real else one.generator,
        "source": photo.source_id,
        "pair_id": one.pair_id,
        "package": f"deb:{photo.package}={PACKAGES[photo.package]}",
        "file": photo.file,
        "license": photo.license,
    }
