"""The promotion ledger: lines are added whole or not at all."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.deploy.config import DeployConfig
from components.deploy.ledger import Ledger, LedgerEntry, Outcome, undone_by_rollback
from serving.platform.errors import StageError
from tests.fakes.gcs import FakeGcs


def entry(before: str | None, after: str, outcome: Outcome = "promoted", why: str = "x") -> LedgerEntry:
    return LedgerEntry(
        who="ada",
        action="deploy",
        why=why,
        target="local",
        model="m",
        from_version=before,
        to_version=after,
        bundle_digest="d",
        verdict="PASSED",
        outcome=outcome,
    )


def test_lines_come_back_in_order_whatever_they_say(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "new" / "ledger.jsonl"))
    texts = ["plain", "two\nlines", 'ünïcode \u2028 and \\ "quotes"']
    for text in texts:
        ledger.append(entry(None, "1", why=text))
    assert [line.why for line in ledger.entries()] == texts


def test_half_a_line_of_a_dead_machine_does_not_swallow_the_next(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger.jsonl"))
    ledger.append(entry(None, "1"))
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        file.write(b'{"schema_version":1,"at":"20')
    ledger.append(entry("1", "2"))
    assert [line.to_version for line in ledger.entries()] == ["1", "2"]


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger.jsonl"))
    writers = [threading.Thread(target=ledger.append, args=(entry(None, str(n)),)) for n in range(32)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(int(line.to_version) for line in ledger.entries()) == list(range(32))


def test_a_rollback_takes_back_what_brought_the_present_champion() -> None:
    history = [entry(None, "1"), entry("1", "2"), entry("2", "3", "rolled_back"), entry("2", "2"), entry("2", "4")]
    assert undone_by_rollback(history, "4") is history[-1]
    assert undone_by_rollback(history[:-1], "2") is history[1]
    assert undone_by_rollback(history, "1") is history[0]
    assert undone_by_rollback(history, "3") is None


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"target": "cloud_run"}, "needs deploy.project, deploy.region"),
        ({"target": "nowhere"}, "target"),
        ({"canary": 5}, "canary"),
        ({"canary_percent": 100}, "canary_percent"),
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas must not be below"),
        (
            {"target": "vertex_endpoint", "project": "p", "region": "r", "endpoint": "1", "smoke_endpoint": "1"},
            "smoke_endpoint must be another endpoint",
        ),
    ],
)
def test_wrong_knobs_are_named(section: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DeployConfig.model_validate(section)


def test_kfp_turns_ints_into_floats() -> None:
    assert DeployConfig.model_validate({"port": 8080.0, "canary_percent": 10.0}).port == 8080


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    gcs = FakeGcs()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    yield gcs
    gcs.close()


def test_ledger_in_a_bucket(bucket: FakeGcs) -> None:
    ledger = Ledger("gs://ops/promotions.jsonl")
    ledger.check()
    assert ledger.entries() == []
    ledger.append(entry(None, "1"))
    ledger.append(entry("1", "2"))
    assert [line.to_version for line in ledger.entries()] == ["1", "2"]


def test_two_writers_of_a_bucket_lose_nothing(bucket: FakeGcs) -> None:
    writers = [
        threading.Thread(target=Ledger("gs://ops/promotions.jsonl").append, args=(entry(None, str(n)),))
        for n in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(line.to_version for line in Ledger("gs://ops/promotions.jsonl").entries()) == ["0", "1", "2"]


def test_bucket_without_an_object_is_refused() -> None:
    with pytest.raises(StageError, match="must be gs://BUCKET/OBJECT"):
        Ledger("gs://ops")
