"""Scoring a catalogue on this machine, from source to summary."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from components.catalogue.config import CatalogueConfig
from components.catalogue.destination import Destination, LocalDestination
from components.catalogue.entries import PARQUET, Entry, entries_of
from components.catalogue.executor import Executor, score_shards
from components.catalogue.job import Listener, begin, score_groups
from components.catalogue.photos import Photos, UnreadPhotoError
from components.catalogue.plan import GROUP_SHARDS, read_group, read_job
from components.catalogue.scoring import Work, policy_of
from components.catalogue.summary import SUMMARY_FILE, Summary, write_summary
from serving.detector.bundle import read_manifest
from serving.platform.cloud_storage import SCHEME
from serving.platform.cores import usable_cores
from serving.platform.errors import CatalogueError, SourceError, system_error

_END_BYTES: Final = 2**20


def score_catalogue(
    source: str,
    output: str,
    bundle: Path,
    version: str,
    config: CatalogueConfig,
    listener: Listener = lambda _done, _all: None,
    executor: Executor = score_shards,
) -> Summary:
    """Plan (or go on with) a job, score what is missing, and sum up.

    Args:
        source: folder, glob, Parquet, feed or `gs://` of each.
        output: folder or `gs://` prefix.
        bundle: folder of the model.
        version: its version, for the rows.
        config: how.
        listener: told of photos done and in all.
        executor: what runs the shards.

    Raises:
        CatalogueError: it cannot begin or go on; what was committed stays, and the same command goes on from it.
        TrustListError: a list of signers cannot be read.
    """
    work = Work(bundle, version, config, config.workers or usable_cores())
    # a list that cannot be read is said before any worker starts
    policy_of(config)
    with ExitStack() as stack:
        destination = open_destination(output)
        keep_apart(source, destination)
        if isinstance(destination, LocalDestination):
            stack.enter_context(destination.alone())
        job = begin(
            destination,
            source,
            read_manifest(bundle),
            work,
            lambda: open_entries(source, config, destination),
            content_of(source),
        )
        score_groups(destination, job, range(job.groups), work, listener, executor)
        return sum_up(destination, work)


def open_destination(output: str) -> Destination:
    """The place of the results.

    Raises:
        CatalogueError: it is a file, or Google refused.
    """
    if output.startswith(SCHEME):
        from components.catalogue.cloud import CloudDestination

        return CloudDestination(output)
    folder = Path(output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise CatalogueError(f"{output}: is a file; name a folder for the results")
    return LocalDestination(folder)


def keep_apart(source: str, destination: Destination) -> None:
    """Keep results out of the photos' own folder.

    Raises:
        CatalogueError: both are one folder.
    """
    photos, ours = Path(source).expanduser(), isinstance(destination, LocalDestination) and destination.folder
    if ours:
        same = photos.is_dir() and ours.is_dir() and photos.samefile(ours)
    else:
        same = source.rstrip("/") == destination.uri
    if same:
        raise CatalogueError(
            f"{source}: results would lie among the photos; name another folder, e.g. -o {destination.uri}/results"
        )


def open_entries(source: str, config: CatalogueConfig, destination: Destination | None = None) -> Iterator[Entry]:
    """Every photo of a source, wherever it lies; what is written to the destination meanwhile is none.

    Raises:
        SourceError: there is none, or it cannot be read.
    """
    if source.startswith(SCHEME):
        from components.catalogue.cloud import entries_in_cloud

        return entries_in_cloud(source, config, destination.uri if destination is not None else "")
    results = destination.folder if isinstance(destination, LocalDestination) else None
    return entries_of(source, config, results)


def content_of(source: str) -> str:
    """What a file of photos or a feed holds now, as a hash; empty where the source is none, or is not there any more.

    Raises:
        SourceError: it cannot be read.
        StageError: Google refused.
    """
    if source.startswith(SCHEME):
        from components.catalogue.cloud import content_in_cloud

        return content_in_cloud(source)
    path = Path(source).expanduser()
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            # the end of a Parquet file tells where everything in it lies; photos need not be read for it
            end = max(0, path.stat().st_size - _END_BYTES) if path.suffix.lower() == PARQUET else 0
            file.seek(end)
            return f"{end} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise SourceError(f"{source}: {system_error(error)}") from error


def read_summary(output: str) -> Summary:
    """The figures of a job that has been summed up.

    Raises:
        CatalogueError: there are none, or they cannot be read.
    """
    content = open_destination(output).read(SUMMARY_FILE)
    if content is None:
        raise CatalogueError(f"{output}: holds no {SUMMARY_FILE}; the job has not been summed up")
    try:
        return Summary.model_validate_json(content)
    except ValueError as error:
        raise CatalogueError(f"{output}/{SUMMARY_FILE}: not a summary of `aidetect score`") from error


def sum_up(destination: Destination, work: Work) -> Summary:
    """Figures and page of a job whose shards all have their part.

    Raises:
        CatalogueError: there is no job, or a part is missing or damaged.
    """
    job = read_job(destination)
    if job is None:
        raise CatalogueError(f"{destination.uri}: no job there")
    photos = Photos(work.config, 1)

    def read(shard: int, place: int) -> bytes | None:
        for _, entries in read_group(destination, shard // GROUP_SHARDS, job.plan, shard.__eq__):
            data = photos.one(entries[place])
            return None if isinstance(data, UnreadPhotoError) else data
        return None

    return write_summary(destination, job, read)
