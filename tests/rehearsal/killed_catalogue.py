"""A catalogue that is scored by the compiled pipeline in containers, one of which is killed with its work half done."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bundles import jpeg, make_bundle
from tests.rehearsal.images import ROOT
from tests.serving.fetch.shop import Shop, ok

PHOTOS, GROUP, HELD, DAMAGED = 70, 64, 40, 17
"""Photos, each a shard; how many the first of two groups has; the one whose host keeps it back; a broken one."""
_PATIENCE_S = 300.0


class KilledCatalogue:
    """`aidetect score --on docker`, brought to the moment after the kill; the engine's own repetition finishes it.

    The moment is no matter of chance: the photo at `HELD` is kept back by its host until the container is dead.
    """

    def __init__(self, client: Any, folder: Path) -> None:
        self.output, self.bundle = folder / "out", make_bundle(folder / "bundle")
        self._client, self._released = client, threading.Event()
        self.photos = [jpeg(60 + number * 2, seed=number) for number in range(PHOTOS)]
        self.photos[DAMAGED] = self.photos[DAMAGED][:300]
        pages: dict[str, Any] = {f"/{number}.jpg": photo for number, photo in enumerate(self.photos)}
        pages[f"/{HELD}.jpg"] = self._keep_back
        self.host = Shop(pages)
        feed = folder / "feed/feed.csv"
        feed.parent.mkdir()
        links = [f"{number},{self.host.url(f'/{number}.jpg')}" for number in range(PHOTOS)]
        feed.write_text("\n".join(["id,image_link", *links, ""]))
        knobs = {"shard_photos": 1, "workers": 1, "trusted_hosts": '["127.0.0.1"]'}
        knobs |= {"fetch_deadline_s": 300, "photo_timeout_s": 600}
        settings = {f"catalogue.{key}": value for key, value in knobs.items()}
        # the model is a folder: no registry is asked, and none is started
        settings |= {"paths.workspace": folder / "workspace", "tracking.uri": "http://127.0.0.1:1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from pipelines.cli import main; main()", "score", str(feed), "-o", str(self.output)]
            + ["--model", str(self.bundle), "--on", "docker", "--json"]
            + [word for key, value in settings.items() for word in ("--set", f"{key}={value}")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # all that comes before the held photo is committed, and the other group has ended
        self._until(lambda: len(self.parts()) == PHOTOS - GROUP + HELD)
        self._until(lambda: len(self._containers()) == 1)
        (victim,) = self._containers()
        victim.kill("SIGKILL")
        self._until(lambda: self._containers() == [])
        self.kept = self.parts()
        self._released.set()

    def parts(self) -> dict[str, tuple[int, int]]:
        """Committed parts, and what tells whether one was written again."""
        found = (path.stat() for path in (self.output / "parts").glob("part-*"))
        names = (path.name for path in (self.output / "parts").glob("part-*"))
        return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in zip(names, found, strict=True)}

    def fetched(self) -> list[int]:
        """How often each photo was fetched to be scored: the report, of a later task, fetches those that it shows."""
        scored_at = max(written_ns for _, written_ns in self.parts().values()) / 1e9 - time.time() + time.monotonic()
        times = [self.host.times.get(f"/{number}.jpg", []) for number in range(PHOTOS)]
        return [sum(at <= scored_at for at in found) for found in times]

    def finish(self) -> dict[str, Any]:
        """Wait for the end; the summary."""
        out, err = self._process.communicate(timeout=_PATIENCE_S)
        assert self._process.returncode == 0, (out[-2000:], err[-2000:])
        summary: dict[str, Any] = json.loads(out)
        return summary

    def close(self) -> None:
        """End what still runs."""
        self._released.set()
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)
        self.host.close()

    def _containers(self) -> list[Any]:
        """Those that score a group of this job now."""
        running = self._client.containers.list(ignore_removed=True)
        return [one for one in running if {"score_group", str(self.output)} <= set(_words(one.attrs["Config"]["Cmd"]))]

    def _keep_back(self, connection: Any) -> None:
        self._released.wait(_PATIENCE_S)
        connection.sendall(ok(self.photos[HELD]))

    def _until(self, comes: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not comes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._process.communicate(timeout=60) if self._process.poll() is not None else "it still runs"
                raise RuntimeError(f"the catalogue never came to the kill: {len(self.parts())} parts; {said}")
            time.sleep(0.1)


def _words(command: list[str]) -> list[str]:
    """A task's command, and the values of its parameters among it."""
    if "--executor_input" not in command:
        return command
    told = json.loads(command[command.index("--executor_input") + 1]).get("inputs", {}).get("parameterValues", {})
    return [*command, *(str(value) for value in told.values())]
