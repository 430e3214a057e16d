"""Whether to retrain, why, and once; and Alertmanager's way in."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.retrain import Evidence, decide, gather, retrain
from pipelines.retrain_state import History, Start
from pipelines.settings.operations import RetrainConfig
from serving.platform.errors import RetrainError, StageError
from tests.fakes.gcs import FakeGcs
from tests.fakes.google_sign_in import Quiet, serving
from tests.fakes.policy import Policy, plan_of

NOW = 1_800_000_000.0
DAY = 86_400.0
CALM = Evidence(drift_state="ok", model_version="3", champion_age_days=10.0, new_labels=20)
ALARM = CALM.model_copy(update={"drift_state": "alarm", "diagnosis": "scores moved"})


@dataclass
class Run:
    run_id: str = "20270115-080000"
    status: str = "deployed"


def started(reason: str, ago_s: float, version: str = "3") -> Start:
    return Start(
        at=NOW - ago_s, reason=reason, explanation="", key=f"{reason}:{version}", run_id="r1", status="refused"
    )


@pytest.mark.parametrize(
    ("evidence", "history", "reason", "words"),
    [
        (CALM, [], "none", "nothing calls for it"),
        (ALARM, [], "drift", "drift alarm on version 3: scores moved"),
        (CALM.model_copy(update={"drift_state": "drift"}), [], "none", "nothing"),  # a warning is not an alarm
        (CALM.model_copy(update={"champion_age_days": 91.0}), [], "age", "91 days old"),
        (CALM.model_copy(update={"new_labels": 500}), [], "new_labels", "500 new labels"),
        (CALM.model_copy(update={"champion_age_days": None}), [], "none", "nothing"),
        (CALM.model_copy(update={"declared_recall_high": 0.41}), [], "declared_recall", "at most 41%"),
        (CALM.model_copy(update={"declared_recall_high": 0.87}), [], "none", "nothing"),
        (ALARM, [started("age", 3600)], "none", "cool-down"),
        (ALARM, [started("drift", 2 * DAY)], "none", "already answered"),
        (ALARM, [started("drift", 2 * DAY, version="2")], "drift", "version 3"),
        (ALARM, [started("drift", 8 * DAY)], "drift", "version 3"),
        (ALARM.model_copy(update={"new_labels": 900}), [started("drift", 2 * DAY)], "new_labels", "900"),
    ],
)
def test_the_decision_and_its_reason(evidence: Evidence, history: list[Start], reason: str, words: str) -> None:
    found = decide(evidence, RetrainConfig(), history, NOW)
    assert (found.retrain, found.reason) == (reason != "none", reason)
    assert words in found.explanation
    assert [line.partition(":")[0] for line in found.considered] == [
        "drift",
        "age",
        "new labels",
        "declared uploads recognised",
    ]


@pytest.fixture
def config(tmp_path: Path) -> RetrainConfig:
    return RetrainConfig(state_path=str(tmp_path / "workspace" / "retrain.jsonl"))


def test_two_callers_at_once_start_one_run(config: RetrainConfig) -> None:
    calls: list[tuple[str, str]] = []

    def start(reason: str, explanation: str) -> Run:
        calls.append((reason, explanation))
        time.sleep(0.2)
        return Run()

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: retrain(config, ALARM, start), range(4)))
    assert len(calls) == 1
    assert calls[0][0] == "drift"
    assert sorted(o.run_id for o in outcomes) == ["", "", "", Run.run_id]
    (kept,) = History(config.state_path).read()
    assert (kept.run_id, kept.status, kept.reason) == (Run.run_id, "deployed", "drift")


def test_a_dry_run_explains_and_leaves_nothing(config: RetrainConfig) -> None:
    def start(*_: str) -> Run:
        raise AssertionError("a dry run started a run")

    outcome = retrain(config, ALARM, start, dry_run=True)
    assert outcome.decision.retrain
    assert not Path(config.state_path).parent.exists()


def test_a_run_that_could_not_start_may_be_tried_again_and_a_killed_one_not(config: RetrainConfig) -> None:
    def fail(*_: str) -> Run:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        retrain(config, ALARM, fail)
    assert History(config.state_path).read() == []
    assert retrain(config, ALARM, lambda *_: Run()).run_id

    # as if the process had been killed in the middle of a run
    path = Path(config.state_path)
    path.write_text(path.read_text().splitlines()[0].replace("not_started", "starting") + "\n")
    again = retrain(config, ALARM, lambda *_: Run())
    assert not again.decision.retrain
    assert "starting" in again.decision.explanation


def test_a_damaged_record_stops_rather_than_starts(config: RetrainConfig) -> None:
    path = Path(config.state_path)
    path.parent.mkdir()
    path.write_text("{half a li\n")
    with pytest.raises(StageError, match=r"retrain\.jsonl: none of the 1 lines .*repair or move"):
        retrain(config, ALARM, lambda *_: Run())


@pytest.mark.parametrize("torn", [b'{"at": 18', b'{"at": 18}{"at":\n', b"\0" * 300, b"\xff\n"])
def test_a_torn_line_of_a_dead_machine_ends_no_later_retrain(config: RetrainConfig, torn: bytes) -> None:
    calm = config.model_copy(update={"cool_down_hours": 0.0})
    assert retrain(calm, ALARM, lambda *_: Run()).run_id
    with Path(config.state_path).open("ab") as file:
        file.write(torn)
    again = retrain(calm, ALARM, lambda *_: Run())
    assert "already answered" in again.decision.explanation
    aged = ALARM.model_copy(update={"drift_state": "ok", "champion_age_days": 91.0})
    assert retrain(calm, aged, lambda *_: Run()).run_id
    assert [start.reason for start in History(config.state_path).read()] == ["drift", "age"]


def test_a_torn_label_costs_that_label_only(tmp_path: Path, served: str) -> None:
    path = tmp_path / "feedback.jsonl"
    lines = [{"at": "2099-01-01T00:00:00+00:00", "request_id": f"r{i}", "item": 0, "more": "x"} for i in range(3)]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"at": "2099-01-01T00:0')
    assert gather(served, feedback_path=str(path)).new_labels == 3
    path.write_text('{"at": "2099-01-01T00:0{"at"\n' + "\n".join(map(json.dumps, lines)))
    assert gather(served, feedback_path=str(path)).new_labels == 3
    path.write_text("not ours\n")
    with pytest.raises(StageError, match=r"feedback\.jsonl: none of the 1 lines"):
        gather(served, feedback_path=str(path))


def test_a_record_in_a_bucket_is_remembered_by_the_next_runner_and_races_start_one(gcs: FakeGcs) -> None:
    as_receiver(gcs)
    config = RetrainConfig(state_path="gs://records/retrain.jsonl")
    barrier, calls = threading.Barrier(3), []

    def start(*_: str) -> Run:
        calls.append(1)
        return Run()

    def runner(_: int) -> Any:
        barrier.wait(60)
        return retrain(config, ALARM, start)

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(runner, range(3)))
    assert len(calls) == 1
    assert sorted(outcome.run_id for outcome in outcomes) == ["", "", Run.run_id]
    (kept,) = History(config.state_path).read()
    assert (kept.run_id, kept.status) == (Run.run_id, "deployed")
    assert "cool-down" in retrain(config, ALARM, start).decision.explanation
    assert len(calls) == 1


@pytest.mark.parametrize("code", [403, 404])
def test_a_bucket_that_refuses_starts_nothing(gcs: FakeGcs, code: int) -> None:
    config = RetrainConfig(state_path="gs://records/retrain.jsonl")

    def start(*_: str) -> Run:
        raise AssertionError("started without a record")

    gcs.fail("upload", code)
    with pytest.raises(StageError, match=f"gs://records/retrain.jsonl: {code}"):
        retrain(config, ALARM, start)
    assert gcs.objects == {}


GRANTS = "module.platform.module.retrain.google_storage_bucket_iam_member.records"


def as_receiver(gcs: FakeGcs, without: str = "") -> None:
    """The bucket of records as Terraform grants it, asked by the receiver's account."""
    gcs.policy = Policy(plan_of("prod", without), aliases={"records": "example-project-aidetect-pipelines"})
    gcs.policy.as_account("retrain", "decides")


