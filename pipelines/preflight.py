"""Checks before money is spent: first all that can be known without asking the cloud, then what only it can tell."""

from pathlib import Path
from typing import Any, Final

from pipelines.cloud_checks import before_submission
from pipelines.cost import estimate
from pipelines.reach import out_of_reach
from pipelines.settings.names import STAGES, Stage
from pipelines.settings.pipeline import PipelineConfig
from pipelines.settings.places import NEVER_PUSHED, Machine, is_pinned
from serving.platform.errors import CompileError, CostError, PreflightError

T4_REGIONS: Final = frozenset(
    {
        "asia-east1", "asia-northeast1", "asia-northeast3", "asia-south1", "asia-southeast1", "australia-southeast1",
        "europe-west1", "europe-west2", "europe-west3", "europe-west4", "northamerica-northeast1",
        "southamerica-east1", "us-central1", "us-east1", "us-east4", "us-west1", "us-west2", "us-west4",
    }
)  # fmt: skip
"""Regions of Vertex AI custom training with T4s (Google Cloud documentation, Vertex AI locations, 2026)."""

L4_REGIONS: Final = frozenset(
    {
        "asia-east1", "asia-northeast1", "asia-northeast3", "asia-south1", "asia-southeast1", "europe-west1",
        "europe-west2", "europe-west3", "europe-west4", "europe-west6", "me-central2", "northamerica-northeast2",
        "us-central1", "us-east1", "us-east4", "us-west1", "us-west4",
    }
)  # fmt: skip
"""The same with L4s."""

ACCELERATOR_REGIONS: Final = {"NVIDIA_TESLA_T4": T4_REGIONS, "NVIDIA_L4": L4_REGIONS}

SHAPES: Final = {
    "NVIDIA_TESLA_T4": ("N1", {1: (24, 156), 2: (48, 312), 4: (96, 624)}),
    "NVIDIA_L4": ("G2", {1: (32, 128), 2: (24, 96), 4: (48, 192), 8: (96, 384)}),
}
"""Accelerator -> family and, by their number, largest (CPUs, memory in GB) of the machine that they attach to."""


def check_cloud(config: PipelineConfig, parameters: dict[str, Any], spec: dict[str, Any]) -> None:
    """Everything that must hold before a spec is sent to Vertex AI.

    Raises:
        PreflightError: all problems found, each with its fix.
    """
    problems = [*problems_offline(config), *_parameters(parameters, spec)]
    if problems:
        raise PreflightError("; ".join(problems))


def problems_offline(config: PipelineConfig) -> list[str]:
    """What of the configuration Vertex AI would refuse, each with its fix."""
    return [*_places(config), *_images(config), *_machines(config)]


def ask_cloud(config: PipelineConfig, results: str = "") -> list[str]:
    """What only the cloud can tell before a submission: buckets, images, quota; then what the run may cost.

    Args:
        config: of the run.
        results: where a catalogue's rows go; empty for a training, whose cost alone is estimated.

    Returns:
        Notes: what could not be checked, and the estimated cost.

    Raises:
        PreflightError: the run would fail on what was found.
    """
    findings = before_submission(config, results)
    problems = [f"{found.subject}: {found.message}" for found in findings if found.status == "error"]
    if problems:
        raise PreflightError("; ".join(problems))
    notes = [f"note: {found.subject}: {found.message}" for found in findings if found.status == "warning"]
    if results:
        return notes
    try:
        return [*notes, estimate(config).sentence]
    except CostError as error:
        return [*notes, f"note: no cost estimate: {error}"]


def check_parameters(parameters: dict[str, Any], spec: dict[str, Any]) -> None:
    """Names and types of a run's parameters against its spec.

    Raises:
        PreflightError: all problems found.
    """
    problems = _parameters(parameters, spec)
    if problems:
        raise PreflightError("; ".join(problems))


def jobs_of_their_own(config: PipelineConfig) -> list[str]:
    """What a run on Kubeflow lacks whose training asks for machines of its own: several, or spot ones."""
    machine, kubeflow, problems = config.machines.train, config.kubeflow, []
    if machine.nodes > 1:
        missing = [f"kubeflow.{key}" for key in ("trainer_runtime", "shared_dir") if not getattr(kubeflow, key)]
        here = f"machines.train.nodes {machine.nodes}"
        if missing:
            problems.append(f"{here}: set {' and '.join(missing)} (infra/kubernetes/training.yaml), or nodes to 1")
        elif not kubeflow.shared_dir.startswith("/"):
            problems.append(f"kubeflow.shared_dir {kubeflow.shared_dir!r}: give the folder where pods mount it (/...)")
        elif not Path(config.train.checkpoint_dir).is_relative_to(kubeflow.shared_dir):
            problems.append(
                f"{here}: one that goes away starts all again; set train.checkpoint_dir to a folder below "
                f"{kubeflow.shared_dir}"
            )
    if machine.spot:
        problems.append("machines.train.spot: spot machines are asked for on Vertex AI only; set it to false")
    return problems


