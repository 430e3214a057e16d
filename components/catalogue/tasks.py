"""The same job in three kinds of tasks, each on a machine of its own: plan, score a group, sum up."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.catalogue.config import CatalogueConfig
from components.catalogue.job import begin, score_groups
from components.catalogue.plan import read_job
from components.catalogue.scoring import Work
from components.catalogue.stage import content_of, keep_apart, open_destination, open_entries, sum_up
from components.catalogue.summary import PAGE_FILE
from serving.detector.bundle import read_manifest
from serving.platform.cores import usable_cores
from serving.platform.errors import CatalogueError
from serving.registry import resolve


@dataclass(frozen=True)
class Place:
    """What every task of one pipeline run is told."""

    destination: str
    run: str
    """Folder below `destination` that this run has for itself; empty: the results of all runs are one job."""
    model_uri: str
    tracking_uri: str
    config: CatalogueConfig

    @property
    def results(self) -> str:
        """Where this run's results go."""
        return f"{self.destination.rstrip('/')}/{self.run}" if self.run else self.destination

    @contextmanager
    def work(self) -> Iterator[Work]:
        """The model on this disk while it is used."""
        with tempfile.TemporaryDirectory(prefix="aidetect-model-") as cache:
            found = resolve(self.model_uri, Path(cache), self.tracking_uri)
            yield Work(found.folder, found.version, self.config, self.config.workers or usable_cores())


def plan(place: Place, source: str) -> list[int]:
    """Begin the job, or find it begun; the numbers of its groups.

    Raises:
        CatalogueError, SourceError: see `job.begin`.
    """
    destination = open_destination(place.results)
    keep_apart(source, destination)
    with place.work() as work:
        manifest = read_manifest(work.bundle)
        job = begin(
            destination,
            source,
            manifest,
            work,
            lambda: open_entries(source, place.config, destination),
            content_of(source),
        )
    return list(range(job.groups))


def score(place: Place, group: int) -> int:
    """Score what a group lacks; how many photos that were.

    Raises:
        CatalogueError: there is no job, or the model's alias has moved since it was planned.
    """
    destination = open_destination(place.results)
    job = read_job(destination)
    if job is None:
        raise CatalogueError(f"{place.results}: no job there; plan it first")
    with place.work() as work:
        if read_manifest(work.bundle).digest != job.model_digest:
            raise CatalogueError(
                f"{place.model_uri} is another model than the one this job began with (version {job.model_version}); "
                "name that version, or score into another folder"
            )
        return score_groups(destination, job, [group], work).photos


def report(place: Place, page: Path) -> dict[str, float]:
    """Sum up and keep the page as the task's artifact; the figures.

    Raises:
        CatalogueError: a shard is missing or damaged.
    """
    destination = open_destination(place.results)
    with place.work() as work:
        summary = sum_up(destination, work)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_bytes(destination.read(PAGE_FILE) or b"")
    figures = {"photos": summary.photos, "scored": summary.scored, "refused": summary.refused}
    return {**figures, **{f"decided_{name}": n for name, n in summary.decisions.items()}}
