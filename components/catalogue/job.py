"""The job: plan once, score what has no part yet, commit each shard whole."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow.parquet as pq

from components.catalogue.config import OF_THE_MODEL, CatalogueConfig
from components.catalogue.destination import PARTS, Destination
from components.catalogue.entries import Entry
from components.catalogue.executor import Executor, Shard, score_shards
from components.catalogue.plan import GROUP_SHARDS, OWNER, Job, part_name, read_group, read_job, write_plan
from components.catalogue.rows import Row, table_of
from components.catalogue.scoring import Work
from serving.detector.bundle import Manifest
from serving.platform.errors import CatalogueError

Listener = Callable[[int, int], None]
"""Told of photos done and photos in all."""


def begin(
    destination: Destination,
    source: str,
    manifest: Manifest,
    work: Work,
    entries: Callable[[], Iterator[Entry]],
    content: str = "",
) -> Job:
    """The destination's job: the one it was begun for, or a new one.

    Args:
        destination: place of the results.
        source: what is scored.
        manifest: of the model.
        work: how.
        entries: the source's photos, asked for where there is no plan yet.
        content: hash of what the source holds now, where it is a file.

    Raises:
        CatalogueError: it holds another job's results, those of what the source held before, or files that are none
            of ours.
        SourceError: the source cannot be read.
    """
    job = _new(source, manifest, work, content)
    found = read_job(destination)
    if found is None:
        if destination.names(PARTS):
            raise CatalogueError(f"{destination.uri}: holds parts but no job; name an empty folder")
        begun = write_plan(destination, entries(), job)
        if begun is not None:
            return begun
        # of two of the same work that began at once, both go on with the plan of the first
        found = read_job(destination)
    if found is None:
        raise CatalogueError(f"{destination.uri}: the job that began there was deleted; run the same command again")
    if not found.same_work(job):
        raise CatalogueError(
            f"{destination.uri}: holds the results of another job ({found.source}, model version "
            f"{found.model_version}, shards of {found.shard_photos}); name another folder"
        )
    if content and found.content not in ("", content):
        raise CatalogueError(
            f"{source}: has changed since {found.created_at}, when this job was planned; for what it holds now name "
            f"another folder than {destination.uri}"
        )
    return found


def _new(source: str, manifest: Manifest, work: Work, content: str) -> Job:
    """The job before its photos are counted."""
    rule, config = manifest.decision, work.config
    return Job(
        source=source,
        model_version=work.model_version,
        model_digest=manifest.digest,
        shard_photos=config.shard_photos,
        photos=0,
        shards=0,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        settings={
            "threshold": rule.threshold,
            "columns": ",".join(config.columns),
            "id_column": config.id_column,
            "max_file_bytes": config.max_file_bytes,
            **_decides(config),
        },
        content=content,
    )


def _decides(config: CatalogueConfig) -> dict[str, float | str]:
    """What a job decides by where that is not the model's own; another one makes another job."""
    found: dict[str, float | str] = {
        "decision_real_below": config.decision_real_below,
        "decision_ai_from": config.decision_ai_from,
        "c2pa_trust_lists": ",".join(config.c2pa_trust_lists),
    }
    return {name: value for name, value in found.items() if value not in (OF_THE_MODEL, "")}


def missing_shards(destination: Destination, job: Job, groups: Sequence[int]) -> Iterator[Shard]:
    """Shards of these groups that have no part yet, each with its photos."""
    done = destination.names(PARTS)

    def lacks(shard: int) -> bool:
        return part_name(shard).partition("/")[2] not in done

    for group in groups:
        # what is done is not read again: of ten million photos the names alone take minutes
        if any(map(lacks, range(group * GROUP_SHARDS, min((group + 1) * GROUP_SHARDS, job.shards)))):
            yield from read_group(destination, group, job.plan, lacks)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call of `score_groups` did."""

    photos: int
    shards: int
    already: int
    """Photos of shards that had a part before."""


def score_groups(
    destination: Destination,
    job: Job,
    groups: Sequence[int],
    work: Work,
    listener: Listener = lambda _done, _all: None,
    executor: Executor = score_shards,
) -> Outcome:
    """Score every shard of these groups that has no part; each is committed as soon as it is whole.

    Raises:
        CatalogueError: the plan is damaged.
        OSError: the destination cannot be written.
    """
    finished = len(destination.names(PARTS))
    already = min(job.photos, finished * job.shard_photos)
    photos = shards = 0
    for shard, rows in executor(work, missing_shards(destination, job, groups)):
        destination.commit(part_name(shard), encode(rows, job))
        photos, shards = photos + len(rows), shards + 1
        listener(already + photos, job.photos)
    return Outcome(photos, shards, already)


def encode(rows: list[Row], job: Job) -> bytes:
    """Rows as one Parquet file that names its job."""
    sink = io.BytesIO()
    pq.write_table(table_of(rows).replace_schema_metadata({OWNER: job.identity}), sink, compression="zstd")
    return sink.getvalue()
