"""`aidetect cost`: the sums follow from the price table, the durations from recorded runs."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.cost import load_prices, machine_hour
from pipelines.runs import new_run
from pipelines.settings.names import STAGES
from tests.pipelines.conftest import Aidetect


def test_a_machine_hour_is_vertex_ais_own_published_figure() -> None:
    # Vertex AI's page: n1-standard-4 in us-central1, $0.21849885 an hour (read 2026-10-07)
    assert machine_hour(4, 15, "", 0, "us-central1") == pytest.approx(0.21849885, abs=1e-8)
    with_t4 = machine_hour(8, 30, "NVIDIA_TESLA_T4", 1, "us-central1")
    assert with_t4 - machine_hour(8, 30, "", 0, "us-central1") == pytest.approx(0.4025)


def test_every_price_says_where_and_when_it_was_read() -> None:
    prices = load_prices().items
    for price in prices.values():
        assert price.source.startswith("https://cloud.google.com/")
        assert price.seen and datetime.date(2026, 1, 1) <= price.read <= datetime.datetime.now(datetime.UTC).date()
    regions = {frozenset(price.usd) for price in prices.values()}
    assert len(regions) == 1  # a region has all prices or none


def test_sums_follow_from_their_lines(aidetect: Aidetect) -> None:
    bill = aidetect("cost", "--json").document
    for group, total in {"run": bill["per_run"], **bill["per_month"]}.items():
        lines = [line["usd"] for line in bill["lines"] if line["group"] == group]
        assert lines and total == pytest.approx(sum(lines), abs=1e-3)
    train = next(line for line in bill["lines"] if line["what"].startswith("train "))
    assert "8 vCPU, 30 GB and 1 x NVIDIA_TESLA_T4" in train["what"]
    assert train["usd"] == pytest.approx(25 / 60 * machine_hour(8, 30, "NVIDIA_TESLA_T4", 1, "europe-west1"))
    assert len([line for line in bill["lines"] if line["group"] == "run"]) == 1 + len(STAGES)
    shown = aidetect("cost")
    assert f"{bill['per_run']:.2f}" in shown.out and "to be checked" in shown.out


def test_mlflow_metrics_and_previews_are_on_the_bill_and_follow_their_keys(aidetect: Aidetect) -> None:
    def month(*settings: str) -> dict[str, float]:
        bill = aidetect("cost", "--json", settings=["vertex.region=europe-west4", *settings]).document
        return {line["what"]: line["usd"] for line in bill["lines"] if line["group"] == "operations"}

    whole = month()
    assert {"MLflow's database", "MLflow's server", "Metrics sidecar", "Previews of pull requests"} <= set(whole)
    assert month("cost.database_cpu=2")["MLflow's database"] > whole["MLflow's database"] > 20
    assert not {name for name in month("cost.database_cpu=0") if "MLflow" in name}
    assert not {name for name in month("cost.min_instances=0") if "etric" in name}
    grown = aidetect("cost", "--json", settings=["cost.storage_growth_gb=100"]).document["per_month"]["storage"]
    assert grown > aidetect("cost", "--json").document["per_month"]["storage"] + 10


def test_spot_machines_cost_less_and_the_fee_stays(aidetect: Aidetect) -> None:
    def train(*settings: str) -> dict[str, Any]:
        lines = aidetect("cost", "--json", settings=list(settings)).document["lines"]
        return next(line for line in lines if line["what"].startswith("train "))

    spot, follows = train("machines.train.spot=true"), 25 / 60 * machine_hour(4, 15, "", 0, "europe-west1")
    share = load_prices().usd("spot_share", "europe-west1")
    assert spot["usd"] - follows == pytest.approx(train()["usd"] * (share + 0.15) / 1.15)
    assert spot["what"].startswith("train on spot 8 vCPU") and "after a preemption" in spot["basis"]
    assert spot["usd"] < train()["usd"]


def test_recorded_runs_replace_what_was_assumed(aidetect: Aidetect, tmp_path: Path) -> None:
    settings = [f"paths.workspace={tmp_path}"]
    for seconds in (600.0, 1200.0, 6000.0):
        record = new_run(tmp_path, "vertex", "production", "manual", "c0ffee")
        record.stage("train").status, record.stage("train").seconds = "succeeded", seconds
        record.resource = f"projects/p/locations/r/pipelineJobs/{record.run_id}"
        record.save()
    local = new_run(tmp_path, "local", "sample", "manual", "c0ffee")
    local.stage("train").status, local.stage("train").seconds = "succeeded", 1.0
    local.save()
    lines = aidetect("cost", "--json", settings=settings).document["lines"]
    train = next(line for line in lines if line["what"].startswith("train "))
    assert (train["quantity"], train["basis"]) == (pytest.approx(1200 / 3600, abs=1e-4), "median of 3 recorded runs")
    evaluate = next(line for line in lines if line["what"].startswith("evaluate "))
    assert evaluate["basis"] == "cost.stage_minutes, assumed"


def test_serving_follows_the_deployment(aidetect: Aidetect) -> None:
    asleep = aidetect("cost", "--json", settings=["cost.min_instances=0"]).document
    assert asleep["per_month"]["serving"] == 0
    endpoint = ["deploy.target=vertex_endpoint", "deploy.endpoint=users", "deploy.smoke_endpoint=trial"]
    bill = aidetect("cost", "--json", settings=[*endpoint, "deploy.min_replicas=2"]).document
    month = 2 * 730 * machine_hour(4, 15, "", 0, "europe-west1")
    assert bill["per_month"]["serving"] == pytest.approx(month, abs=1e-3)
    assert aidetect("cost", "--json", settings=["deploy.target=local"]).document["per_month"]["serving"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("vertex.region=mars-north1", "in mars-north1 in pipelines/prices.yaml; it has: europe-west1"),
        ("machines.train.accelerator=NVIDIA_L4", "no price of NVIDIA_L4"),
    ],
)
def test_what_has_no_price_is_one_line(aidetect: Aidetect, change: str, message: str) -> None:
    ran = aidetect("cost", settings=[change])
    assert ran.code == 1 and message in ran.err and len(ran.err.splitlines()) == 1
