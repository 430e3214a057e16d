"""What a finished job found: figures for programs, and a page that stands alone for people."""

import heapq
import io
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from components.catalogue.destination import MOST_READ, Destination
from components.catalogue.plan import OWNER, Job, part_name
from components.catalogue.rows import WORKER_DIED
from serving.platform.errors import CatalogueError
from serving.platform.frozen import Frozen
from serving.platform.parquet import coded, weight

SUMMARY_FILE: Final = "summary.json"
PAGE_FILE: Final = "summary.html"
SHOWN: Final = 24
"""Photos in each list of the page."""
_THUMBNAIL_PX: Final = 128
_COLUMNS: Final = ["id", "uri", "decision", "prediction", "probability", "provenance", "refused_reason", "seconds"]

Reader = Callable[[int, int], bytes | None]
"""Encoded bytes of a photo by its shard and its place in it; None where they cannot be had again."""


class Listed(Frozen):
    """A photo that the page names."""

    shard: int
    place: int
    id: str
    uri: str
    probability: float | None
    seconds: float
    decision: str


class Summary(Frozen):
    """Figures over all rows of a job."""

    photos: int
    planned_at: str = ""
    """When the photos were listed; what came later is not among them."""
    scored: int
    refused: int
    decisions: dict[str, int]
    predictions: dict[str, int]
    refusals: dict[str, int]
    declared: dict[str, int]
    """Scored photos by what their files say of themselves."""
    worker_died: int
    cpu_seconds: float
    """Sum of the rows' seconds of decoding and scoring."""
    most_suspicious: list[Listed]
    slowest: list[Listed]


def summarise(destination: Destination, job: Job) -> Summary:
    """Read every part once; memory holds one part.

    Raises:
        CatalogueError: a part is missing or damaged, or the rows are not those that were planned.
    """
    decisions, predictions, refusals, declared = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    photos, seconds = 0, 0.0
    suspicious: list[tuple[float, int, Listed]] = []
    slow: list[tuple[float, int, Listed]] = []
    for shard in range(job.shards):
        for place, row in enumerate(_part(destination, job, shard)):
            photos += 1
            row |= {"shard": shard, "place": place}
            seconds += row["seconds"] or 0.0
            if row["refused_reason"] is not None:
                refusals[row["refused_reason"]] += 1
            else:
                decisions[row["decision"] or row["prediction"]] += 1
                predictions[row["prediction"]] += 1
                declared[(row["provenance"] or {}).get("declared") or "none"] += 1
                _keep(suspicious, row["probability"], photos, row)
            _keep(slow, row["seconds"] or 0.0, photos, row)
    if photos != job.photos:
        raise CatalogueError(f"{destination.uri}: {photos} rows of {job.photos} planned; parts were changed by hand")
    return Summary(
        photos=photos,
        planned_at=job.created_at,
        scored=sum(predictions.values()),
        refused=sum(refusals.values()),
        decisions=dict(decisions.most_common()),
        predictions=dict(predictions.most_common()),
        refusals=dict(refusals.most_common()),
        declared=dict(declared.most_common()),
        worker_died=refusals[WORKER_DIED],
        cpu_seconds=round(seconds, 3),
        most_suspicious=[listed for _, _, listed in sorted(suspicious, key=lambda kept: -kept[0])],
        slowest=[listed for _, _, listed in sorted(slow, key=lambda kept: -kept[0])],
    )


def _part(destination: Destination, job: Job, shard: int) -> list[dict[str, Any]]:
    name = part_name(shard)
    content = destination.read(name)
    if content is None:
        raise CatalogueError(f"{destination.uri}/{name}: not scored yet; run the same command again")
    try:
        texts = coded(pq.read_schema(pa.BufferReader(content)), _COLUMNS)
        with pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts) as file:
            owner = (file.schema_arrow.metadata or {}).get(OWNER.encode(), b"").decode("latin-1")
            if owner != job.identity or file.metadata.num_rows > job.shard_photos:
                raise CatalogueError(
                    f"{destination.uri}/{name}: rows of another job; delete it and run the same command again"
                )
            rows = file.read(columns=_COLUMNS, use_threads=False)
            if weight(rows) > MOST_READ:
                raise CatalogueError(f"{destination.uri}/{name}: rows of more than {MOST_READ >> 20:,} MiB; delete it")
            return list(rows.to_pylist())
    except pa.ArrowException as error:
        raise CatalogueError(f"{destination.uri}/{name}: damaged; delete it and run the same command again") from error


def _keep(heap: list[tuple[float, int, Listed]], key: float, number: int, row: dict[str, Any]) -> None:
    if len(heap) == SHOWN and key <= heap[0][0]:
        return
    listed = Listed(
        shard=row["shard"],
        place=row["place"],
        id=row["id"],
        uri=row["uri"],
        probability=row["probability"],
        seconds=row["seconds"] or 0.0,
        decision=row["decision"] or row["prediction"] or row["refused_reason"],
    )
    push = heapq.heappush if len(heap) < SHOWN else heapq.heappushpop
    # the earlier photo wins among equals, so that a rerun shows the same page
    push(heap, (key, -number, listed))


def write_summary(destination: Destination, job: Job, read: Reader) -> Summary:
    """Write `summary.json` and `summary.html` (with thumbnails of what `read` gives again); returns the figures.

    Raises:
        CatalogueError: see `summarise`.
    """
    from jinja2 import Environment, PackageLoader

    summary = summarise(destination, job)
    destination.commit(SUMMARY_FILE, summary.model_dump_json(indent=1).encode(), replace=True)
    page = Environment(loader=PackageLoader("components.catalogue", "."), autoescape=True)
    pictures = [thumbnail(read(listed.shard, listed.place)) for listed in summary.most_suspicious]
    html = page.get_template("summary.html.j2").render(job=job, summary=summary, pictures=pictures)
    destination.commit(PAGE_FILE, html.encode(), replace=True)
    return summary


def thumbnail(data: bytes | None) -> str:
    """A small JPEG as a `data:` address; empty where the photo cannot be had or decoded again."""
    from serving.detector.image import decode
    from serving.platform.errors import ImageRefusedError

    if data is None:
        return ""
    try:
        picture = decode(data, target_px=_THUMBNAIL_PX).rgb
    except ImageRefusedError:
        return ""
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BILINEAR)
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(sink.getvalue()).decode()}"
