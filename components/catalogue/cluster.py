"""Shards as tasks of a Ray cluster: Ray schedules and repeats what was lost with a node; nothing else of it is used."""

import hashlib
import logging
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from components.catalogue.entries import Entry
from components.catalogue.executor import Executor, Scored, Shard
from components.catalogue.rows import WORKER_DIED, Row, refused
from components.catalogue.scoring import Scorer, Work
from serving.detector.bundle import MANIFEST
from serving.platform.errors import CatalogueError, one_line

RAY: Final = "ray"
SCHEME: Final = "ray://"
_CONNECT_S: Final = 10.0
_ATTEMPTS: Final = 3

Bundle = dict[str, bytes]
"""A bundle's files by their names: the machines of a cluster need not share a disk."""


def on_ray(address: str) -> Executor:
    """An executor on a Ray cluster whose machines have this package installed, and see the source.

    Args:
        address: `ray://HOST:PORT` of the cluster's client server (10001 by Ray's default), or `ray` for the cluster
            that this machine belongs to.
    """

    def score(work: Work, shards: Iterator[Shard]) -> Iterator[Scored]:
        ray = _connect(address)
        try:
            yield from _Job(ray, work).score(shards)
        finally:
            ray.shutdown()

    return score


def _connect(address: str) -> Any:
    """Ray's own module, connected.

    Raises:
        CatalogueError: Ray is not installed here, or no cluster answers.
    """
    if address != RAY:
        _ask(address)
    try:
        import ray
    except ImportError as error:
        raise CatalogueError("--on ray needs the extra `ray`: pip install -e '.[ray]'") from error
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init("auto" if address == RAY else address, log_to_driver=False, logging_level=logging.ERROR)
        except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, ImportError) as error:
            # the head starts a process for each client, and on a busy machine gives it up now and then
            if isinstance(error, ConnectionError) and attempt < _ATTEMPTS:
                continue
            raise CatalogueError(f"no Ray cluster answers at {address}: {_said(error)}") from error
        break
    return ray


