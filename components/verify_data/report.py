"""The data report: one HTML page that stands alone, pictures included."""

import random
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from components.artifacts.dataset import SPLITS
from components.verify_data.checks import Checked
from components.verify_data.findings import KINDS, TITLES, Findings, Offender
from components.verify_data.inspection import Inspection
from components.verify_data.rows import Batch
from components.verify_data.scratch import pieces, scratch
from serving.detector.image import decode
from serving.detector.labels import LABELS

OFFENDERS_SHOWN: Final = 500
_PICTURES: Final = 12
"""For each split and class."""
_PICTURE_PX: Final = 96
_STATISTICS: Final = {
    "width": "width, px",
    "height": "height, px",
    "encoded_bytes": "file size, bytes",
    "luma_quality": "JPEG quality, estimated",
    "brightness": "brightness, 0-255",
    "contrast": "contrast, levels",
    "sharpness": "sharpness, levels",
}


class Gallery:
    """Keeps a few random pictures of each split and class while the images pass (reservoir sampling)."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._seen: dict[tuple[str, int], int] = {}
        self.pictures: dict[tuple[str, int], list[tuple[str, bytes]]] = {}

    def add(self, batch: Batch, inspection: Inspection) -> None:
        """See one inspected batch."""
        readable = inspection.table.column("problem").is_null().to_pylist()
        for name, data, label, ok in zip(batch.names, batch.data, batch.labels, readable, strict=True):
            if not ok:
                continue
            key = (batch.split, label)
            seen = self._seen[key] = self._seen.get(key, 0) + 1
            kept = self.pictures.setdefault(key, [])
            if len(kept) < _PICTURES:
                kept.append((name, data))
            elif (place := self._random.randrange(seen)) < _PICTURES:
                kept[place] = (name, data)


def write_report(path: Path, uri: str, findings: Findings, checked: Checked, gallery: Gallery) -> None:
    """Write the page of a survey's findings, whether or not they stop the run."""
    from jinja2 import Environment, PackageLoader

    page = Environment(loader=PackageLoader("components.verify_data", "."), autoescape=True).get_template(
        "report.html.j2"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        page.render(
            uri=uri,
            findings=findings,
            labels=LABELS,
            kinds=[(kind, TITLES[kind], findings.count(kind)) for kind in KINDS],
            offenders=[
                (offender, [_thumbnail(checked, row) for row in _pair(offender)])
                for offender in findings.offenders[:OFFENDERS_SHOWN]
            ],
            statistics=_statistics(checked),
            formats=_formats(checked),
            pictures=[
                (split, LABELS[label], [(name, _picture(data)) for name, data in sorted(kept)])
                for (split, label), kept in sorted(gallery.pictures.items(), key=lambda item: _order(item[0]))
            ],
        ),
        encoding="utf-8",
    )


def _order(key: tuple[str, int]) -> tuple[int, int]:
    return SPLITS.index(key[0]), key[1]


def _picture(data: bytes) -> str:
    """A small PNG as a data URI; PNG, so that the report adds no artefacts of its own."""
    picture = decode(data, target_px=_PICTURE_PX).rgb
    picture.thumbnail((_PICTURE_PX, _PICTURE_PX))
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


def _pair(offender: Offender) -> list[int]:
    """Rows whose pictures are shown beside an offender's line: none for what does not decode."""
    return [] if offender.other is None else [offender.row, offender.other]


def _thumbnail(checked: Checked, row: int) -> str:
    buffer = BytesIO()
    Image.fromarray(checked.survey.thumbnails[row]).save(buffer, "PNG")
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


def _statistics(checked: Checked) -> list[dict[str, Any]]:
    """5th, 50th and 95th percentile of each measurement by class."""
    rows, labels = [], checked.survey.rows["label"]
    room = scratch(np.float64, checked.rows)
    for column, title in _STATISTICS.items():
        by_class = []
        for label in range(len(LABELS)):
            count = 0
            for piece in pieces(checked.rows):
                values = checked.survey.numbers(column, piece)
                known = values[(labels[piece] == label) & ~np.isnan(values)]
                room[count : count + len(known)] = known
                count += len(known)
            # sorted where they lie
            found = np.percentile(room[:count], [5, 50, 95], overwrite_input=True).tolist() if count else None
            by_class.append(found)
        rows.append({"title": title, "by_class": by_class})
    return rows


def _formats(checked: Checked) -> list[tuple[str, list[int]]]:
    """Images of each file type by class."""
    counts = checked.tally("format")
    return [(name, counts[:, i].tolist()) for i, name in enumerate(checked.survey.values["format"])]
