"""What a run and a month of serving cost, from dated list prices and the durations that are known or assumed."""

import datetime
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

import yaml

from components.deploy.config import DeployConfig
from pipelines.runs import list_runs, median_seconds
from pipelines.settings.names import STAGES, Task
from pipelines.settings.operations import CostConfig
from pipelines.settings.pipeline import PipelineConfig
from pipelines.settings.places import Machine
from serving.platform.errors import CostError
from serving.platform.frozen import Frozen

HOURS_A_MONTH: Final = 730.0
_VERTEX_JOB: Final = "/pipelineJobs/"
"""In the resource name of a run on Vertex AI, whose machines are the ones priced here."""
_N1: Final = re.compile(r"n1-(standard|highmem|highcpu)-(\d+)")
_GB_PER_CPU: Final = {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9}
"""Compute Engine documentation, N1 machine series."""


class Price(Frozen):
    """One list price, by region."""

    unit: str
    usd: dict[str, float]
    source: str
    seen: str
    read: datetime.date
    checked: bool
    """False: only another's quotation of the source was read."""


class Prices(Frozen):
    """`prices.yaml`."""

    currency: Literal["USD"]
    items: dict[str, Price]

    def usd(self, item: str, region: str) -> float:
        """Price of one unit.

        Raises:
            CostError: none is known for the region.
        """
        price = self.items[item]
        if region not in price.usd:
            known = ", ".join(price.usd)
            raise CostError(f"no price of a {price.unit} in {region} in pipelines/prices.yaml; it has: {known}")
        return price.usd[region]


@dataclass(frozen=True)
class Line:
    """One position of an estimate."""

    what: str
    group: Literal["run", "serving", "operations", "storage"]
    """`run`: for one pipeline run; the others for one month."""
    quantity: float
    unit: str
    usd: float
    basis: str
    """Where the quantity comes from."""


@dataclass(frozen=True)
class Estimate:
    """What things cost by list prices."""

    region: str
    lines: tuple[Line, ...]
    prices_read: str
    """Date of the oldest price used, ISO 8601."""
    unchecked: tuple[str, ...]
    """Prices that only another's quotation vouches for."""

    def total(self, *groups: str) -> float:
        """Sum over groups, US dollars."""
        return round(sum(line.usd for line in self.lines if line.group in groups), 4)

    @property
    def sentence(self) -> str:
        """One line for before a submission."""
        return (
            f"estimated cost: ${self.total('run'):.2f} for this run, "
            f"${self.total('serving', 'operations', 'storage'):.2f} a month for serving, operations and storage "
            f"(list prices of {self.region} read {self.prices_read}; see: aidetect cost)"
        )

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "region": self.region,
            "currency": "USD",
            "per_run": self.total("run"),
            "per_month": {group: self.total(group) for group in ("serving", "operations", "storage")},
            "lines": [line.__dict__ for line in self.lines],
            "prices": {name: price.model_dump(mode="json") for name, price in load_prices().items.items()},
        }


@cache
def load_prices() -> Prices:
    """The price table that ships with the project."""
    text = files("pipelines").joinpath("prices.yaml").read_text()
    return Prices.model_validate(yaml.safe_load(text))


def estimate(config: PipelineConfig) -> Estimate:
    """Cost of a run on Vertex AI and of a month of serving, as configured.

    Raises:
        CostError: no price is known for the region, accelerator or machine.
    """
    region = config.vertex.region
    there = config.deploy.region or region
    lines = [
        *_run(config, region),
        *_serving(config, there),
        *_operations(config.cost, there),
        *_storage(config, region),
    ]
    prices = load_prices().items
    return Estimate(
        region=region,
        lines=tuple(lines),
        prices_read=min(price.read for price in prices.values()).isoformat(),
        unchecked=tuple(name for name, price in prices.items() if not price.checked),
    )


def machine_hour(cpu: float, memory_gb: float, accelerator: str, count: int, region: str, spot: bool = False) -> float:
    """List price of one hour on Vertex AI, US dollars.

    Args:
        cpu: vCPUs.
        memory_gb: memory.
        accelerator: Vertex AI's name, or empty.
        count: how many of them.
        region: Google Cloud region.
        spot: whether the machine may be taken away; Vertex AI's own fee stays that of one that stays.

    Raises:
        CostError: no price is known.
    """
    prices = load_prices()
    hour = cpu * prices.usd("n1_vcpu_hour", region) + memory_gb * prices.usd("n1_gb_hour", region)
    if count:
        if accelerator != "NVIDIA_TESLA_T4":
            raise CostError(f"no price of {accelerator} in pipelines/prices.yaml; it has: NVIDIA_TESLA_T4")
        hour += count * prices.usd("t4_hour", region)
    return hour * ((prices.usd("spot_share", region) if spot else 1.0) + prices.usd("vertex_share", region))


def _run(config: PipelineConfig, region: str) -> list[Line]:
    recorded = _recorded_minutes(config)
    lines = [Line("Vertex AI Pipelines", "run", 1, "run", load_prices().usd("pipeline_run", region), "its fee")]
    for stage in STAGES:
        machine = config.machines.of(stage)
        known = recorded.get(stage)
        hours = (config.cost.stage_minutes.of(stage) if known is None else known[0]) / 60
        basis = "cost.stage_minutes, assumed" if known is None else f"median of {known[1]} recorded runs"
        price = machine.nodes * machine_hour(
            machine.cpu, machine.memory_gb, machine.accelerator, machine.accelerator_count, region, machine.spot
        )
        if machine.spot:
            basis += "; what is trained again after a preemption is not in it"
        if machine.in_own_job:
            follows = config.task_machines.of(stage)
            price += machine_hour(follows.cpu, follows.memory_gb, "", 0, region)
        lines.append(Line(f"{stage} on {_words(machine)}", "run", round(hours, 4), "hour", hours * price, basis))
    return lines