def test_a_grant_that_the_receiver_lacks_starts_nothing_and_is_named(gcs: FakeGcs) -> None:
    config = RetrainConfig(state_path="gs://records/retrain.jsonl")
    as_receiver(gcs, f'{GRANTS}["state"]')
    with pytest.raises(StageError, match=r"'storage\.objects\.get' denied.*; grant roles/storage\.objectViewer to"):
        retrain(config, ALARM, lambda *_: pytest.fail("started without a record"))
    as_receiver(gcs)
    assert retrain(config, ALARM, lambda *_: Run()).run_id == Run.run_id


def test_labels_in_a_bucket_count(gcs: FakeGcs, served: str) -> None:
    lines = [{"at": "2099-01-01T00:00:00+00:00", "request_id": f"r{i}", "item": 0} for i in range(3)]
    gcs.put("gs://records/feedback.jsonl", "\n".join(map(json.dumps, lines)).encode())
    assert gather(served, feedback_path="gs://records/feedback.jsonl").new_labels == 3


class Endless(Quiet):
    """Says of its drift, or of its metrics, more than can be meant."""

    endless = "/drift"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        model = {"manifest": {"provenance": {"created_at": "2026-01-01T00:00:00+00:00"}}}
        drift = {"state": "ok", "diagnosis": "", "model_version": "1"}
        with suppress(OSError):
            while self.path == self.endless:
                self.wfile.write(b'aidetect_declared_recall{bound="high"} 0.1e+-\n' * 4096)
            self.wfile.write(json.dumps(model if self.path == "/model" else drift).encode())


def test_no_answer_is_read_without_end() -> None:
    with serving(Endless) as url, pytest.raises(RetrainError, match="answer of more than 8 MiB"):
        gather(url=url)
    with serving(Endless, endless="/metrics") as url:
        assert gather(url=url).declared_recall_high is None


def test_evidence_without_a_source_or_an_answer_is_one_clear_line() -> None:
    with pytest.raises(RetrainError, match="--url"):
        gather()
    with pytest.raises(RetrainError, match="is it running"):
        gather(url="http://127.0.0.1:9")
    with pytest.raises(RetrainError, match="is it running"):
        gather(prometheus="http://127.0.0.1:9")


Webhook = Callable[..., httpx.Response]
