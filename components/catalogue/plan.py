"""The plan: which photo belongs to which shard. Written before anything is scored, read again by every rerun."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from components.catalogue.destination import JOB_FILE, MOST_READ, PARTS, PLAN, Destination
from components.catalogue.entries import Entry
from serving.platform.errors import CatalogueError
from serving.platform.frozen import Frozen
from serving.platform.parquet import weight

GROUP_SHARDS: Final = 64
"""Shards of one plan file: what one task of the compiled pipeline scores."""

OWNER: Final = "aidetect.job"
"""Key of a part's metadata: `Job.identity`."""
_MOST_JOB: Final = 2**20
_MOST_SHARD: Final = 100_000
"""Photos of a shard, as the configuration allows at most."""
_SCHEMA: Final = pa.schema(
    [("id", pa.string()), ("uri", pa.string()), ("kind", pa.string()), ("place", pa.binary()), ("row", pa.int64())]
)
_TEXTS: Final = ["id", "uri", "kind", "place"]


class Job(Frozen):
    """What a destination holds the results of."""

    schema_version: int = 1
    source: str
    model_version: str
    model_digest: str
    shard_photos: int
    photos: int
    shards: int
    created_at: str
    settings: dict[str, str | int | float | bool]
    """Thresholds and columns: what changes a row changes the job."""
    content: str = ""
    """What a feed or Parquet file held when it was planned, as a hash; empty of folders, patterns and earlier jobs."""
    plan: str = PLAN
    """Folder of the plan's files."""

    @property
    def groups(self) -> int:
        """Plan files."""
        return -(-self.shards // GROUP_SHARDS)

    @property
    def identity(self) -> str:
        """What every part of this job carries, so that one of another job is not taken for its own."""
        # without what jobs did not have from their beginning: the parts of those that are older stay theirs
        return hashlib.sha256(self.model_dump_json(exclude={"content", "plan"}).encode()).hexdigest()

    def same_work(self, other: "Job") -> bool:
        """Whether the rows of both would be the same."""
        ours, theirs = (
            job.model_dump(include={"schema_version", "source", "model_digest", "shard_photos", "settings"})
            for job in (self, other)
        )
        return ours == theirs


def part_name(shard: int) -> str:
    """File of a shard's rows."""
    return f"{PARTS}/part-{shard:06d}.parquet"


def plan_name(group: int, folder: str = PLAN) -> str:
    """File of a group's plan; one row group a shard."""
    return f"{folder}/{group:05d}.parquet"


def read_job(destination: Destination) -> Job | None:
    """The job that a destination was begun for; None where there is none.

    Raises:
        CatalogueError: the file is not one of ours.
    """
    content = destination.read(JOB_FILE, _MOST_JOB)
    if content is None:
        return None
    try:
        return Job.model_validate_json(content)
    except ValueError as error:
        raise CatalogueError(
            f"{destination.uri}/{JOB_FILE}: not a job of `aidetect score`; name another folder"
        ) from error


def write_plan(destination: Destination, entries: Iterable[Entry], job: Job) -> Job | None:
    """Cut the photos into shards and write the plan, the job last; memory holds one group.

    Returns:
        The job; None where another one began there meanwhile, whose plan is not touched.

    Raises:
        SourceError: the source cannot be read to its end; nothing is begun then.
        CatalogueError: it holds no photo.
    """
    folder = destination.new_folder(PLAN)
    stream = iter(entries)
    group = photos = shards = 0
    while part := list(islice(stream, GROUP_SHARDS * job.shard_photos)):
        # what is left over from a plan that was never finished, nobody has read
        destination.commit(plan_name(group, folder), _encode(part, job.shard_photos), replace=True)
        group, photos, shards = group + 1, photos + len(part), shards + -(-len(part) // job.shard_photos)
    if not photos:
        raise CatalogueError(f"{job.source}: no photos there")
    job = job.model_copy(update={"photos": photos, "shards": shards, "plan": folder})
    destination.commit(JOB_FILE, job.model_dump_json(indent=1).encode())
    # asked in any case: a write whose answer was lost looks like another's
    return job if read_job(destination) == job else None


def _encode(part: list[Entry], shard_photos: int) -> bytes:
    columns = [[getattr(entry, name) for entry in part] for name in _SCHEMA.names]
    table = pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), schema=_SCHEMA)
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=shard_photos, compression="zstd")
    return sink.getvalue()


def read_group(
    destination: Destination, group: int, folder: str = PLAN, wanted: Callable[[int], bool] = lambda _shard: True
) -> Iterator[tuple[int, list[Entry]]]:
    """`(shard, its photos)` of the wanted shards of one group of the plan in a folder, a shard at a time.

    Raises:
        CatalogueError: the plan is missing or damaged.
    """
    name = plan_name(group, folder)
    content = destination.read(name)
    if content is None:
        raise CatalogueError(f"{destination.uri}/{name}: missing; the plan of this job was deleted")
    try:
        buffer = pa.BufferReader(content)
        if not pq.read_schema(buffer).equals(_SCHEMA):
            raise CatalogueError(f"{destination.uri}/{name}: not a plan of `aidetect score`; name another folder")
        with pq.ParquetFile(pa.BufferReader(content), read_dictionary=_TEXTS) as file:
            if file.num_row_groups > GROUP_SHARDS:
                raise CatalogueError(f"{destination.uri}/{name}: not a plan of `aidetect score`; name another folder")
            for index in (i for i in range(file.num_row_groups) if wanted(group * GROUP_SHARDS + i)):
                found = file.metadata.row_group(index)
                if found.num_rows > _MOST_SHARD or found.total_byte_size > MOST_READ:
                    raise CatalogueError(f"{destination.uri}/{name}: a shard of more than {_MOST_SHARD:,} photos")
                shard = file.read_row_group(index, use_threads=False)
                if weight(shard) > MOST_READ:
                    raise CatalogueError(f"{destination.uri}/{name}: a shard of more than {MOST_READ >> 20:,} MiB")
                yield group * GROUP_SHARDS + index, [Entry(**row) for row in shard.to_pylist()]
    except pa.ArrowException as error:
        raise CatalogueError(f"{destination.uri}/{name}: damaged ({str(error).splitlines()[0]})") from error
