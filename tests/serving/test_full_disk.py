"""A disk that is really full, a tmpfs of its own: what was acknowledged is there when there is room again."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from components.deploy.ledger import Ledger, LedgerEntry
from components.train.checkpoint import Checkpoints
from serving.platform.errors import AidetectError, StageError
from tests.bundles import jpeg
from tests.serving.processes import serve

pytestmark = pytest.mark.system


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free; gives the file that takes the room."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                pass
    return ballast


def test_labels_and_windows_outlive_it(toy_bundle: Path, tmp_path: Path, disk: Path) -> None:
    settings = {"FEEDBACK_DIR": str(disk / "feedback"), "DRIFT_STATE_PATH": str(disk / "drift.sqlite"), "SLOTS": "1"}
    acknowledged: list[str] = []
    refused: list[int] = []

    def round_trip(client: httpx.Client) -> None:
        said = client.post("/predict", files={"file": ("x.jpg", jpeg(205), "image/jpeg")})
        assert said.status_code == 200  # a verdict needs no disk
        number = said.json()["request_id"]
        answer = client.post("/feedback", json={"request_id": number, "label": "real"})
        if answer.status_code == 200:
            acknowledged.append(number)
        else:
            refused.append(answer.status_code)

    with serve(toy_bundle, tmp_path / "log", **settings) as server, httpx.Client(base_url=server.url) as client:
        for _ in range(5):
            round_trip(client)
        ballast = fill(disk)
        for _ in range(40):
            round_trip(client)
        assert refused and set(refused) <= {503, 507}, refused
        ballast.unlink()
        for _ in range(5):
            round_trip(client)
        assert len(acknowledged) >= 10
        assert server.terminate() == 0
    with serve(toy_bundle, tmp_path / "log2", **settings) as server, httpx.Client(base_url=server.url) as client:
        said = [client.post("/feedback", json={"request_id": n, "label": "real"}).json() for n in acknowledged]
    assert {one["status"] for one in said} == {"unchanged"}


def test_the_ledger_outlives_it(disk: Path) -> None:
    ledger = Ledger(str(disk / "ledger.jsonl"))

    def entry(number: int) -> LedgerEntry:
        return LedgerEntry(
            who="ada",
            action="promote",
            why="x" * 500,
            target="local",
            model="m",
            from_version=str(number),
            to_version=str(number + 1),
            bundle_digest="",
            verdict="",
            outcome="promoted",
        )

    ledger.append(entry(0))
    ballast = fill(disk)
    written = 0
    with pytest.raises(AidetectError, match=r"ledger\.jsonl"):
        for number in range(1, 50):
            ledger.append(entry(number))
            written = number
    ballast.unlink()
    ledger.append(entry(100))
    assert [e.from_version for e in ledger.entries()] == [*(str(n) for n in range(written + 1)), "100"]


def test_the_last_checkpoint_outlives_it(disk: Path) -> None:
    import torch

    kept = Checkpoints(disk / "training")
    kept.save({"epoch": 1, "weights": torch.zeros(50_000)})
    with pytest.raises(StageError, match="cannot write the checkpoint: No space left on device; free some space"):
        kept.save({"epoch": 2, "weights": torch.zeros(800_000)})
    assert [path.name for path in (disk / "training").iterdir()] == ["last.pt"]
    assert (kept.load() or {})["epoch"] == 1
    kept.save({"epoch": 3, "weights": torch.zeros(50_000)})
    assert (kept.load() or {})["epoch"] == 3
