"""Vertex AI's cache of finished tasks: the key as Google documents it, as Kubeflow Pipelines computes it.

"Configure execution caching": the values of input parameters and the ids of input artifacts, the definition of the
outputs, and image, command, arguments and environment, among pipelines of one name. Placeholders are filled in inputs
and not in the command (`{{$}}` holds the outputs' addresses, which differ in every run), as
`backend/src/v2/cacheutils/cache.go` of Kubeflow Pipelines has it. Only a task that may be cached leaves an entry.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any


@dataclass
class Executed:
    """One task of one job: the ids of its artifacts, and what it says of them."""

    artifacts: dict[str, str]
    outputs: dict[str, Any]
    hit: bool


class FakeCache:
    """What finished tasks of all jobs left."""

    def __init__(self) -> None:
        self.entries: dict[str, Executed] = {}
        self.executed: dict[tuple[str, str], Executed] = {}
        """(job, task) -> how it was carried out."""
        self._ids = 0

    def answer(self, job: str, spec: dict[str, Any], given: dict[str, Any], task: str) -> Executed | None:
        """What an earlier job's task answers; None: it has to run. The same for every look at a job."""
        if (job, task) in self.executed:
            return self.executed[job, task] if self.executed[job, task].hit else None
        if not _allowed(spec, task):
            return None
        found = self.entries.get(self.key(job, spec, given, task))
        if found is None:
            return None
        self.executed[job, task] = Executed(found.artifacts, found.outputs, hit=True)
        return self.executed[job, task]

    def keep(self, job: str, spec: dict[str, Any], given: dict[str, Any], task: str, outputs: dict[str, Any]) -> None:
        """A task ran to its end: its artifacts are new ones, whatever they hold."""
        if (job, task) in self.executed:
            return
        component = _component(spec, task)
        names = component.get("outputDefinitions", {}).get("artifacts", {})
        self._ids += 1
        ran = Executed({name: f"artifacts/{self._ids}-{name}" for name in names}, outputs, hit=False)
        self.executed[job, task] = ran
        if _allowed(spec, task):
            self.entries[self.key(job, spec, given, task)] = ran

    def key(self, job: str, spec: dict[str, Any], given: dict[str, Any], task: str) -> str:
        """The key of one task of one job."""
        described = spec["root"]["dag"]["tasks"][task]
        component = _component(spec, task)
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        defaults = spec["root"]["inputDefinitions"]["parameters"]
        inputs: dict[str, Any] = {}
        for name, source in described.get("inputs", {}).get("parameters", {}).items():
            if "componentInputParameter" in source:
                asked = source["componentInputParameter"]
                inputs[name] = given.get(asked, defaults[asked].get("defaultValue"))
            else:
                constant = source["runtimeValue"]["constant"]
                inputs[name] = _filled(constant, job) if isinstance(constant, str) else constant
        for name, source in described.get("inputs", {}).get("artifacts", {}).items():
            made = source["taskOutputArtifact"]
            inputs[name] = self.executed[job, made["producerTask"]].artifacts[made["outputArtifactKey"]]
        parts = [
            spec["pipelineInfo"]["name"],
            inputs,
            component.get("outputDefinitions", {}),
            container["image"],
            container.get("command", []),
            container.get("args", []),
            container.get("env", []),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _component(spec: dict[str, Any], task: str) -> dict[str, Any]:
    found: dict[str, Any] = spec["components"][f"comp-{task}"]
    return found


def _allowed(spec: dict[str, Any], task: str) -> bool:
    """Whether the spec lets the task be answered; those behind a condition stand in a DAG of their own."""
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    described = next(dag["tasks"][task] for dag in dags if task in dag["tasks"])
    return bool(described.get("cachingOptions", {}).get("enableCache", False))


def _filled(text: str, job: str) -> str:
    """A constant with Vertex AI's placeholders filled in."""
    name = job.rpartition("/")[2]
    return (
        text.replace("{{$.pipeline_job_name}}", name)
        .replace("{{$.pipeline_job_uuid}}", f"uuid-of-{name}")
        .replace("{{$.pipeline_job_resource_name}}", job)
    )
