"""Training on several machines of a Kubernetes cluster: Kubeflow Trainer's TrainJob, asked for by the stage's pod.

What a TrainJob says is v1alpha1 of https://www.kubeflow.org/docs/components/trainer; how its machines mount the volume
and as whom they run is the affair of their TrainingRuntime (infra/kubernetes/training.yaml).
"""

import json
import logging
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx

from components.platform.signals import sigterm_raises
from components.train.config import Pod, TrainerConfig
from components.train.processes import is_ordered
from serving.platform.answers import PLAIN, read_answer
from serving.platform.errors import StageError, one_line

_log = logging.getLogger(__name__)
_GROUP: Final = "trainer.kubeflow.org"
_VERSION: Final = "v1alpha1"
_RUN: Final = "run-id"
_ATTEMPTS: Final = 3
"""Jobs of one training, where checkpoints let each go on from the one before."""
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_LONGEST_WAIT_S: Final = 8.0
_LONGEST_RUN: Final = 36
"""Characters of the run's name in a job's: with those of its pods a label of 63."""
_FIXES: Final = {
    401: "; the token of the pod's service account is not taken",
    403: "; infra/kubernetes/training.yaml has the rights and the runtime that it needs",
    404: "; install Kubeflow Trainer 2 in the cluster, or set machines.train.nodes to 1",
}


@dataclass(frozen=True, slots=True)
class Shared:
    """Where the machines find what they read and leave what they write."""

    orders: Path
    dataset: Path
    out: Path
    curves: Path


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the cluster's API said."""

    status: int
    body: bytes


@contextmanager
def shared(trainer: TrainerConfig, run_id: str, dataset: Path, out: Path, curves: Path | None) -> Iterator[Shared]:
    """Put the dataset where every machine sees it, and bring back what they made of it.

    What lies there goes when the training has succeeded; after anything else it waits for the stage to be repeated.

    Raises:
        StageError: the volume is not mounted here.
    """
    if not Path(trainer.shared_dir).is_dir():
        raise StageError(
            f"kubeflow.shared_dir {trainer.shared_dir}: no such folder in the stage's pod; mount the volume there"
        )
    root = Path(trainer.shared_dir) / "training" / _named(run_id)
    places = Shared(root / "cluster", root / "dataset", root / "bundle", root / "curves.html")
    if not places.dataset.is_dir():
        partial = root / ".dataset"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(dataset, partial)
        partial.replace(places.dataset)
    yield places
    from components.train.export import publish

    publish(places.out, out)
    if curves is not None:
        curves.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(places.curves, curves)
    shutil.rmtree(root, ignore_errors=True)


