"""The promotion ledger: lines are added whole or not at all."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.deploy.config import DeployConfig
from components.deploy.ledger import History, Ledger, LedgerEntry, Outcome, Standing
from serving.platform.errors import StageError
from tests.fakes.gcs import FakeGcs


def entry(
    before: str | None, after: str, outcome: Outcome = "promoted", why: str = "x", action: str = "deploy"
) -> LedgerEntry:
    return LedgerEntry(
        who="ada",
        action=action,
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


def test_one_promotion_at_a_time_holds_the_ledger(tmp_path: Path) -> None:
    place = str(tmp_path / "ledger.jsonl")
    with (
        Ledger(place).exclusive(0.0),
        pytest.raises(StageError, match="another promotion is under way"),
        Ledger(place).exclusive(0.0),
    ):
        pytest.fail("held twice")
    with Ledger(place).exclusive(0.0):
        pass


def history(*lines: LedgerEntry) -> History:
    return History(list(lines), "m")


def test_a_rollback_goes_back_step_by_step_and_never_to_what_was_rolled_back() -> None:
    lines = [entry(None, "1"), entry("1", "2"), entry("2", "3", "rolled_back"), entry("2", "2"), entry("2", "4")]
    assert history(*lines).before("4") == Standing("2")
    lines.append(entry("4", "2", action="rollback"))
    assert history(*lines).before("2") == Standing("1")
    assert history(*lines).withdrawn == {"4"}
    lines.append(entry("2", "1", action="rollback"))
    assert history(*lines).before("1") is None
    assert history(*lines).withdrawn == {"2", "4"}
    # a number brings one back, and only that one
    lines.append(entry("1", "4", action="promote"))
    assert history(*lines).before("4") == Standing("1")
    assert history(*lines).withdrawn == {"2"}
    assert history(*lines).before("3") is None
    assert history(*lines).served == {"1", "4"}


@given(st.lists(st.tuples(st.sampled_from(["promote", "rollback", "deploy"]), st.integers(1, 4)), max_size=30))
def test_no_order_of_commands_leads_a_rollback_to_a_withdrawn_version(commands: list[tuple[str, int]]) -> None:
    lines: list[LedgerEntry] = []
    champion: str | None = None
    taken_out: set[str] = set()
    for action, number in commands:
        known = history(*lines)
        if action == "rollback":
            before = known.before(champion) if champion else None
            if before is None:
                continue
            assert before.version not in taken_out
            taken_out.add(champion or "")
            to = before.version
        else:
            to = str(number)
            if action == "deploy" and to in known.withdrawn:
                continue
            taken_out.discard(to)
        lines.append(entry(champion, to, action=action))
        champion = to
        assert history(*lines).withdrawn == taken_out


def test_an_attempt_without_its_second_line_is_unfinished() -> None:
    begun = entry("1", "2", "begun").model_copy(update={"attempt": "a"})
    ended = begun.model_copy(update={"outcome": "promoted"})
    assert history(begun).unfinished == [begun]
    assert history(begun, ended).unfinished == []
    assert History([begun], "other").unfinished == []


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


def released(before: str | None, after: str, old: str, new: str, action: str = "deploy") -> LedgerEntry:
    """A promotion where the target names its serving images."""
    return entry(before, after, action=action).model_copy(update={"from_image": old, "to_image": new})


def test_a_version_goes_back_with_the_image_that_served_it() -> None:
    first = released("1", "2", "i1", "i2")
    assert (history(first).image, history(first).before("2")) == ("i2", Standing("1", "i1"))
    # a release of code alone
    assert history(first, released("2", "2", "i2", "i3")).before("2") == Standing("2", "i2")
    # what ran in truth counts, where the line knows it
    assert history(first, released("2", "3", "i9", "i10")).before("3") == Standing("2", "i9")
    assert history(first, released("2", "3", "", "i10")).before("3") == Standing("2", "i2")
    # somebody else's promotion, of which there is no line
    assert history(first, released("7", "8", "i7", "i8")).before("8") == Standing("7", "i7")
    assert history(first, released("7", "8", "i7", "i8")).served == {"1", "2", "7", "8"}
    assert history(released(None, "1", "", "i1", "rollback")).withdrawn == set()


def test_what_is_begun_is_no_outcome_and_every_line_knows_its_hour(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger.jsonl"))
    ledger.append(entry("1", "2", "begun"))
    ledger.append(entry("1", "2"))
    assert [line.outcome for line in ledger.lines()] == ["begun", "promoted"]
    assert [line.outcome for line in ledger.entries()] == ["promoted"]
    assert all(line.at.endswith("+00:00") for line in ledger.lines())


def test_a_place_is_held_on_disk_only_and_an_unreadable_line_is_named_by_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "ledger.jsonl"
    place.write_text('{"no": "entry"}\n')
    ledger = Ledger(str(place))
    ledger.append(entry(None, "1"))
    assert len(ledger.lines()) == 1 and str(place) in caplog.text
    assert (ledger.held, Ledger("gs://bucket/ledger.jsonl").held) == (True, False)
    with ledger.exclusive(0.0), pytest.raises(StageError) as told, ledger.exclusive(0.0):
        pytest.fail("held twice")
    assert str(told.value).startswith("another promotion is under way")
    with pytest.raises(StageError, match=r"; set deploy\.ledger_path$"):
        Ledger("/proc/nowhere/ledger.jsonl").check()
