"""A sqlite registry as a file of a workspace: made whole or not at all, by one process, and moved with its files."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from serving.platform.errors import StageError
from serving.platform.jsonlines import LocalLines
from serving.registry_file import ARTIFACTS, SQLITE

_WAIT_S: Final = 300.0
"""For another process to make the database; MLflow's tables take some ten seconds on a busy machine."""
_FILE: Final = "file://"


def ready(tracking_uri: str) -> None:
    """Make a sqlite registry where there is none, and see that its files are found where it lies now.

    Does nothing for a server.

    Raises:
        StageError: it cannot be made, or it is a copy whose files lie in the workspace it was copied from.
    """
    if not tracking_uri.startswith(SQLITE):
        return
    path = Path(tracking_uri.removeprefix(SQLITE))
    if "?" in str(path):
        raise StageError(
            f"model registry {path}: the address of a database cannot have a ? in it; rename the folder, or set "
            "paths.workspace to another one"
        )
    with LocalLines(path, "set tracking.uri").exclusive(_WAIT_S, "the registry is being made by another process"):
        if not path.exists():
            _make(path)
        try:
            with closing(sqlite3.connect(path, timeout=_WAIT_S)) as database, database:
                _bring_home(database, path)
        except sqlite3.Error as error:
            raise StageError(f"model registry {path}: {error}; is it MLflow's database?") from error


def _make(path: Path) -> None:
    """MLflow's tables in a file of another name, which takes its place at the end: nobody meets half of them."""
    import mlflow
    from mlflow.tracking import MlflowClient

    partial = path.with_name(f".{path.name}.partial")
    for left in path.parent.glob(f"{partial.name}*"):
        left.unlink()
    uri = f"{SQLITE}{partial}"
    try:
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
    except ValueError as error:
        if "%" not in mlflow.__file__:
            raise
        # its migrations are found by a setting in which % has a meaning
        raise StageError(
            f"MLflow in {Path(mlflow.__file__).parent} cannot make its tables: a folder's name there has a % in it; "
            "rename that folder and run `make setup` there"
        ) from error
    client.search_registered_models(max_results=1)
    partial.replace(path)


def _bring_home(database: sqlite3.Connection, path: Path) -> None:
    """Point runs at their files beside this database, where these are: whoever moved or copied one moved both."""
    home = (path.parent.resolve() / ARTIFACTS).as_uri()
    for (location,) in database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall():
        if not location or not location.endswith(f"/{ARTIFACTS}") or location == home:
            continue
        runs = database.execute(
            "SELECT run_uuid, artifact_uri FROM runs WHERE substr(artifact_uri, 1, ?) = ?",
            (len(location) + 1, f"{location}/"),
        ).fetchall()
        here = [(home + uri.removeprefix(location), run) for run, uri in runs if _folder(home, uri, location).is_dir()]
        origin = Path(unquote(location.removeprefix(_FILE)))
        if not here and (origin.parent / path.name).is_file():
            raise StageError(
                f"the registry {path} is a copy of {origin.parent / path.name}, and its files lie there, in {origin}; "
                f"copy them to {path.parent.resolve() / ARTIFACTS}, or use the registry beside them"
            )
        if here or not origin.is_dir():
            database.executemany("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", here)
            moved = (home, location)
            database.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", moved)


def _folder(home: str, uri: str, location: str) -> Path:
    return Path(unquote((home + uri.removeprefix(location)).removeprefix(_FILE)))
