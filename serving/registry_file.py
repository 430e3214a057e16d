"""MLflow's registry read from its sqlite file: a millisecond where MLflow's client needs seconds of imports.

Only reads. A file whose tables are not those of the MLflow that is installed here is not understood: the answer is
None, and the caller asks MLflow, whose messages are the user's.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

SQLITE: Final = "sqlite:///"
ARTIFACTS: Final = "mlflow-artifacts"
"""Folder beside a sqlite registry that holds its files; they are found there wherever both are moved together."""
SCHEMA: Final = "dc11669786a5"
"""Revision of MLflow's tables that is read here; a test compares it with the installed MLflow's."""
_WAIT_S: Final = 5.0
_VERSIONS: Final = """
    SELECT version, source, creation_time FROM model_versions
    WHERE workspace = 'default' AND name = ? AND current_stage != 'Deleted_Internal' ORDER BY version DESC
"""
_PLACE: Final = "SELECT artifact_uri FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active'"
_TAGS: Final = "SELECT version, key, value FROM model_version_tags WHERE workspace = 'default' AND name = ?"
_ALIASES: Final = (
    "SELECT version, alias FROM registered_model_aliases WHERE workspace = 'default' AND name = ? ORDER BY alias"
)


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """One version of a model; the names are those of MLflow's own entity."""

    name: str
    version: str
    source: str
    """Address of its files, e.g. `runs:/RUN/bundle`."""
    artifact_uri: str
    """Of the run that it came from; empty where the run is not in this file."""
    creation_timestamp: int
    """Milliseconds since 1970."""
    tags: dict[str, str]
    aliases: tuple[str, ...]


def read_versions(tracking_uri: str, name: str) -> list[RegisteredVersion] | None:
    """All versions of a model, newest first; None where the registry is no such file or cannot be read so."""
    path = Path(tracking_uri.removeprefix(SQLITE))
    if not tracking_uri.startswith(SQLITE) or not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_WAIT_S)) as database:
            if database.execute("SELECT version_num FROM alembic_version").fetchall() != [(SCHEMA,)]:
                return None
            if not (path.parent / ARTIFACTS).is_dir() and _are_elsewhere(database, path):
                return None
            tags: dict[int, dict[str, str]] = {}
            for version, key, value in database.execute(_TAGS, (name,)):
                tags.setdefault(version, {})[key] = value
            aliases: dict[int, list[str]] = {}
            for version, alias in database.execute(_ALIASES, (name,)):
                aliases.setdefault(version, []).append(alias)
            found = database.execute(_VERSIONS, (name,)).fetchall()
            # by its key, run for run: a workspace has many more of them than a model has versions
            runs = {_run_of(source or "") for _, source, _ in found} - {""}
            places = {run: place[0] for run in runs if (place := database.execute(_PLACE, (run,)).fetchone())}
    except sqlite3.Error:
        return None
    return [
        RegisteredVersion(
            name=name,
            version=str(version),
            source=source or "",
            artifact_uri=places.get(_run_of(source or ""), ""),
            creation_timestamp=created,
            tags=tags.get(version, {}),
            aliases=tuple(aliases.get(version, ())),
        )
        for version, source, created in found
    ]


def _are_elsewhere(database: sqlite3.Connection, path: Path) -> bool:
    """Whether this is a copy of a registry without its files: what is to be said of it, the stages say."""
    home = (path.parent.resolve() / ARTIFACTS).as_uri()
    kept = [location or "" for (location,) in database.execute("SELECT artifact_location FROM experiments")]
    return any(location.endswith(f"/{ARTIFACTS}") and location != home for location in kept)


def _run_of(source: str) -> str:
    return source.removeprefix("runs:/").partition("/")[0] if source.startswith("runs:/") else ""