def _words(machine: Machine) -> str:
    # Vertex AI may give a stage without accelerator a cheaper series: an upper bound
    accelerator = f" and {machine.accelerator_count} x {machine.accelerator}" if machine.accelerator_count else ""
    nodes = f"{machine.nodes} x " if machine.nodes > 1 else ""
    spot = "spot " if machine.spot else ""
    return f"{spot}{nodes}{machine.cpu} vCPU, {machine.memory_gb} GB{accelerator} (priced as N1)"


def _recorded_minutes(config: PipelineConfig) -> dict[Task, tuple[float, int]]:
    """Median minutes and number of recorded runs, of each stage that ran on Vertex AI."""
    priced = (record for record in list_runs(config.paths.workspace) if _VERTEX_JOB in record.resource)
    return {stage: (seconds / 60, count) for stage, (seconds, count) in median_seconds(priced).items()}


def _serving(config: PipelineConfig, region: str) -> list[Line]:
    deploy = config.deploy
    if deploy.target == "cloud_run":
        return _cloud_run(config.cost, region)
    if deploy.target == "vertex_endpoint":
        return [_endpoint(deploy, region)]
    return []


def _cloud_run(cost: CostConfig, region: str) -> list[Line]:
    prices, seconds = load_prices(), cost.min_instances * HOURS_A_MONTH * 3600
    basis = f"cost.min_instances {cost.min_instances}, always on; what traffic adds is not in it"
    cpu, memory = seconds * cost.service_cpu, seconds * cost.service_memory_gib
    return [
        Line("Cloud Run CPU", "serving", cpu, "vCPU second", cpu * prices.usd("cloud_run_vcpu_second", region), basis),
        Line(
            "Cloud Run memory",
            "serving",
            memory,
            "GiB second",
            memory * prices.usd("cloud_run_gib_second", region),
            basis,
        ),
    ]


def _endpoint(deploy: DeployConfig, region: str) -> Line:
    shape = _N1.fullmatch(deploy.machine_type)
    if shape is None:
        raise CostError(
            f"no price of deploy.machine_type {deploy.machine_type}; known: n1-standard, -highmem, -highcpu"
        )
    cpu = int(shape[2])
    price = machine_hour(cpu, cpu * _GB_PER_CPU[shape[1]], deploy.accelerator_type, deploy.accelerator_count, region)
    hours = deploy.min_replicas * HOURS_A_MONTH
    basis = (
        f"deploy.min_replicas {deploy.min_replicas}, always on; the smoke endpoint's machine runs in deployments only"
    )
    return Line(f"Vertex AI endpoint, {deploy.machine_type}", "serving", hours, "hour", hours * price, basis)


def _operations(cost: CostConfig, region: str) -> list[Line]:
    """MLflow, what brings the metrics, and previews; each by the keys that its basis names."""
    prices = load_prices()
    hour = 3600 * prices.usd("cloud_run_vcpu_second", region), 3600 * prices.usd("cloud_run_gib_second", region)

    def awake(cpu: float, gib: float, hours: float) -> float:
        return hours * (cpu * hour[0] + gib * hour[1])

    lines: list[Line] = []
    if cost.database_cpu:
        machine = cost.database_cpu * prices.usd("cloud_sql_vcpu_hour", region)
        machine += cost.database_memory_gb * prices.usd("cloud_sql_gb_hour", region)
        disk = cost.database_disk_gb * prices.usd("cloud_sql_disk_gb_month", region)
        size = f"{cost.database_cpu} vCPU, {cost.database_memory_gb:g} GB, always on"
        kept = "cost.database_disk_gb, assumed; backups as large again"
        server = awake(1, 2, cost.mlflow_hours)
        lines += [
            Line("MLflow's database", "operations", HOURS_A_MONTH, "hour", HOURS_A_MONTH * machine, size),
            Line("MLflow's database, disk", "operations", 2 * cost.database_disk_gb, "GB month", 2 * disk, kept),
            Line("MLflow's server", "operations", cost.mlflow_hours, "hour", server, "cost.mlflow_hours, assumed"),
        ]
    if cost.metrics_sidecar and cost.min_instances:
        hours = cost.min_instances * HOURS_A_MONTH
        samples = hours * 120 * cost.metric_series / 1e6
        price = samples * prices.usd("prometheus_million_samples", region)
        lines += [
            Line("Metrics sidecar", "operations", hours, "hour", awake(1, 0.5, hours), "1 vCPU, 0.5 GiB an instance"),
            Line("Metric samples", "operations", samples, "million", price, "cost.metric_series, assumed"),
        ]
    previews = awake(cost.service_cpu, cost.service_memory_gib, cost.preview_hours)
    basis = "cost.preview_hours, assumed; asleep between requests"
    return [*lines, Line("Previews of pull requests", "operations", cost.preview_hours, "hour", previews, basis)]


def _storage(config: PipelineConfig, region: str) -> list[Line]:
    prices, cost = load_prices(), config.cost
    stored = cost.storage_gb + 6 * cost.storage_growth_gb
    return [
        Line(
            "Cloud Storage",
            "storage",
            stored,
            "GB month",
            stored * prices.usd("storage_gb_month", region),
            "cost.storage_gb and half a year of cost.storage_growth_gb, assumed",
        ),
        Line(
            "Artifact Registry",
            "storage",
            cost.images_gb,
            "GB month",
            cost.images_gb * prices.usd("images_gb_month", region),
            "cost.images_gb, assumed",
        ),
    ]