def refuse_movable_tags(config: PipelineConfig) -> None:
    """Vertex AI caches by image name: a movable tag would answer with results of older code.

    Raises:
        CompileError: names the image and the fix.
    """
    for name, image in config.named_images.items():
        if not is_pinned(image):
            raise CompileError(
                f"{name} is {image!r}: pin it by digest (…@sha256:<64 hex>), a tag may move under a cached run; "
                "aidetect bootstrap builds, pushes and pins"
            )


def _places(config: PipelineConfig) -> list[str]:
    missing = [f"vertex.{key}" for key in ("project", "bucket") if not getattr(config.vertex, key)]
    problems = [f"set {' and '.join(missing)}; run: aidetect init"] if missing else []
    if config.vertex.bucket and not config.vertex.bucket.startswith("gs://"):
        problems.append(f"vertex.bucket {config.vertex.bucket!r} must start with gs://")
    problems += out_of_reach(config, "vertex")
    if not config.tracking.uri.startswith(("http://", "https://")):
        problems.append(
            "set tracking.uri to an MLflow server (http:// or https://; aidetect bootstrap makes one): a run in the "
            "cloud cannot write sqlite"
        )
    return problems


def _images(config: PipelineConfig) -> list[str]:
    try:
        refuse_movable_tags(config)
    except CompileError as error:
        return [str(error)]
    names = [name for name, image in config.named_images.items() if image.endswith(NEVER_PUSHED)]
    return [
        f"{name} was never pushed: build and push it (aidetect bootstrap does), then pin its digest" for name in names
    ]


def _machines(config: PipelineConfig) -> list[str]:
    problems = []
    for stage in STAGES:
        machine = config.machines.of(stage)
        if machine.in_own_job:
            problems += [f"machines.{stage}: {problem}" for problem in _own_job(stage, machine, config)]
        if bool(machine.accelerator) != bool(machine.accelerator_count):
            problems.append(f"machines.{stage}: accelerator and accelerator_count go together")
        elif machine.accelerator and stage != "train":
            problems.append(f"machines.{stage}: only train uses an accelerator; leave it out here")
        elif machine.accelerator:
            if config.train.device != "auto" and not config.train.device.startswith("cuda"):
                problems.append(
                    f"machines.train asks for a {machine.accelerator} and train.device is {config.train.device!r}: "
                    "set it to cuda, or accelerator_count to 0"
                )
            problems += [f"machines.{stage}: {problem}" for problem in _accelerator(machine, config.vertex.region)]
    return problems


def _own_job(stage: Stage, machine: Machine, config: PipelineConfig) -> list[str]:
    if stage != "train":
        kinds = {"several machines; leave nodes out here": machine.nodes > 1}
        kinds["spot machines; leave spot out here"] = machine.spot
        return [f"only train runs on {kind}" for kind, asked in kinds.items() if asked]
    problems = []
    if not config.train.checkpoint_dir.startswith("gs://"):
        why = f"{machine.nodes} nodes: one that goes away starts all again"
        if machine.spot:
            why = "spot machines are taken away at any time, and training would start from nothing"
        problems.append(f"{why}; set train.checkpoint_dir to a gs:// folder")
    if not machine.machine_type and (not machine.accelerator or machine.accelerator in SHAPES):
        job = "several nodes" if machine.nodes > 1 else "a spot machine"
        problems.append(
            f"no machine type has {machine.cpu} CPUs and {machine.memory_gb} GB with {machine.accelerator_count} "
            f"accelerators; a job on {job} has to name one: ask for less"
        )
    return problems


def _accelerator(machine: Machine, region: str) -> list[str]:
    regions = ACCELERATOR_REGIONS.get(machine.accelerator)
    if regions is None:
        return [f"{machine.accelerator} is not one this project knows; known: {', '.join(ACCELERATOR_REGIONS)}"]
    problems = [] if region in regions else [f"{machine.accelerator} is not offered in {region}"]
    family, shapes = SHAPES[machine.accelerator]
    name, count = machine.accelerator.rpartition("_")[2], machine.accelerator_count
    if count not in shapes:
        fits = " or ".join(map(str, shapes))
        return [*problems, f"{count} {name}s do not attach to one machine; use {fits}"]
    cpus, memory_gb = shapes[count]
    if machine.cpu > cpus or machine.memory_gb > memory_gb:
        problems.append(
            f"{count} {name} attach to at most {cpus} CPUs and {memory_gb} GB ({family}), "
            f"not to {machine.cpu} CPUs and {machine.memory_gb} GB"
        )
    return problems


_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "STRUCT": (dict,),
    "LIST": (list,),
}


def _parameters(parameters: dict[str, Any], spec: dict[str, Any]) -> list[str]:
    """Names and types against the spec; the client library accepts a wrong type in silence."""
    declared = spec["root"]["inputDefinitions"]["parameters"]
    problems = [f"unknown parameter {name!r}" for name in sorted(set(parameters) - set(declared))]
    for name, definition in declared.items():
        if name not in parameters:
            if "defaultValue" not in definition and not definition.get("isOptional"):
                problems.append(f"parameter {name!r} has no value")
            continue
        kinds = _KINDS[definition["parameterType"]]
        value = parameters[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            problems.append(f"parameter {name!r} must be {definition['parameterType']}, not {type(value).__name__}")
    return problems
