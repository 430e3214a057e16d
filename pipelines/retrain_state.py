"""The append-only record of the runs that retraining started: a file of this machine, or an object all runners see."""

from contextlib import AbstractContextManager
from typing import Final, Literal

from components.platform.cloud_storage import open_lines
from serving.platform.frozen import Frozen
from serving.platform.jsonlines import documents

STARTING: Final = "starting"
NOT_STARTED: Final = "not_started"
_WAIT_S: Final = 86400.0
"""A run that is decided under the lock may take hours."""

Reason = Literal["drift", "age", "new_labels", "declared_recall", "none"]


class Start(Frozen):
    """One started run, a line of the record."""

    at: float
    """Unix time."""
    reason: Reason
    explanation: str
    key: str
    """What it answered: the same drift of the same model version is answered once."""
    run_id: str = ""
    status: str


class History:
    """The runs started before, at a local path or a `gs://` object that all runners see."""

    def __init__(self, place: str) -> None:
        self._lines = open_lines(place, "set retrain.state_path to a writable place")

    def exclusive(self) -> AbstractContextManager[None]:
        """Wait until nobody else decides; in the cloud `claim` tells whether somebody did meanwhile.

        Raises:
            StateError: somebody decides for ever, or the folder cannot be written.
        """
        return self._lines.exclusive(_WAIT_S, "another retrain decides or runs")

    def read(self) -> list[Start]:
        """Runs started before; of several lines about one start the last holds.

        Raises:
            StageError: it cannot be read, or is another file.
        """
        begun = {(s.at, s.key): s for s in documents(self._lines.read(), Start, self._lines.where)}
        return [start for start in begun.values() if start.status != NOT_STARTED]

    def claim(self, start: Start) -> bool:
        """Add a line unless somebody else did since `read`.

        Raises:
            StageError: it could not be written.
        """
        return self._lines.claim(start.model_dump_json().encode())

    def append(self, start: Start) -> None:
        """Add a line.

        Raises:
            StageError: it could not be written.
        """
        self._lines.append(start.model_dump_json().encode())
