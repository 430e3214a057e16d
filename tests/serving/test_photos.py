"""Files of every kind through every door: the two routes, the command line and the check of data agree."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from serving.detector.image import REASONS
from tests.photos import cases, saved
from tests.serving.processes import Server, serve

NAMES = list(cases())
NEAR = 0.05


@pytest.fixture(scope="module")
def server(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("photos") / "log"
    with serve(toy_bundle, log, SLOTS="1", RATE_LIMIT_ENABLED="false") as running:
        yield running


@pytest.fixture(scope="module")
def judged(server: Server) -> dict[str, httpx.Response]:
    """Every file's answer on /predict."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        return {name: client.post("/predict", files={"file": (name, cases()[name].data)}) for name in NAMES}


def test_predict_judges_what_a_browser_shows(judged: dict[str, httpx.Response]) -> None:
    for name, answer in judged.items():
        case, body = cases()[name], answer.json()
        if case.refused:
            assert (answer.status_code // 100, body["reason"]) == (4, case.refused), name
            assert body["advice"] == REASONS[body["reason"]].seller
            continue
        assert answer.status_code == 200, (name, body)
        like = judged[case.same_as or case.near].json()["probability"]
        assert body["probability"] == pytest.approx(like, abs=1e-6 if case.same_as else NEAR), name


def test_the_batch_says_the_same(server: Server, judged: dict[str, httpx.Response]) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for start in range(0, len(NAMES), 10):
            names = NAMES[start : start + 10]
            files = [("files", (name, cases()[name].data)) for name in names]
            results = client.post("/predict/batch", files=files).json()["results"]
            for name, item in zip(names, results, strict=True):
                one = judged[name].json()
                if item["error"]:
                    assert item["error"]["reason"] == one["reason"]
                    assert item["error"]["advice"] == one["advice"]
                else:
                    assert item["probability"] == pytest.approx(one["probability"], abs=1e-6)


def test_the_access_log_has_the_reason_and_every_line_is_json(
    server: Server, judged: dict[str, httpx.Response]
) -> None:
    lines = [json.loads(line) for line in server.log.splitlines() if line]
    refused = [line.get("reason") for line in lines if line.get("httpRequest", {}).get("status") in (415, 422)]
    assert refused and None not in refused
    assert set(refused) == {case.refused for name in judged if (case := cases()[name]).refused}


def test_the_command_line_says_the_same_and_lists_every_file(
    judged: dict[str, httpx.Response], toy_bundle: Path, tmp_path: Path
) -> None:
    for name in NAMES:
        (tmp_path / name).write_bytes(cases()[name].data)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "large.png").write_bytes(saved("PNG") + bytes(11 << 20))
    names = [*NAMES, "pipe.jpg", "large.png", "missing.jpg"]
    files = [str(tmp_path / name) for name in names]
    answer = CliRunner().invoke(app, ["predict", *files, "--model", str(toy_bundle), "--json"])
    assert answer.exit_code == 1
    found = {Path(item["file"]).name: item for item in json.loads(answer.stdout)}
    assert list(found) == names
    for name, one in judged.items():
        if one.status_code == 200:
            assert found[name]["probability"] == pytest.approx(one.json()["probability"], abs=1e-6)
        else:
            assert found[name]["error"]["reason"] == one.json()["reason"]
    assert found["large.png"]["error"]["reason"] == "file_too_large"
    assert found["pipe.jpg"]["error"]["reason"] == found["missing.jpg"]["error"]["reason"] == "unreadable"


def test_data_verify_judges_every_file_by_the_same_rule(tmp_path: Path) -> None:
    from components.verify_data.config import VerifyDataConfig
    from components.verify_data.stage import verify

    folders = [tmp_path / split / label for split in ("train", "test") for label in ("real", "ai_generated")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "picture.png").write_bytes(saved("PNG"))
    for number, name in enumerate(NAMES):
        # suffixes say nothing; only what is no picture by name nor by bytes is skipped
        named = name if cases()[name].refused else f"{name}.{number}"
        (folders[number % 2] / named).write_bytes(cases()[name].data)
    (tmp_path / "README").write_text("about these pictures")
    (folders[0] / "labels.csv").write_text("a,b")
    os.mkfifo(folders[0] / "pipe.jpg")
    (folders[0] / "loop").symlink_to("..")
    (folders[0] / "nowhere.jpg").symlink_to("none")
    Path(os.fsdecode(os.fsencode(folders[0]) + b"/caf\xe9.jpg")).write_bytes(saved("JPEG", quality=60))
    findings, _ = verify(str(tmp_path), VerifyDataConfig(workers=1))
    refused = {Path(offender.name).name for offender in findings.offenders if offender.kind == "corrupt"}
    assert refused == {name for name in NAMES if cases()[name].refused}
    assert findings.rows == len(NAMES) + len(folders) + 1
    assert {entry.kind: entry.count for entry in findings.skipped} == {
        "text": 2,
        "named pipe": 1,
        "link to a folder that is read already": 1,
        "link that leads nowhere": 1,
    }
    assert any("named pipe" in warning for warning in findings.warnings)