class TrainJobs:
    """The TrainJobs of one run, in the namespace of this pod."""

    attempts = _ATTEMPTS

    def __init__(self, trainer: TrainerConfig, run_id: str, folder: Path) -> None:
        """Prepare to ask.

        Args:
            trainer: the machines.
            run_id: which all its jobs are labelled with.
            folder: of the order; without one there, no job stands that could be gone on with.

        Raises:
            StageError: this process is in no pod.
        """
        self._trainer, self._run, self._folder = trainer, _named(run_id), folder
        self._pod = Pod.from_environment()
        self._namespace = (self._pod.account / "namespace").read_text().strip()
        self._client = httpx.Client(
            base_url=self._pod.address,
            verify=_trusting(self._pod.account / "ca.crt"),
            timeout=trainer.request_timeout_s,
            headers=PLAIN,
            # the cluster's own address: a proxy for the world outside is not asked
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def pause_s(self, attempt: int) -> float:
        """None: the cluster waits for room by itself."""
        del attempt
        return 0.0

    def standing(self) -> str:
        """A job of this run that is under way or has succeeded; empty: none."""
        if not is_ordered(self._folder):
            return ""
        standing = [job for job in self._jobs() if _state(job) != "FAILED"]
        return str(standing[-1]["metadata"]["name"]) if standing else ""

    def submit(self, folder: Path) -> str:
        """Ask for the machines; the job's name."""
        # the name is this run's and its number's: an answer that was lost is met again as a job that is there
        name = f"train-{self._run}-{len(self._jobs()) + 1}"
        answer = self._ask("POST", params={"fieldValidation": "Strict"}, json=self._body(name, folder))
        if answer.status != httpx.codes.CONFLICT:
            self._must(answer, f"submit a training on {self._trainer.nodes} machines")
        return name

    def follow(self, name: str) -> tuple[str, str]:
        """Wait for a job's end, and end it where this process is told to end; how it ended, in words and in one."""
        said = ""
        try:
            with sigterm_raises():
                while True:
                    answer = self._ask("GET", name)
                    if answer.status == httpx.codes.NOT_FOUND:
                        return f"the training job {self._where(name)} was deleted", "CANCELLED"
                    job = self._must(answer, "ask about the training job")
                    if (state := _state(job)) != said:
                        _log.warning("%s: %s", self._where(name), state)
                        said = state
                    if state in ("SUCCEEDED", "FAILED"):
                        return f"the training job {self._where(name)} {state}{_reason(job)}", state
                    time.sleep(self._trainer.poll_s)
        except (StageError, KeyboardInterrupt):
            self._delete(name)
            raise

    def _delete(self, name: str) -> None:
        """End a job that nobody waits for any more, its machines first; one that is gone takes no harm."""
        try:
            answer = self._ask("DELETE", name, params={"propagationPolicy": "Foreground"})
            if answer.status != httpx.codes.NOT_FOUND:
                self._must(answer, "end the training job")
        except StageError as error:
            _log.warning("%s may go on: %s", self._where(name), error)

    def _jobs(self) -> list[dict[str, Any]]:
        """Those of this run, the oldest first."""
        answer = self._ask("GET", params={"labelSelector": f"{_RUN}={self._run}"})
        found: list[dict[str, Any]] = self._must(answer, "list the training jobs").get("items") or []
        return sorted(found, key=lambda job: str(job["metadata"].get("creationTimestamp", "")))

    def _body(self, name: str, folder: Path) -> dict[str, Any]:
        trainer = self._trainer
        each = {"cpu": str(trainer.cpu), "memory": f"{trainer.memory_gb}G"}
        if trainer.accelerator_count:
            each[trainer.accelerator] = str(trainer.accelerator_count)
        return {
            "apiVersion": f"{_GROUP}/{_VERSION}",
            "kind": "TrainJob",
            "metadata": {"name": name, "labels": {_RUN: self._run}},
            "spec": {
                "runtimeRef": {"apiGroup": _GROUP, "kind": "TrainingRuntime", "name": trainer.runtime},
                "trainer": {
                    "image": trainer.image,
                    "command": ["python", "-m", "components.train.nodes"],
                    "args": [str(folder)],
                    "numNodes": trainer.nodes,
                    "resourcesPerNode": {"requests": each, "limits": each},
                },
            },
        }

    def _ask(self, method: str, name: str = "", **sent: Any) -> _Answer:
        """Send a request until it is answered by something else than that the API is busy or out of reach.

        Raises:
            StageError: it was not, for as long as the configuration allows, or by more than any such API says.
        """
        place = f"/apis/{_GROUP}/{_VERSION}/namespaces/{self._namespace}/trainjobs{f'/{name}' if name else ''}"
        deadline, wait_s = time.monotonic() + self._trainer.request_timeout_s, 0.2
        while True:
            # read anew: Kubernetes replaces the token every hour
            token = (self._pod.account / "token").read_text().strip()
            try:
                with self._client.stream(method, place, headers={"Authorization": f"Bearer {token}"}, **sent) as found:
                    answer = _Answer(found.status_code, read_answer(found))
                if answer.status not in _BUSY:
                    return answer
                said = f"{answer.status} {_said(answer)}"
            except ValueError as error:
                raise StageError(f"the cluster's API at {self._pod.address} gave {error}; is it Kubernetes?") from error
            except httpx.TransportError as error:
                said = one_line(error) or type(error).__name__
            if time.monotonic() + wait_s > deadline:
                raise StageError(f"the cluster's API at {self._pod.address} does not answer: {said}; try again")
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _must(self, answer: _Answer, what: str) -> dict[str, Any]:
        """The document of an answer.

        Raises:
            StageError: it is a refusal, in one line with the fix, or no document.
        """
        code = answer.status
        if httpx.codes.is_success(code):
            document = _document(answer)
            if document is None:
                raise StageError(f"cannot {what}: {self._pod.address} answers without a document; is it Kubernetes?")
            return document
        raise StageError(f"cannot {what} in namespace {self._namespace}: {code} {_said(answer)}{_FIXES.get(code, '')}")

    def _where(self, name: str) -> str:
        return f"{self._namespace}/{name}"


def _named(run_id: str) -> str:
    """A run's name as names and labels of Kubernetes may be."""
    return re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")[:_LONGEST_RUN].strip("-") or "run"


def _trusting(authority: Path) -> Any:
    """What of the API's certificate is believed: the cluster's own authority alone.

    Raises:
        StageError: its file cannot be read.
    """
    import ssl

    try:
        return ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        raise StageError(f"{authority}: cannot be read: {one_line(error)}; the pod lacks its cluster's CA") from error


def _condition(job: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = (job.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind and one["status"] == "True"), {})


def _state(job: dict[str, Any]) -> str:
    """How a job stands, by its conditions: of one that has only begun there are none."""
    known = {"Complete": "SUCCEEDED", "Failed": "FAILED", "Suspended": "SUSPENDED"}
    return next((state for kind, state in known.items() if _condition(job, kind)), "RUNNING")


def _reason(job: dict[str, Any]) -> str:
    said = " ".join(str(_condition(job, "Failed").get("message", "")).split())
    return f": {said[:300]}" if said else ""


def _document(answer: _Answer) -> dict[str, Any] | None:
    """What an answer says in JSON; None where it is no object."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _said(answer: _Answer) -> str:
    """The sentence of a Kubernetes Status, or the beginning of whatever came instead."""
    document = _document(answer) or {}
    if "message" in document:
        return " ".join(str(document["message"]).split())[:400]
    return " ".join(answer.body[:2000].decode(errors="replace").split())[:200]
