"""The main job through the front door: both branches of the gate, by which stages ran."""

import json
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests.e2e.conftest import Cli
from tests.e2e.replayed import replay

ALL = ["verify_data", "train", "evaluate", "quality_gate", "register", "deploy"]


def ran(record: dict[str, Any]) -> list[str]:
    return [stage["name"] for stage in record["stages"] if stage["status"] == "succeeded"]


def test_a_passed_gate_leads_to_a_served_champion(passed: tuple[Cli, dict[str, Any]]) -> None:
    cli, record = passed
    assert ran(record) == ALL
    assert record["headline"].startswith("PASSED")
    (version,) = cli.models()
    assert version["aliases"] == ["champion"] or set(version["aliases"]) == {"challenger", "champion"}
    assert (cli.workspace / "promotions.jsonl").read_text().count('"promoted"') == 1
    servers = [p for p in psutil.process_iter(["cmdline"]) if str(cli.workspace) in " ".join(p.info["cmdline"] or [])]
    assert servers == []


def test_a_refused_gate_registers_nothing(
    passed: tuple[Cli, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replay(monkeypatch, passed[1])
    cli = Cli(tmp_path)
    code, record = cli.run(**dict[str, Any]({"gate.min_accuracy": "1.0", "gate.min_f1": "0"}))
    assert (code, record["status"]) == (2, "refused")
    assert ran(record) == ALL[:4]
    assert record["headline"].startswith("REFUSED: accuracy ")
    assert cli.models() == []
    assert not (tmp_path / "promotions.jsonl").exists()


def test_f1_alone_refuses_on_a_folder_with_other_names_of_the_classes(passed: tuple[Cli, dict[str, Any]]) -> None:
    cli, record = passed
    (evaluation,) = Path(record["folder"]).glob("artifacts/*/evaluate/evaluation")
    judged = cli.here("gate", str(evaluation), "--set", "gate.min_accuracy=0", "--set", "gate.min_f1=1.0", "--json")
    assert judged.returncode == 2, judged.stderr
    assert json.loads(judged.stdout)["headline"].startswith("REFUSED: F1 ")


def test_without_auto_deploy_a_run_stops_after_register(
    passed: tuple[Cli, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, migrated: Path, tmp_path: Path
) -> None:
    replay(monkeypatch, passed[1])
    shutil.copy(migrated, tmp_path / "mlflow.db")
    cli = Cli(tmp_path)
    code, record = cli.run(**dict[str, Any]({"gate.min_accuracy": "0", "gate.min_f1": "0", "deploy.auto": "false"}))
    assert (code, record["status"]) == (0, "registered")
    assert ran(record) == ALL[:5]
    assert [version["aliases"] for version in cli.models()] == [["challenger"]]


def test_the_champion_answers_on_the_command_line(passed: tuple[Cli, dict[str, Any]], tmp_path: Path) -> None:
    cli, _ = passed
    Image.effect_noise((64, 64), 40).convert("RGB").save(tmp_path / "noise.jpg")
    photo = str(tmp_path / "noise.jpg")
    predicted = cli.here("predict", photo)
    assert predicted.returncode == 0, predicted.stderr
    assert "P(ai_generated) =" in predicted.stdout
    picture = tmp_path / "heat.png"
    explained = cli.here("explain", photo, "-o", str(picture))
    assert explained.returncode == 0, explained.stderr
    with Image.open(picture) as image:
        assert image.format == "PNG" and max(image.size) == 512


def test_a_failing_stage_fails_the_run_with_its_own_message(tmp_path: Path) -> None:
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "notes.txt").write_text("no folder here is named for a class")
    code, record = Cli(tmp_path / "workspace").run("--data", str(unknown))
    assert (code, record["status"]) == (1, "failed")
    assert record["error"].startswith("verify_data: ") and str(unknown) in record["error"]
    assert ran(record) == []