def _said(error: BaseException) -> str:
    """What an error of Ray's says in a line; where the first announces a traceback, its last is the cause."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    first = one_line(error)
    return f"{first} {lines[-1].strip()}"[:400] if first.endswith(":") and len(lines) > 1 else first


def _ask(address: str) -> None:
    """Whether anything listens there: Ray itself would try for half a minute, and say so on many lines.

    Raises:
        CatalogueError: nothing does, or the address is none.
    """
    try:
        place = urlsplit(address)
        host, port = place.hostname, place.port
    except ValueError:
        host = port = None
    if not address.startswith(SCHEME) or not host or not port:
        raise CatalogueError(f"{address}: not the address of a Ray cluster; name it as ray://HOST:10001")
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        raise CatalogueError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); its client server listens on port 10001 "
            "where `ray start --head` was not told another"
        ) from error


@dataclass(frozen=True, slots=True)
class _Piece:
    """Photos of one shard that are scored together: all of them, or half of those that ended a worker."""

    shard: int
    start: int
    entries: Sequence[Entry]
    whole: bool = True
    asked: int = 1
    """Times that a single photo was scored alone."""


@dataclass(slots=True)
class _Open:
    """A shard whose rows are coming in."""

    photos: int
    rows: dict[int, list[Row]] = field(default_factory=dict)
    """By the place of the first."""

    def complete(self) -> list[Row] | None:
        """All rows in order, once they are there."""
        if sum(map(len, self.rows.values())) < self.photos:
            return None
        return [row for start in sorted(self.rows) for row in self.rows[start]]


class _Job:
    """One job on a connected cluster."""

    def __init__(self, ray: Any, work: Work) -> None:
        self._ray = ray
        cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        # what hosts are asked is shared by all workers of the cluster
        self._work = replace(work, workers=work.config.workers or cpus)
        # one waits for each that runs, unless it was said how many may run
        self._ahead = work.config.workers or 2 * cpus
        files = {path.relative_to(work.bundle).as_posix(): path for path in sorted(work.bundle.rglob("*"))}
        content = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
        # the manifest has the digest of every other file
        self._digest = hashlib.sha256(content[MANIFEST]).hexdigest()
        self._bundle = ray.put(content)
        self._task = ray.remote(num_cpus=1)(score_piece)
        self._waiting: dict[Any, _Piece] = {}
        self._open: dict[int, _Open] = {}
        # a bundle that no worker can load would look like a photo that kills every worker; asked of as many as may
        # run, because a worker starts for what waits, and all load side by side
        with self._told():
            ray.get([self._call(self._task, []) for _ in range(self._work.workers)])

    def score(self, shards: Iterator[Shard]) -> Iterator[Scored]:
        """Rows of each shard as they come.

        Raises:
            CatalogueError: a task failed by itself, or the cluster is gone.
        """
        ended = False
        while self._waiting or not ended:
            while not ended and len(self._waiting) < self._ahead:
                shard = next(shards, None)
                if shard is None:
                    ended = True
                    break
                self._open[shard[0]] = _Open(len(shard[1]))
                self._submit(_Piece(shard[0], 0, shard[1]))
            if not self._waiting:
                continue
            piece = self._take()
            if (rows := self._open[piece.shard].complete()) is not None:
                del self._open[piece.shard]
                yield piece.shard, rows

    def _submit(self, piece: _Piece) -> None:
        # Ray repeats a shard once, as of a lost node; what ended its worker then as well is halved here
        task = self._task.options(max_retries=1 if piece.whole else 0)
        with self._told():
            self._waiting[self._call(task, piece.entries)] = piece

    def _call(self, task: Any, entries: Sequence[Entry]) -> Any:
        # inside a list the reference stays one: a worker asks for the bundle only where it has none yet
        return task.remote(self._work, self._digest, [self._bundle], list(entries))

    def _take(self) -> _Piece:
        """Wait for any piece, and take its rows."""
        errors = self._ray.exceptions
        deadly = (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError, errors.ObjectLostError)
        with self._told():
            done, _ = self._ray.wait(list(self._waiting), num_returns=1)
            piece = self._waiting.pop(done[0])
            try:
                self._open[piece.shard].rows[piece.start] = self._ray.get(done[0])
            except errors.RayTaskError:
                # what the task itself raised; may be one of the deadly as well, met inside of it
                raise
            except deadly:
                self._after_death(piece)
        return piece

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What Ray says, in a line.

        Raises:
            CatalogueError: Ray or a task of it failed.
        """
        errors = self._ray.exceptions
        try:
            yield
        except errors.RayTaskError as error:
            # its own text is the worker's traceback
            said = f"a worker of the cluster failed: {one_line(error.cause)}"
            raise CatalogueError(f"{said}; the same command goes on from here") from error
        except (errors.RayError, ConnectionError, RuntimeError) as error:
            raise CatalogueError(f"Ray: {one_line(error)}; the same command goes on from here") from error

    def _after_death(self, piece: _Piece) -> None:
        if len(piece.entries) > 1:
            half = len(piece.entries) // 2
            self._submit(_Piece(piece.shard, piece.start, piece.entries[:half], whole=False))
            self._submit(_Piece(piece.shard, piece.start + half, piece.entries[half:], whole=False))
        elif piece.asked == 1:
            self._submit(replace(piece, whole=False, asked=2))
        else:
            guilty = piece.entries[0]
            self._open[piece.shard].rows[piece.start] = [refused(guilty.id, guilty.uri, WORKER_DIED)]


_scorers: dict[str, tuple[Scorer, "tempfile.TemporaryDirectory[str]"]] = {}


def score_piece(work: Work, digest: str, bundle: list[Any], entries: list[Entry]) -> list[Row]:
    """Rows of photos, in a worker of the cluster; it keeps its detector for the job's next task.

    Args:
        work: what every worker is told; the bundle's folder is not this machine's.
        digest: of the bundle.
        bundle: one reference to a `Bundle`.
        entries: what to score.
    """
    key = f"{digest} {work}"
    if key not in _scorers:
        import ray

        _scorers.clear()
        folder = tempfile.TemporaryDirectory(prefix="aidetect-bundle-")
        content: Bundle = ray.get(bundle[0])
        for name, data in content.items():
            path = Path(folder.name) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        _scorers[key] = Scorer(replace(work, bundle=Path(folder.name))), folder
    return _scorers[key][0].score(entries)
